"""Which classes a stage works with: those that make enough combinations whole, then others in a seeded order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.picking import mixed
from pillsnap.data.randomness import derive_seed
from pillsnap.data.stage_pool import Pool

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

MIN_KINDS = 3  # different combinations: one to train, one to validate, one to test


@dataclass(frozen=True, slots=True)
class ClassChoice:
    """The classes a stage works with."""

    is_chosen: Mask
    """(C,)"""
    is_ignored: Mask
    """(C,) keys that are no classes; their pictures are used all the same."""

    @property
    def classes(self) -> IntArray:
        """Numbers of the chosen classes."""
        return np.flatnonzero(self.is_chosen)

    @classmethod
    def of(cls, pool: Pool, is_eligible: Mask, max_classes: int, max_samples: int | None) -> ClassChoice:
        """Choose at most `max_classes` of the eligible classes, see `stages`."""
        is_ignored = ~pool.is_class
        if is_eligible.sum() <= max_classes:
            return cls(is_eligible, is_ignored)
        sizes = np.bincount(pool.single_class[~pool.is_combo], minlength=len(pool.codes))
        num_with_singles = int((is_eligible & (sizes > 0)).sum())
        total = len(pool) * max_classes / pool.num_classes if max_samples is None else max_samples
        budget = max(max_classes // 2, round(pool.combo_share * max_classes), max_classes - num_with_singles)
        walk = ComboWalk(pool, is_eligible, is_ignored)
        is_chosen = walk.run(round(total * pool.combo_share), budget)
        hashes = np.array([derive_seed(pool.seed, "class", code) for code in pool.codes], np.uint64)
        others = np.flatnonzero(is_eligible & ~is_chosen)
        # A class without single pictures has none at all where its combinations are not whole.
        by_hash = others[np.lexsort((hashes[others], sizes[others] == 0))]
        is_chosen[by_hash[: max_classes - int(is_chosen.sum())]] = True
        return cls(is_chosen, is_ignored)

    def is_usable_single(self, pool: Pool) -> Mask:
        """Tell which pictures of the pool are single ones of a chosen class, or of an ignored key, (P,)."""
        usable = np.append(self.is_chosen | self.is_ignored, False)  # the last: a combination has no class of its own
        return np.asarray(~pool.is_combo & usable[pool.single_class], bool)

    def is_usable_combo(self, pool: Pool) -> Mask:
        """Tell which pictures of the pool are combinations whose pills are all of such classes, (P,)."""
        usable = self.is_chosen | self.is_ignored
        places = np.flatnonzero(pool.is_combo)
        owner, classes = pool.classes_of(places)
        has_other = np.bincount(owner[~usable[classes]], minlength=len(places)) > 0
        found = np.zeros(len(pool), bool)
        found[places[~has_other]] = True
        return found


class ComboWalk:
    """Takes classes so that few of them make many combinations whole: always the combination that lacks the fewest."""

    def __init__(self, pool: Pool, is_eligible: Mask, is_ignored: Mask) -> None:
        """Find the different combinations of classes, and in which of them each class occurs."""
        places = np.flatnonzero(pool.is_combo)
        owner, classes = pool.classes_of(places)
        marks = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed(classes.astype(np.uint64), pool.seed))])
        ends = np.cumsum(pool.num_boxes[places])
        keys, first, kind = np.unique(  # sums of marks wrap around, which does not matter to their differences
            marks[ends] - marks[ends - pool.num_boxes[places]], return_index=True, return_inverse=True
        )
        self.num_pictures = np.bincount(kind, minlength=len(keys))
        kind_owner, kind_classes = pool.classes_of(places[first])
        is_counted = ~is_ignored[kind_classes]
        pairs = np.unique(kind_owner[is_counted] * len(pool.codes) + kind_classes[is_counted])
        self.kinds, self.classes = pairs // max(1, len(pool.codes)), pairs % max(1, len(pool.codes))
        by_class = np.argsort(self.classes, kind="stable")
        self.kinds_by_class = self.kinds[by_class]
        self.class_begins = np.searchsorted(self.classes[by_class], np.arange(len(pool.codes) + 1))
        self.missing = np.bincount(self.kinds, minlength=len(keys))
        self.is_possible = np.bincount(self.kinds[~is_eligible[self.classes]], minlength=len(keys)) == 0
        self.rank = np.empty(len(keys), np.int64)
        self.rank[np.argsort(mixed(keys, pool.seed))] = np.arange(len(keys))
        self.is_chosen = np.zeros(len(pool.codes), bool)

    def run(self, num_wanted: int, budget: int) -> Mask:
        """Take classes until enough pictures are whole, or nothing more fits in `budget` classes.

        Args:
            num_wanted: Pictures; if there are any, they shall be of `MIN_KINDS` combinations.
            budget: Most classes.

        Returns:
            (C,) the classes taken.
        """
        while not self._is_enough(num_wanted):
            room = budget - int(self.is_chosen.sum())
            open_kinds = np.flatnonzero(self.is_possible & (self.missing > 0) & (self.missing <= room))
            if not len(open_kinds):
                break
            cost = self.missing[open_kinds] * len(self.rank) + self.rank[open_kinds]
            self._take(int(open_kinds[np.argmin(cost)]))
        return self.is_chosen

    def _is_enough(self, num_wanted: int) -> bool:
        is_whole = self.missing == 0
        num_kinds = MIN_KINDS if num_wanted else 0
        return bool(self.num_pictures[is_whole].sum() >= num_wanted and is_whole.sum() >= num_kinds)

    def _take(self, kind: int) -> None:
        begin, end = np.searchsorted(self.kinds, [kind, kind + 1])  # pairs are sorted by kind
        for number in self.classes[begin:end]:
            if not self.is_chosen[number]:
                self.is_chosen[number] = True
                self.missing[self.kinds_by_class[self.class_begins[number] : self.class_begins[number + 1]]] -= 1
