"""The original picture files of a table, read and decoded; keeps account of the time that takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.batches import LoadStats
from pillsnap.data.images import FileBytes, RgbImage, decode_bytes, decode_reduced_bytes, read_file
from pillsnap.data.items import NO_BOX, IntArray
from pillsnap.data.records import COMBO, Records
from pillsnap.data.store.layout import Stamp


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
        path = self.path(row)
        start = time.perf_counter()
        file = read_file(path)
        self.load.read_s += time.perf_counter() - start
        return Original(path, file)

    def path(self, row: int) -> Path:
        """Return the path of a row's file."""
        return self.root / self.records.image_path(row)

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

    def sizes_wh(self, rows: IntArray) -> NDArray[np.int64]:
        """Return the sizes of pictures in pixels, (N, 2)."""
        width, height = self.records.column("width")[rows], self.records.column("height")[rows]
        return np.column_stack([width, height]).astype(np.int64)

    def sample_ids(self, rows: IntArray) -> NDArray[np.uint64]:
        """Return the ids of pictures, (N,)."""
        return np.asarray(self.records.column("sample_id")[rows], np.uint64)
