"""Which classes are taken for which, as the pairs that occur: a few thousand of 5,000 classes' 25 million."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """P pairs of (true, predicted) class with how often each occurs, ordered by true, then predicted class."""

    num_classes: int
    true: Counts
    """(P,) class numbers."""
    pred: Counts
    """(P,) class numbers; the same as `true` where the answer was right."""
    counts: Counts
    """(P,) at least 1."""

    @classmethod
    def of_answers(
        cls, y_true: NDArray[np.integer[Any]], y_pred: NDArray[np.integer[Any]], num_classes: int
    ) -> Confusions:
        """Count answers: (N,) true and (N,) predicted class numbers, 0 to `num_classes` - 1."""
        pairs, counts = np.unique(y_true.astype(np.int64) * num_classes + y_pred, return_counts=True)
        return cls(num_classes, pairs // num_classes, pairs % num_classes, counts.astype(np.int64))

    @classmethod
    def of_matrix(cls, matrix: Counts) -> Confusions:
        """Take the pairs of a (C, C) matrix; rows are true classes."""
        true, pred = np.nonzero(matrix)
        return cls(len(matrix), true, pred, matrix[true, pred].astype(np.int64))

    def matrix(self) -> Counts:
        """Return (C, C); rows are true classes. 5,000 classes take 200 MB."""
        found = np.zeros((self.num_classes, self.num_classes), np.int64)
        found[self.true, self.pred] = self.counts
        return found

    @property
    def totals(self) -> Counts:
        """(C,) samples of each class."""
        return np.bincount(self.true, self.counts, self.num_classes).astype(np.int64)

    @property
    def right(self) -> Counts:
        """(C,) samples of each class that were named rightly."""
        is_right = self.true == self.pred
        return np.bincount(self.true[is_right], self.counts[is_right], self.num_classes).astype(np.int64)

    def worst_pairs(self, count: int) -> list[tuple[int, int, int, int]]:
        """Return the pairs confused most often; of equals, those that are the larger part of their class first.

        Returns:
            (true class, predicted class, how often, samples of the true class) a pair.
        """
        wrong = np.flatnonzero(self.true != self.pred)
        totals = self.totals[self.true[wrong]]
        order = np.lexsort((-self.counts[wrong] / totals, -self.counts[wrong]))[:count]
        columns = (self.true[wrong], self.pred[wrong], self.counts[wrong], totals)
        return [
            (int(a), int(b), int(times), int(n)) for a, b, times, n in zip(*(c[order] for c in columns), strict=True)
        ]

    @property
    def num_wrong_pairs(self) -> int:
        """How many different confusions occur."""
        return int((self.true != self.pred).sum())
