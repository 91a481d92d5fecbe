"""Which cuts of a step the search chooses from."""

from __future__ import annotations

import pytest

from pillsnap.training.auto_batch import possible_cuts
from pillsnap.training.recovery import Cut


@pytest.mark.parametrize(
    ("cut", "bounds", "expected"),
    [
        (Cut(64, 1), (64, 1, 8), [8, 16, 32, 64]),
        (Cut(64, 1), (16, 1, 8), [8, 16]),
        (Cut(64, 1), (64, 16, 8), [16, 32, 64]),
        (Cut(16, 4), (64, 1, 8), [8, 16, 32, 64]),
        (Cut(12, 1), (64, 1, 8), [2, 3, 4, 6, 12]),
        (Cut(12, 1), (5, 1, 8), [2, 3, 4]),
        (Cut(512, 1), (16, 1, 8), [16]),
        (Cut(17, 1), (16, 1, 8), [1]),
        (Cut(1, 1), (64, 4, 8), [1]),
    ],
)
@pytest.mark.req("BAT-1")
def test_the_cuts_to_try_divide_the_step_within_the_bounds(
    cut: Cut, bounds: tuple[int, int, int], expected: list[int]
) -> None:
    largest, smallest, max_grad_accum = bounds
    cuts = possible_cuts(cut, largest=largest, smallest=smallest, max_grad_accum=max_grad_accum)
    assert [one.batch_size for one in cuts] == expected
    assert {one.step_size for one in cuts} == {cut.step_size}
