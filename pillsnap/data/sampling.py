"""Which samples an epoch of the classifier consists of, and in which order: a pure function of (seed, task, epoch).

Naturally an epoch visits every sample once. Classes can be balanced, and crops of combination photographs be given a
share of the epoch instead; an epoch keeps its length then. What occurs more often than once does so as evenly as
possible: no sample of a class is shown twice before another one has been shown once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.picking import ranks_within
from pillsnap.data.randomness import epoch_order, sample_generator
from pillsnap.errors import DataError

Positions = NDArray[np.int64]


def epoch_samples(num_samples: int, seed: int, task: str, epoch: int) -> Positions:
    """Return the natural order of an epoch: every sample once."""
    return epoch_order(num_samples, seed, task, epoch)


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What an epoch is made of.

    Raises:
        DataError: A share of combination crops is asked for where there are none, or nothing else.
    """

    labels: NDArray[np.integer[Any]]
    """(N,) class of each sample."""
    is_combo_crop: NDArray[np.bool_]
    """(N,) marks crops of combination photographs."""
    balance: bool = False
    """Every class that has samples gets the same number of places, give or take one. With a `combo_share`, this holds
    among the crops of combinations and among the others, each for itself."""
    combo_share: float | None = None
    """Share of the epoch, 0 to 1, that goes to crops of combinations; None: what follows from the rest."""

    def __post_init__(self) -> None:
        """Check that the share can be met."""
        if self.combo_share is None or not len(self.labels):
            return
        missing = {True: self.combo_share > 0, False: self.combo_share < 1}
        for is_crop, is_needed in missing.items():
            if is_needed and not (self.is_combo_crop == is_crop).any():
                kind = "a crop of a combination photograph" if is_crop else "a single photograph"
                raise DataError(
                    f"data.classification.combo_share is {self.combo_share}, but none of the {len(self.labels)} pills "
                    f"to train on is {kind}. Set data.classification.combo_share=null, or add such pictures."
                )

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        return len(self.labels)

    @property
    def is_natural(self) -> bool:
        """Every sample occurs once an epoch."""
        return not self.balance and self.combo_share is None

    def order(self, seed: int, task: str, epoch: int) -> Positions:
        """Return the positions of an epoch's samples in their order, (num_samples,)."""
        if self.is_natural:
            return epoch_samples(self.num_samples, seed, task, epoch)
        rng = sample_generator(seed, task, epoch, "sampling")
        if self.combo_share is None:
            chosen = self._chosen(np.arange(self.num_samples), self.num_samples, rng)
        else:
            num_crops = round(self.combo_share * self.num_samples)
            crops, others = np.flatnonzero(self.is_combo_crop), np.flatnonzero(~self.is_combo_crop)
            chosen = np.concatenate(
                [self._chosen(crops, num_crops, rng), self._chosen(others, self.num_samples - num_crops, rng)]
            )
        return np.asarray(rng.permutation(chosen), np.int64)

    def _chosen(self, positions: Positions, total: int, rng: np.random.Generator) -> Positions:
        """Give `total` places to the samples at `positions`."""
        if total == 0:
            return np.zeros(0, np.int64)
        shuffled = rng.permutation(positions)
        if not self.balance:
            return _repeated(shuffled, total)
        # Sorted by class, in random order within each: the places of a class go round and round among its samples.
        labels = self.labels[shuffled].astype(np.int64)
        shuffled = shuffled[np.argsort(labels, kind="stable")]
        sizes = np.bincount(labels)
        begins = np.cumsum(sizes) - sizes
        classes = np.flatnonzero(sizes)
        place_class = _repeated(rng.permutation(classes), total)
        turns = np.arange(total) // len(classes)  # the how-manieth place of its class
        return np.asarray(shuffled[begins[place_class] + turns % sizes[place_class]], np.int64)


def occurrences(order: Positions) -> Positions:
    """Return how often each element has occurred in `order` before, (N,).

    A sample's augmentation is owned by its epoch and id: this tells the views of a repeated sample apart.
    """
    return ranks_within(order, np.arange(len(order), dtype=np.uint64))


def _repeated(values: Positions, total: int) -> Positions:
    """Return `values` over and over until there are `total`."""
    return np.resize(values, total)
