"""What the processes of a run know of a store together: where entries lie, and what was done to them.

It lies in shared memory before the pixels of the hot set, so a worker process has no copy of its own: about 50 bytes an
entry, once for the whole run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.layout import ANY_STAMP
from pillsnap.data.store.lmdb_tier import LmdbEntries
from pillsnap.data.store.shared import FIRST_OFFSET, SharedMemory

COUNTS = (
    "hits_ram",
    "hits_disk",
    "misses",
    "written",
    "damaged",
    "stale",
    "left_out",
    "psnr_count",
    "psnr_sum",
    "psnr_min",
)
COUNT_NUMBERS = {name: number for number, name in enumerate(COUNTS)}
COUNT_ROWS = 4096  # a process counts in the row of its id, so that no two write to one number
NO_PSNR = 0.0

_DISK_IS_FULL = 0


@dataclass
class Ledger:
    """Arrays over shared memory; what one process writes, the others see."""

    counts: NDArray[np.float64]
    """(`COUNT_ROWS`, counts)."""
    flags: NDArray[np.uint8]
    ram_slots: NDArray[np.int32]
    """(N,) slot of the hot set, -1 for none."""
    disk_places: NDArray[np.int64]
    """(N,) as `SlabFiles.places`."""
    stamps: NDArray[np.int64]
    """(N, 2) the stamp that what is kept must have; `ANY_STAMP` where any will do."""
    lmdb: LmdbEntries
    """Keys included."""

    @property
    def is_disk_full(self) -> bool:
        """Whether the persistent tier takes no more."""
        return bool(self.flags[_DISK_IS_FULL])

    def note_full_disk(self) -> bool:
        """Stop writing to the persistent tier in all processes; returns whether this process is the first to."""
        was_full = self.is_disk_full
        self.flags[_DISK_IS_FULL] = 1
        return not was_full

    def count(self, name: str, amount: float = 1) -> None:
        """Add to one of `COUNTS`."""
        self.counts[os.getpid() % COUNT_ROWS, COUNT_NUMBERS[name]] += amount

    def total(self, name: str) -> int:
        """Return one of `COUNTS` over all processes."""
        return int(self.counts[:, COUNT_NUMBERS[name]].sum())

    def note_psnr(self, decibel: float) -> None:
        """Take the PSNR of one entry into the account."""
        row = self.counts[os.getpid() % COUNT_ROWS]
        least = row[COUNT_NUMBERS["psnr_min"]]
        row[COUNT_NUMBERS["psnr_min"]] = decibel if least == NO_PSNR else min(least, decibel)
        row[COUNT_NUMBERS["psnr_sum"]] += decibel
        row[COUNT_NUMBERS["psnr_count"]] += 1

    def psnr(self) -> tuple[float, float] | None:
        """Return the mean and the least PSNR noted by any process; None without any."""
        count = self.total("psnr_count")
        if count == 0:
            return None
        least = self.counts[:, COUNT_NUMBERS["psnr_min"]]
        return float(self.counts[:, COUNT_NUMBERS["psnr_sum"]].sum() / count), float(least[least != NO_PSNR].min())

    def is_current(self, entry: int, stamp: tuple[int, int]) -> bool:
        """Tell whether what was kept with `stamp` is of the original as it is now."""
        size, mtime_ns = self.stamps[entry].tolist()
        return size == ANY_STAMP or (size, mtime_ns) == stamp


def _places(num_entries: int) -> list[tuple[str, tuple[int, ...], type]]:
    return [
        ("counts", (COUNT_ROWS, len(COUNTS)), np.float64),
        ("disk_places", (num_entries,), np.int64),
        ("stamps", (num_entries, 2), np.int64),
        ("keys", (num_entries,), np.uint64),
        ("ram_slots", (num_entries,), np.int32),
        ("states", (num_entries,), np.uint8),
        ("next_numbers", (num_entries,), np.uint8),
        ("flags", (8,), np.uint8),
    ]


def ledger_bytes(num_entries: int) -> int:
    """Return what a ledger takes of shared memory, from its beginning."""
    return FIRST_OFFSET + sum(_size(shape, dtype) for _, shape, dtype in _places(num_entries))


def map_ledger(memory: SharedMemory, num_entries: int) -> Ledger:
    """Return the ledger at the beginning of `memory`.

    Raises:
        OSError: This process cannot open the memory.
    """
    arrays: dict[str, NDArray[Any]] = {}
    offset = FIRST_OFFSET
    for name, shape, dtype in _places(num_entries):
        arrays[name] = memory.array(offset, shape, dtype)
        offset += _size(shape, dtype)
    known = LmdbEntries(arrays.pop("keys"), arrays.pop("states"), arrays.pop("next_numbers"))
    return Ledger(**arrays, lmdb=known)


def _size(shape: tuple[int, ...], dtype: type) -> int:
    return -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 8) * 8
