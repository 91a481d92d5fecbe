"""Where the pixels of a sample come from: the store, or the original file, whose parts are then put into the store.

Three kinds of parts are kept, each a pure function of the original file, so that the pixels are the same whichever tier
serves them: the levels that random views are cut from, the fixed views that validation judges, and the detector's
pictures at input size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.batches import LoadStats
from pillsnap.data.columns import equals
from pillsnap.data.images import FileBytes, RgbImage, decode_bytes, decode_reduced_bytes, read_file
from pillsnap.data.items import NO_BOX, ClassificationItems
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
from pillsnap.data.preprocess import RESIZER, ClassifierInput, Crop, box_view, frame_view, resize_longer_side
from pillsnap.data.records import COMBO, Records
from pillsnap.data.store.layout import Stamp, StoreLayout

if TYPE_CHECKING:
    from pillsnap.data.store.tiers import PixelStore

RECIPE = 1  # raised whenever the same file would give other pixels
CHANNELS = 3
FRAME_PART = 0  # of a picture; the part of box n is n + 1
REGION_SIDE = 1 + 2 * REGION_PADDING  # of the box's longer side


class Original:
    """One original file in memory."""

    def __init__(self, path: Path, file: FileBytes) -> None:
        """Hold the content of `path`."""
        self.stamp = Stamp(file.size, file.mtime_ns)
        self._path, self._data = path, file.data
        self._full: RgbImage | None = None

    def full(self) -> RgbImage:
        """Return all of the picture, uint8 (H, W, 3).

        Raises:
            BrokenImageError: It cannot be decoded.
        """
        if self._full is None:
            self._full = decode_bytes(self._data, self._path)
        return self._full

    def reduced(self, longer_side_px: int) -> RgbImage:
        """Return the picture no larger than needed: JPEG decodes smaller for less, other formats do not.

        Args:
            longer_side_px: The longer side is at least that long, or the picture's own.

        Raises:
            BrokenImageError: It cannot be decoded.
        """
        decoded = decode_reduced_bytes(self._data, self._path, longer_side_px)
        if decoded.reduction == 1:
            self._full = decoded.image
        return decoded.image


class Originals:
    """The original files, decoded; keeps account of what that took."""

    def __init__(self, records: Records, root: Path) -> None:
        """Serve the pictures of `records`, whose paths are relative to `root`."""
        self.records = records
        self.root = root
        self.load = LoadStats()

    def open(self, row: int) -> Original:
        """Read the file of a row.

        Raises:
            BrokenImageError: It cannot be read.
        """
        path = self.root / self.records.image_path(row)
        start = time.perf_counter()
        file = read_file(path)
        self.load.read_s += time.perf_counter() - start
        return Original(path, file)

    def size_wh(self, row: int) -> tuple[int, int]:
        """Return the size of a picture in pixels as the table has it; boxes are measured in it."""
        table = self.records.table
        return int(table.column("width")[row].as_py()), int(table.column("height")[row].as_py())

    def is_combo(self, row: int) -> bool:
        """Tell whether a picture shows several pills."""
        return bool(self.records.table.column("task")[row].as_py() == COMBO)

    def box_xyxy(self, row: int, number: int) -> FloatArray | None:
        """Return box `number` of a picture, (4,) pixels; None for `NO_BOX`."""
        return None if number == NO_BOX else self.records.boxes_xyxy(row)[number]


class Parts:
    """Parts of pictures by entry number; what the store does not hold is made by a subclass and put there."""

    def __init__(self, originals: Originals, store: PixelStore | None) -> None:
        """Read from `store`, or from `originals` alone where there is none."""
        self.originals = originals
        self.store = store

    @property
    def load(self) -> LoadStats:
        """What loading took since it was last taken."""
        return self.originals.load

    def take_load(self) -> LoadStats:
        """Return what loading took, and begin anew."""
        load, self.originals.load = self.originals.load, LoadStats()
        return load

    def stored(self, entry: int) -> RgbImage | None:
        """Return an entry's pixels where the store has them."""
        pixels = None if self.store is None else self.store.read(entry)
        tier = "original" if pixels is None else "store"
        self.load.hits[tier] = self.load.hits.get(tier, 0) + 1
        return pixels

    @contextmanager
    def making(self, row: int) -> Iterator[Original]:
        """Open the original of a row; what the block does to its pixels counts as decoding.

        Raises:
            BrokenImageError: It cannot be read.
        """
        original = self.originals.open(row)
        start = time.perf_counter()
        try:
            yield original
        finally:
            self.load.decode_s += time.perf_counter() - start

    def keeps(self, entry: int) -> bool:
        """Tell whether the store has a place for an entry and does not hold it yet."""
        return self.store is not None and self.store.wants(entry)

    def keep(self, entry: int, pixels: RgbImage, stamp: Stamp) -> None:
        """Put an entry's pixels into the store, where it has a place for them."""
        if self.keeps(entry):
            assert self.store is not None
            self.store.write(entry, pixels, stamp)


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
        frames = self.sizes.frame_wh(_sizes_wh(records, rows))
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
        sample_ids = records.column("sample_id")[rows].astype(np.uint64)
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
                pixels = self._made(position, wants_region=True)
            return region_level(pixels, box_xyxy)
        pixels = self.stored(position)
        if pixels is None:
            pixels = self._made(position, wants_region=False)
        return frame_level(pixels, size_wh)

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

    def _made(self, position: int, *, wants_region: bool) -> RgbImage:
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
                self.keep(position, wanted, original.stamp)
            for index in self._siblings(position):
                is_wanted = wants_region and index == position
                if is_wanted or self.keeps(num_items + index):
                    box = self.originals.box_xyxy(row, int(self.items.box_numbers[index]))
                    assert box is not None, "an item without a box has no region"
                    region = make_region(original.full(), size_wh, box, int(self.sizes.region_px(box[None])[0]))
                    self.keep(num_items + index, region, original.stamp)
                    wanted = region if is_wanted else wanted
        assert wanted is not None
        return wanted

    def _siblings(self, position: int) -> range:
        """Return the items of the same picture, which lie side by side."""
        rows = self.items.rows
        first = last = position
        while first > 0 and rows[first - 1] == rows[position]:
            first -= 1
        while last + 1 < len(rows) and rows[last + 1] == rows[position]:
            last += 1
        return range(first, last + 1)


