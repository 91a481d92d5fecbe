"""The calibration error against its definition, written out answer by answer."""

from __future__ import annotations

import numpy as np
import pytest

from pillsnap.evaluation.calibration_error import expected_calibration_error, reliability_bins

pytestmark = pytest.mark.req("VAL-1")


def by_the_definition(confidence: np.ndarray, is_right: np.ndarray, num_bins: int) -> float:
    """Guo et al. 2017, equations 3 to 5: bins (low, high], gaps weighted by their share of the answers."""
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = (confidence > low) & (confidence <= high) | ((confidence == 0) & (number == 0))
        if inside.any():
            total += inside.sum() / len(confidence) * abs(is_right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("seed", range(200))
def test_the_error_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, num_bins = int(rng.integers(1, 300)), int(rng.integers(1, 20))
    confidence = rng.choice([rng.random(size), rng.integers(0, 5, size) / 4])  # also values on edges
    is_right = rng.random(size) < confidence**2
    found = expected_calibration_error(confidence, is_right, num_bins)
    assert found == pytest.approx(by_the_definition(confidence, is_right, num_bins), abs=1e-12)


def test_a_model_that_knows_how_sure_it_is_has_no_error() -> None:
    confidence = np.repeat([0.5, 1.0], [4, 3])
    assert expected_calibration_error(confidence, [1, 0, 1, 0, 1, 1, 1]) == 0.0


def test_bins_tell_counts_and_means_and_none_where_empty() -> None:
    plain = reliability_bins([0.0, 0.5, 0.4, 1.0], [False, True, False, True], num_bins=4).as_plain()
    assert plain["counts"] == [1, 2, 0, 1]
    assert plain["accuracy"] == [0.0, 0.5, None, 1.0]
    assert plain["confidence"] == [0.0, pytest.approx(0.45), None, 1.0]
    assert plain["edges"] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_float32_confidences_of_exactly_one_are_taken() -> None:
    assert expected_calibration_error(np.ones(3, np.float32), [True] * 3) == 0.0


@pytest.mark.parametrize(("confidence", "right"), [([], []), ([0.5], [True, False]), ([[0.5]], [[True]])])
def test_shapes_that_do_not_belong_together_are_refused(confidence: list[float], right: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"confidence has shape .* wanted the same \(N,\)"):
        expected_calibration_error(confidence, right)


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan")])
def test_confidences_that_are_no_probabilities_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"confidences reach from .*; wanted probabilities"):
        expected_calibration_error([0.5, wrong], [True, False])


def test_no_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_bins is 0; wanted 1 or more"):
        expected_calibration_error([0.5], [True], num_bins=0)
