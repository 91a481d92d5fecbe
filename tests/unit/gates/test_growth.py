from __future__ import annotations

import numpy as np
import pytest

from pillsnap.gates.growth import Growth


@pytest.mark.req("CRT-2")
def test_the_slope_is_that_of_a_line_through_the_samples() -> None:
    growth = Growth([0, 500, 1000], [10.0, 11.0, 12.0], [1.0, 4.0, 7.0])
    assert growth.per_1000() == pytest.approx((2.0, 6.0))
    assert growth.fitted_mb() == pytest.approx(6.0)


@pytest.mark.req("CRT-2")
def test_memory_that_is_kept_is_seen_and_memory_that_is_freed_is_not() -> None:
    growth = Growth()
    growth.sample(0)
    kept = [np.ones(1_000_000) for _ in range(4)]
    growth.sample(1)
    kept.clear()
    growth.sample(2)
    assert growth.resident_mb[1] - growth.resident_mb[0] == pytest.approx(32, abs=2)
    assert growth.resident_mb[2] - growth.resident_mb[0] == pytest.approx(0, abs=2)


def test_two_samples_make_no_slope() -> None:
    with pytest.raises(ValueError, match="of 2 samples; at least 3 are wanted"):
        Growth([0, 1], [1.0, 2.0], [0.0, 0.0]).per_1000()
