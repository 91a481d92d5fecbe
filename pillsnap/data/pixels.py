"""Where the pixels of a sample come from: the store, or the original file, whose parts are then put into the store.

Three kinds of parts are kept, each a pure function of the original file, so that the pixels are the same whichever tier
serves them: the levels that random views are cut from (`training_parts.py`), the fixed views that validation judges,
and the detector's pictures at input size.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.data.batches import LoadStats
from pillsnap.data.images import RgbImage
from pillsnap.data.items import ClassificationItems, IntArray
from pillsnap.data.originals import Original, Originals
from pillsnap.data.preprocess import RESIZER, ClassifierInput, box_view, frame_view, resized
from pillsnap.data.store.layout import Stamp, StoreLayout
from pillsnap.data.store.tiers import PixelStore

RECIPE = 2  # raised whenever the same file would give other pixels
CHANNELS = 3
FRAME_PART = 0  # of a picture; the part of box n is n + 1


class Parts(ABC):
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

    def keep(self, entry: int, pixels: RgbImage, stamp: Stamp) -> RgbImage:
        """Put an entry's pixels into the store, where it has a place for them; return what it will give back."""
        return pixels if self.store is None else self.store.write(entry, pixels, stamp)

    @abstractmethod
    def layout(self) -> StoreLayout:
        """Return the places that the parts need in a store."""

    @abstractmethod
    def rows_of_entries(self) -> NDArray[np.int64]:
        """Return the row of the picture that each entry is a part of, (N,)."""

    @abstractmethod
    def make(self, entry: int) -> tuple[RgbImage, Stamp]:
        """Return an entry's pixels, made from the original and kept if the store wants them, and that file's stamp.

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """


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
        sample_ids = self.originals.sample_ids(rows)
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
        return self.make(position)[0] if found is None else found

    def rows_of_entries(self) -> NDArray[np.int64]:
        """Return the row of the picture that each entry is a part of, (N,)."""
        return np.asarray(self.items.rows, np.int64)

    def make(self, entry: int) -> tuple[RgbImage, Stamp]:
        """Return the view of an item, made from the original, and the file's stamp."""
        row, number = int(self.items.rows[entry]), int(self.items.box_numbers[entry])
        box = self.originals.box_xyxy(row, number)
        is_whole = box is None or (self.view == "frame" and not self.originals.is_combo(row))
        with self.making(row) as original:
            if box is None or is_whole:
                pixels = frame_view(original.full(), self.spec)
            else:
                pixels = box_view(original.full(), box, self.spec, self.crop_padding)
            return self.keep(entry, pixels, original.stamp), original.stamp


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
        fitted = self._fitted_wh(self.originals.sizes_wh(self.rows))
        sample_ids = self.originals.sample_ids(self.rows)
        keys = part_keys(sample_ids, np.full(len(self.rows), FRAME_PART))
        what = ["photographs", self.size_px, self.is_training]
        return StoreLayout(keys, fitted.prod(1) * CHANNELS, identity_of(self.originals.root, *what))

    def pixels(self, position: int) -> RgbImage:
        """Return a photograph whose longer side is the detector's input size, uint8 (h, w, 3).

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """
        found = self.stored(position)
        return self.make(position)[0] if found is None else found

    def rows_of_entries(self) -> NDArray[np.int64]:
        """Return the row of the picture that each entry is, (N,)."""
        return np.asarray(self.rows, np.int64)

    def make(self, entry: int) -> tuple[RgbImage, Stamp]:
        """Return a photograph at input size, made from the original, and the file's stamp."""
        row = int(self.rows[entry])
        # Of the table's size: the proportions of a reduced picture are a little off.
        width, height = self._fitted_wh(np.array([self.originals.size_wh(row)]))[0].tolist()
        with self.making(row) as original:
            image = original.reduced(self.size_px) if self.is_training else original.full()
            pixels = resized(image, (width, height))
            return self.keep(entry, pixels, original.stamp), original.stamp

    def _fitted_wh(self, sizes_wh: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of photographs fitted to the input as `resize_longer_side` does, (N, 2)."""
        scale = self.size_px / np.maximum(sizes_wh.max(1), 1)
        return np.asarray(np.maximum(np.rint(sizes_wh * scale[:, None]), 1), np.int64)


def part_keys(sample_ids: NDArray[np.uint64], parts: IntArray) -> NDArray[np.uint64]:
    """Return a key for each part of a picture, (N,): the sample's id and the part, mixed (SplitMix64's finaliser)."""
    with np.errstate(over="ignore"):
        mixed = sample_ids + (parts.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def identity_of(root: Path, *what: object) -> str:
    """Return a digest of everything but the files that decides what parts look like."""
    text = "|".join(map(str, (RECIPE, root.resolve(), RESIZER, cv2.__version__, *what)))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
