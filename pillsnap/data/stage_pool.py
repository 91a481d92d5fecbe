"""The pictures a stage can choose from, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pillsnap.data import columns
from pillsnap.data.picking import mixed
from pillsnap.data.records import COMBO, Records

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures to choose from: parallel arrays over the pictures, and over the class keys."""

    rows: IntArray
    """(P,) row numbers in the picture table."""
    order: NDArray[np.uint64]
    """(P,) seeded hashes of the sample ids: pictures are taken from the smallest."""
    is_combo: Mask
    """(P,)"""
    single_class: IntArray
    """(P,) number of a single picture's class key; `ABSENT` for combos."""
    group: IntArray
    """(P,) number of the group."""
    box_class: IntArray
    """(B,) numbers of the class keys of all boxes, of all pictures of the table."""
    offsets: IntArray
    """(P,) where a picture's boxes begin in `box_class`."""
    num_boxes: IntArray
    """(P,)"""
    codes: list[str]
    """The class keys, sorted."""
    num_pills: IntArray
    """(C,) single pictures and boxes of combos of each class."""
    is_class: Mask
    """(C,) False for keys that are ignored, or shown by no picture of the pool."""
    seed: int

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows)

    @classmethod
    def of(cls, records: Records, is_used: Mask, ignore: frozenset[str], seed: int) -> Pool:
        """Gather the pictures that `is_used` marks."""
        code = columns.encode(records, "code")
        box_code, offsets = columns.encode_box_codes(records)
        codes = sorted({*code.values, *box_code.values} - {None})
        number_of = {key: number for number, key in enumerate(codes)}
        box_class = _renumbered(box_code, number_of)
        rows = np.flatnonzero(is_used)
        is_combo = columns.equals(records, "task", COMBO)[rows]
        single_class = np.where(is_combo, columns.ABSENT, _renumbered(code, number_of)[rows])
        num_boxes = np.diff(offsets)[rows]
        pool_boxes = box_class[boxes_of(offsets[rows][is_combo], num_boxes[is_combo])]
        num_pills = np.bincount(single_class[~is_combo], minlength=len(codes))
        num_pills += np.bincount(pool_boxes, minlength=len(codes))
        return cls(
            rows=rows,
            order=mixed(records.column("sample_id").astype(np.uint64)[rows], seed),
            is_combo=is_combo,
            single_class=single_class,
            group=columns.encode(records, "group").numbers[rows].astype(np.int64),
            box_class=box_class,
            offsets=offsets[rows],
            num_boxes=num_boxes,
            codes=codes,
            num_pills=num_pills,
            is_class=np.array([key not in ignore for key in codes], bool) & (num_pills > 0),
            seed=seed,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.is_class.sum())

    @property
    def combo_share(self) -> float:
        """Share of combination pictures, 0 to 1."""
        return float(self.is_combo.mean()) if len(self) else 0.0

    def classes_of(self, places: IntArray) -> tuple[IntArray, IntArray]:
        """Return the boxes of the pictures at `places`: the place in `places` of each, and its class."""
        counts = self.num_boxes[places]
        return np.repeat(np.arange(len(places)), counts), self.box_class[boxes_of(self.offsets[places], counts)]

    def counts(self, rows: IntArray | None = None) -> dict[str, int]:
        """Return the numbers of pictures and classes, of all or of those at the given rows of the table."""
        places = np.arange(len(self)) if rows is None else np.flatnonzero(np.isin(self.rows, rows))
        is_combo = self.is_combo[places]
        _, boxes = self.classes_of(places[is_combo])
        shown = np.zeros(len(self.codes), bool)
        shown[self.single_class[places[~is_combo]]] = True
        shown[boxes] = True
        return {
            "single": int((~is_combo).sum()),
            "combo": int(is_combo.sum()),
            "classes": int((shown & self.is_class).sum()),
        }


def boxes_of(begins: IntArray, counts: IntArray) -> IntArray:
    """Return the numbers `begin` to `begin + count` of each list, one after the other."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - counts), counts), np.int64)


def _renumbered(encoded: columns.Encoded, number_of: dict[str, int]) -> IntArray:
    table = np.array([*(number_of[value] for value in encoded.values), columns.ABSENT], np.int64)  # the last: null
    return table[encoded.numbers]
