"""ROC and precision-recall curves of one class against the rest, from one sort.

A curve bends only where a pill of the class itself comes, and a class of thousands has a dozen pills: counting what
ranks above each of them gives both curves exactly, ties included, as scikit-learn computes them from all N scores.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Curve(NamedTuple):
    """A curve, and the area that summarises it."""

    x: NDArray[np.float64]
    """Ascending; may repeat where the curve is vertical."""
    y: NDArray[np.float64]
    area: float


class Counts(NamedTuple):
    """What ranks above each of V different scores of the class's own pills, the highest first; all (V,)."""

    right_above: NDArray[np.int64]
    wrong_above: NDArray[np.int64]
    right: NDArray[np.int64]
    """At this score or above."""
    wrong: NDArray[np.int64]
    """At this score or above."""
    num_wrong: int
    """Pills of other classes in all."""


def count_above(is_true: NDArray[np.bool_], scores: Floats) -> Counts:
    """Count what ranks above a class's own pills.

    Args:
        is_true: (N,) pills of the class; at least one, and not all.
        scores: (N,) finite, higher means more of the class. Only their order matters.
    """
    ordered = np.sort(scores)
    values, times = np.unique(scores[is_true], return_counts=True)
    values, times = values[::-1], times[::-1]
    right = np.cumsum(times)
    right_above = right - times
    wrong_above = len(ordered) - np.searchsorted(ordered, values, side="right") - right_above
    wrong = len(ordered) - np.searchsorted(ordered, values, side="left") - right
    return Counts(right_above, wrong_above, right, wrong, len(ordered) - int(right[-1]))


def roc_curve(counts: Counts) -> Curve:
    """Return false-positive rate, true-positive rate, and the area under them."""
    num_right = counts.right[-1]
    wrong = np.concatenate([[0], np.stack([counts.wrong_above, counts.wrong], axis=1).ravel(), [counts.num_wrong]])
    right = np.concatenate([[0], np.stack([counts.right_above, counts.right], axis=1).ravel(), [num_right]])
    moves = np.append(True, (np.diff(wrong) > 0) | (np.diff(right) > 0))
    x, y = wrong[moves] / counts.num_wrong, right[moves] / num_right
    return Curve(x, y, float(np.trapezoid(y, x)))


def precision_recall_curve(counts: Counts) -> Curve:
    """Return recall, interpolated precision (the best at this recall or beyond) as steps, and average precision."""
    precision = counts.right / (counts.right + counts.wrong)
    recall = counts.right / counts.right[-1]
    starts = np.concatenate([[0.0], recall[:-1]])
    best = np.maximum.accumulate(precision[::-1])[::-1]
    x = np.stack([starts, recall], axis=1).ravel()
    return Curve(x, np.repeat(best, 2), float(np.sum((recall - starts) * precision)))
