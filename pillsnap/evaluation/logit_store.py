"""The logits of a whole split at two bytes each, in a file that vanishes with its last user.

60,000 pills of 5,000 classes take 600 MB here and 1.2 GB as float32. What was read is let go of block by block, so this
process holds a few MB of it; the system keeps the rest in its cache while it has memory to spare.

What is kept is each logit's distance to the largest of its row: there float16 is most exact where it matters, next to
the winner (steps of 1/1024 of the distance), and softmax does not change.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.errors import PillError

Half = NDArray[np.float16]
Floats = NDArray[np.float32]

LOWEST = float(np.finfo(np.float16).min)
"""The largest distance that is kept; a probability of exp(-65504) is 0 in every float."""
_ROWS_AT_ONCE = 2048  # 5,000 classes of float32: 40 MB


class LogitStore:
    """(N, C) logits of N pills, written once, in order, then read in blocks."""

    def __init__(self, num_classes: int) -> None:
        """Make an empty store in the folder for temporary files (`TMPDIR`).

        Args:
            num_classes: C.
        """
        self.num_classes = num_classes
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="pillsnap-logits-")  # noqa: SIM115 (lives as long as self)
        self.tops: Floats = np.empty(0, np.float32)
        """(N,) the largest logit of each row."""
        self._array: Half = np.empty((0, num_classes), np.float16)

    @classmethod
    def of(cls, logits_NC: NDArray[np.floating[Any]]) -> LogitStore:
        """Return a finished store of logits that are in memory."""
        store = cls(logits_NC.shape[1])
        tops = logits_NC.max(axis=1).astype(np.float32)
        store.append(np.maximum(logits_NC - tops[:, None], LOWEST).astype(np.float16))
        store.finish(tops)
        return store

    def append(self, distances_BC: Half) -> None:
        """Add rows.

        Args:
            distances_BC: Logits less the largest of their row: 0 or below.

        Raises:
            PillError: The file cannot be written, for example because the disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(distances_BC).data)
        except OSError as error:
            raise PillError(
                f"the logits of a split cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; wanted "
                f"{2 * self.num_classes:,} bytes a pill. Free space there, or name another folder with TMPDIR."
            ) from error

    def finish(self, tops_N: Floats) -> None:
        """End writing; from here on rows can be read.

        Args:
            tops_N: The largest logit of each row that was appended.
        """
        self.tops = tops_N
        with self._file:  # the map needs no descriptor
            self._file.flush()
            if len(self.tops):
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
                self._array = np.frombuffer(self._map, np.float16).reshape(len(self.tops), self.num_classes)

    def __del__(self) -> None:
        """Let go of the file where writing was cut short."""
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return len(self._array)

    @property
    def distances(self) -> Half:
        """(N, C) logits less the largest of their row, mapped from the file; for large ones use `blocks`."""
        return self._array

    def logits(self, start: int, stop: int) -> Floats:
        """Return the logits of rows `start` to `stop`, float32 (n, C)."""
        return self._array[start:stop].astype(np.float32) + self.tops[start:stop, None]

    def blocks(self, num_rows: int = _ROWS_AT_ONCE) -> Iterator[tuple[slice, Floats]]:
        """Go through the rows: their places, and float32 (n, C) logits less the largest of their row."""
        for rows in self._row_blocks(num_rows):
            yield rows, self._array[rows].astype(np.float32)

    def log_sums(self, temperature: float = 1.0) -> Floats:
        """Return log(sum(exp(distance / temperature))) of each row, (N,): minus the log of its largest probability."""
        found = np.empty(len(self), np.float32)
        for rows, distances in self.blocks():
            distances /= temperature
            found[rows] = np.log(np.exp(distances, out=distances).sum(axis=1, dtype=np.float64))
        return found

    def probabilities(self, classes_NK: NDArray[np.integer[Any]], temperature: float = 1.0) -> Floats:
        """Return softmax(logits / temperature) of some classes of each row.

        Args:
            classes_NK: Class numbers, for example the five most probable ones.
            temperature: Above 1 makes the model less sure.

        Returns:
            float32 (N, K).
        """
        found = np.empty(classes_NK.shape, np.float32)
        for rows in self._row_blocks():
            found[rows] = np.take_along_axis(self._array[rows], classes_NK[rows], axis=1)
        found /= temperature
        found -= self.log_sums(temperature)[:, None]
        return np.exp(found, out=found)

    def likelihoods(self, labels_N: NDArray[np.integer[Any]], temperature: float = 1.0) -> Floats:
        """Return the negative log likelihood of one class of each row at a temperature, (N,) nats."""
        found = np.empty(len(self), np.float32)
        for rows in self._row_blocks():
            found[rows] = np.take_along_axis(self._array[rows], labels_N[rows, None], axis=1)[:, 0]
        return self.log_sums(temperature) - found / np.float32(temperature)

    def columns(self, classes: Sequence[int] | NDArray[np.integer[Any]]) -> Floats:
        """Return the distances of some classes for all rows, float32 (N, K), in one pass over the file."""
        chosen = np.asarray(classes, np.int64)
        found = np.empty((len(self), len(chosen)), np.float32)
        for rows in self._row_blocks():
            found[rows] = self._array[rows][:, chosen]
        return found

    def _row_blocks(self, num_rows: int = _ROWS_AT_ONCE) -> Iterator[slice]:
        """Go through the rows, and let go of the memory of each block when the next is asked for."""
        row_bytes = 2 * self.num_classes
        for start in range(0, len(self), num_rows):
            stop = min(start + num_rows, len(self))
            yield slice(start, stop)
            # Whole pages only; the last one is shared with the next block, which lets go of it.
            first = start * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, stop * row_bytes - first)