class EvaluationParts(Parts):
    """The fixed views of the pills that the classifier is judged on; entry i is that of item i."""

    def __init__(
        self,
        originals: Originals,
        items: ClassificationItems,
        spec: ClassifierInput,
        view: str,
        crop_padding: float,
        store: PixelStore | None = None,
    ) -> None:
        """Serve `items`: single pictures as `view` says (`frame` or `box`), pills of combinations always cropped."""
        super().__init__(originals, store)
        self.items = items
        self.spec = spec
        self.view = view
        self.crop_padding = crop_padding

    def layout(self) -> StoreLayout:
        """Return the places that the views need in a store."""
        rows = self.items.rows
        sample_ids = self.originals.records.column("sample_id")[rows].astype(np.uint64)
        capacity = np.full(len(rows), self.spec.size_px**2 * CHANNELS, np.int64)
        what = ["views", self.spec.size_px, self.spec.frame_fit, self.view, self.crop_padding]
        keys = part_keys(sample_ids, np.asarray(self.items.box_numbers) + 1)
        return StoreLayout(keys, capacity, identity_of(self.originals.root, *what))

    def pixels(self, position: int) -> RgbImage:
        """Return the view of item `position`, uint8 (S, S, 3).

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """
        found = self.stored(position)
        if found is not None:
            return found
        row, number = int(self.items.rows[position]), int(self.items.box_numbers[position])
        box = self.originals.box_xyxy(row, number)
        is_whole = box is None or (self.view == "frame" and not self.originals.is_combo(row))
        with self.making(row) as original:
            if box is None or is_whole:
                pixels = frame_view(original.full(), self.spec)
            else:
                pixels = box_view(original.full(), box, self.spec, self.crop_padding)
            self.keep(position, pixels, original.stamp)
        return pixels


class DetectorParts(Parts):
    """Photographs at the detector's size: the longer side fits its input; entry i is that of row i of `rows`."""

    def __init__(
        self,
        originals: Originals,
        rows: NDArray[np.int64],
        size_px: int,
        *,
        is_training: bool,
        store: PixelStore | None = None,
    ) -> None:
        """Serve the pictures in `rows` for an input of `size_px`; only training decodes JPEG reduced."""
        super().__init__(originals, store)
        self.rows = rows
        self.size_px = size_px
        self.is_training = is_training

    def layout(self) -> StoreLayout:
        """Return the places that the photographs need in a store."""
        sizes_wh = _sizes_wh(self.originals.records, self.rows)
        scale = self.size_px / np.maximum(sizes_wh.max(1), 1)
        fitted = np.maximum(np.rint(sizes_wh * scale[:, None]), 1).astype(np.int64)
        sample_ids = self.originals.records.column("sample_id")[self.rows].astype(np.uint64)
        keys = part_keys(sample_ids, np.full(len(self.rows), FRAME_PART))
        what = ["photographs", self.size_px, self.is_training]
        return StoreLayout(keys, fitted.prod(1) * CHANNELS, identity_of(self.originals.root, *what))

    def pixels(self, position: int) -> RgbImage:
        """Return a photograph whose longer side is the detector's input size, uint8 (h, w, 3).

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """
        found = self.stored(position)
        if found is not None:
            return found
        with self.making(int(self.rows[position])) as original:
            image = original.reduced(self.size_px) if self.is_training else original.full()
            pixels = resize_longer_side(image, self.size_px)
            self.keep(position, pixels, original.stamp)
        return pixels


def part_keys(sample_ids: NDArray[np.uint64], parts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a key for each part of a picture, (N,): the sample's id and the part, mixed (SplitMix64's finaliser)."""
    with np.errstate(over="ignore"):
        mixed = sample_ids + (parts.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def identity_of(root: Path, *what: object) -> str:
    """Return a digest of everything but the files that decides what parts look like."""
    text = "|".join(map(str, (RECIPE, root.resolve(), RESIZER, cv2.__version__, *what)))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _sizes_wh(records: Records, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.column_stack([records.column("width")[rows], records.column("height")[rows]]).astype(np.int64)


def _boxes_of(records: Records, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> FloatArray:
    """Return the box of each item, (N, 4) pixels; zeros for items without one."""
    column = records.table.column("boxes_xyxy").combine_chunks()
    values = np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)
    first = np.asarray(column.offsets.to_numpy())[rows] // 4
    boxes = np.zeros((len(rows), 4), np.float32)
    has_box = np.asarray(numbers) != NO_BOX
    boxes[has_box] = values[first[has_box] + np.asarray(numbers)[has_box]]
    return boxes
