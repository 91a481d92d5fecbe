"""The levels of the pills that the classifier trains on: which there are, how large they are, and how they are made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.columns import equals
from pillsnap.data.images import RgbImage
from pillsnap.data.items import NO_BOX, ClassificationItems, IntArray
from pillsnap.data.levels import (
    MIN_GAIN,
    REGION_PADDING,
    Level,
    LevelSizes,
    fits_region,
    frame_level,
    make_frame,
    make_region,
    region_level,
)
from pillsnap.data.originals import Originals
from pillsnap.data.pixels import CHANNELS, FRAME_PART, Parts, identity_of, part_keys
from pillsnap.data.preprocess import Crop
from pillsnap.data.records import COMBO, Records
from pillsnap.data.store.layout import Stamp, StoreLayout
from pillsnap.data.store.tiers import PixelStore

REGION_SIDE = 1 + 2 * REGION_PADDING  # of the box's longer side


class TrainingParts(Parts):
    """The levels of the pills that the classifier trains on.

    Entry i is the frame of item i, entry n + i its region, of n items. Combinations have regions only: their frame
    shows other drugs as well.
    """

    def __init__(
        self,
        originals: Originals,
        items: ClassificationItems,
        sizes: LevelSizes,
        view: str,
        store: PixelStore | None = None,
    ) -> None:
        """Serve `items`, single pictures for views of kind `view` (`box`, `frame` or `both`)."""
        super().__init__(originals, store)
        self.items = items
        self.sizes = sizes
        self.view = view

    def layout(self) -> StoreLayout:
        """Return the places that the levels need in a store."""
        records, rows, numbers = self.originals.records, self.items.rows, self.items.box_numbers
        frames = self.sizes.frame_wh(self.originals.sizes_wh(rows))
        has_box = np.asarray(numbers) != NO_BOX
        boxes = _boxes_of(records, rows, numbers)
        region_px = self.sizes.region_px(boxes)
        is_combo = equals(records, "task", COMBO)[rows]
        has_frame = ~is_combo & ((self.view != "box") | ~has_box)
        frame_scale = frames[:, 0] / np.maximum(records.column("width")[rows], 1)
        region_scale = region_px / (np.maximum((boxes[:, 2:] - boxes[:, :2]).max(1, initial=1.0), 1.0) * REGION_SIDE)
        is_sharper = region_scale >= MIN_GAIN * frame_scale
        has_region = has_box & (is_combo | (self.view == "box") | ((self.view == "both") & is_sharper))
        frame_bytes = np.where(has_frame, frames.prod(1) * CHANNELS, 0)
        region_bytes = np.where(has_region, region_px**2 * CHANNELS, 0)
        sample_ids = self.originals.sample_ids(rows)
        keys = np.concatenate(
            [part_keys(sample_ids, np.full(len(rows), FRAME_PART)), part_keys(sample_ids, np.asarray(numbers) + 1)]
        )
        capacity = np.concatenate([frame_bytes, region_bytes]).astype(np.int64)
        # An item without a box has no region: its second key would be the first one again.
        keys[len(rows) :][~has_box] ^= np.uint64(1)
        what = ["levels", self.sizes.size_px, self.sizes.frame_fit, REGION_PADDING]
        return StoreLayout(keys, capacity, identity_of(self.originals.root, *what))

    def level(self, position: int, square: Crop, box_xyxy: FloatArray | None, *, is_combo: bool) -> Level:
        """Return the level that the view `square` of item `position` is cut from.

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """
        row = int(self.items.rows[position])
        size_wh = self.originals.size_wh(row)
        if box_xyxy is not None and self._is_close(square, box_xyxy, size_wh, is_combo=is_combo):
            pixels = self.stored(len(self.items) + position)
            if pixels is None:
                pixels, _ = self._made(position, wants_region=True)
            return region_level(pixels, box_xyxy)
        pixels = self.stored(position)
        if pixels is None:
            pixels, _ = self._made(position, wants_region=False)
        return frame_level(pixels, size_wh)

    def rows_of_entries(self) -> NDArray[np.int64]:
        """Return the row of the picture that each entry is a part of, (2 N,)."""
        return np.tile(np.asarray(self.items.rows, np.int64), 2)

    def make(self, entry: int) -> tuple[RgbImage, Stamp]:
        """Return the frame or the region of an item, made from the original, and the file's stamp."""
        return self._made(entry % len(self.items), wants_region=entry >= len(self.items))

    def _is_close(self, square: Crop, box_xyxy: FloatArray, size_wh: tuple[int, int], *, is_combo: bool) -> bool:
        if is_combo or self.view == "box":
            return True
        return self.view == "both" and fits_region(square, box_xyxy) and self._is_sharper(box_xyxy, size_wh)

    def _is_sharper(self, box_xyxy: FloatArray, size_wh: tuple[int, int]) -> bool:
        side = max(float((box_xyxy[2:] - box_xyxy[:2]).max()), 1.0)
        region_scale = int(self.sizes.region_px(box_xyxy[None])[0]) / (side * REGION_SIDE)
        return region_scale >= MIN_GAIN * self._frame_wh(size_wh)[0] / max(size_wh[0], 1)

    def _frame_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        width, height = self.sizes.frame_wh(np.array([size_wh]))[0].tolist()
        return width, height

    def _made(self, position: int, *, wants_region: bool) -> tuple[RgbImage, Stamp]:
        """Decode the picture of an item, store all of its parts that have a place, and return the one wanted.

        The frame is always made from the reduced picture and regions from the full one, so that pixels do not depend on
        which of them was asked for first.
        """
        row, num_items = int(self.items.rows[position]), len(self.items)
        size_wh = self.originals.size_wh(row)
        wanted: RgbImage | None = None
        with self.making(row) as original:
            if not wants_region or self.keeps(position):
                frame_wh = self._frame_wh(size_wh)
                wanted = make_frame(original.reduced(max(frame_wh)), frame_wh)
                wanted = self.keep(position, wanted, original.stamp)
            for index in self._siblings(position):
                is_wanted = wants_region and index == position
                if is_wanted or self.keeps(num_items + index):
                    box = self.originals.box_xyxy(row, int(self.items.box_numbers[index]))
                    assert box is not None, "an item without a box has no region"
                    region = make_region(original.full(), size_wh, box, int(self.sizes.region_px(box[None])[0]))
                    region = self.keep(num_items + index, region, original.stamp)
                    wanted = region if is_wanted else wanted
        assert wanted is not None
        return wanted, original.stamp

    def _siblings(self, position: int) -> range:
        """Return the items of the same picture, which lie side by side."""
        rows = self.items.rows
        first = last = position
        while first > 0 and rows[first - 1] == rows[position]:
            first -= 1
        while last + 1 < len(rows) and rows[last + 1] == rows[position]:
            last += 1
        return range(first, last + 1)


def _boxes_of(records: Records, rows: IntArray, numbers: IntArray) -> FloatArray:
    """Return the box of each item, (N, 4) pixels; zeros for items without one."""
    column = records.table.column("boxes_xyxy").combine_chunks()
    values = np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)
    first = np.asarray(column.offsets.to_numpy())[rows] // 4
    boxes = np.zeros((len(rows), 4), np.float32)
    has_box = np.asarray(numbers) != NO_BOX
    boxes[has_box] = values[first[has_box] + np.asarray(numbers)[has_box]]
    return boxes
