import math
from fractions import Fraction

import numpy as np
import pytest

from pillsnap.gates.numbers import exact, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.7, Fraction(7, 10)), (3, Fraction(3)), (1e-7, Fraction(1, 10**7)), (np.float64(0.1), Fraction(1, 10))],
    ids=repr,
)
def test_a_number_is_what_was_written(value: object, expected: Fraction) -> None:
    assert exact(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, np.True_, None, "1", [1]], ids=repr)
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert exact(value) is None


def test_a_share_is_shown_as_1_only_when_it_is() -> None:
    assert shown(Fraction(1)) == 1.0
    assert shown(1 - Fraction(1, 10**30)) < 1.0
    assert shown(Fraction(7, 10)) == 0.7
