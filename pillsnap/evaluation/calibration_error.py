"""Whether a confidence of 0.8 is right in 80 of 100 answers: reliability bins and the expected calibration error.

Method: Guo et al. 2017, "On Calibration of Modern Neural Networks", with bins of equal width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pillsnap.evaluation.arrays import Values, as_array, as_floats

NUM_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityBins:
    """Answers counted by their confidence, B bins of equal width over 0..1."""

    edges: NDArray[np.float64]
    """(B + 1,) from 0 to 1. A bin holds its upper edge and not its lower one; the first holds 0 too."""
    counts: NDArray[np.int64]
    """(B,) answers."""
    confidence: NDArray[np.float64]
    """(B,) mean confidence; NaN where the bin is empty."""
    accuracy: NDArray[np.float64]
    """(B,) share of right answers; NaN where the bin is empty."""

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1: the mean of |accuracy - confidence| over the answers."""
        gaps = np.abs(self.accuracy - self.confidence)[self.counts > 0]
        return float(np.sum(gaps * self.counts[self.counts > 0]) / self.counts.sum())

    def as_plain(self) -> dict[str, list[float | int | None]]:
        """Return lists for JSON, None where a bin is empty."""
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "confidence": [None if np.isnan(value) else value for value in self.confidence.tolist()],
            "accuracy": [None if np.isnan(value) else value for value in self.accuracy.tolist()],
        }


def expected_calibration_error(confidence: Values, is_right: Values, num_bins: int = NUM_BINS) -> float:
    """Return the expected calibration error, 0..1; see `reliability_bins` for arguments and errors."""
    return reliability_bins(confidence, is_right, num_bins).error


def reliability_bins(confidence: Values, is_right: Values, num_bins: int = NUM_BINS) -> ReliabilityBins:
    """Count answers by confidence.

    Args:
        confidence: (N,) probability of the answer given, 0..1.
        is_right: (N,) whether that answer was right.
        num_bins: Bins of equal width.

    Raises:
        ValueError: No answers, lengths that differ, confidences outside of 0..1, or fewer than one bin.
    """
    values, right = as_floats(confidence), as_array(is_right).astype(bool)
    _check(values, right, num_bins)
    edges = np.linspace(0, 1, num_bins + 1)
    numbers = np.clip(np.searchsorted(edges, values.astype(np.float64), side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(numbers, minlength=num_bins)
    filled = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges,
        counts,
        np.bincount(numbers, weights=values, minlength=num_bins) / filled,
        np.bincount(numbers, weights=right, minlength=num_bins) / filled,
    )


def _check(values: NDArray[np.floating], right: NDArray[np.bool_], num_bins: int) -> None:
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(
            f"calibration cannot be measured: confidence has shape {values.shape} and is_right {right.shape}; wanted "
            "the same (N,) with N of 1 or more. Pass one of each for every answer."
        )
    if not ((values >= 0) & (values <= 1)).all():  # NaN compares false and lands here too
        raise ValueError(
            f"confidences reach from {values.min():.4g} to {values.max():.4g}; wanted probabilities, 0 to 1. Pass the "
            "softmax of the logits."
        )
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; wanted 1 or more. Leave it out for {NUM_BINS}.")
