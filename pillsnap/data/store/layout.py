"""What a pixel store holds: its entries, the room each of them needs, and what decides their pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.images import RgbImage

CHANNELS = 3
ANY_STAMP = -1
STAT_THREADS = 16  # os.stat waits for the disk without the interpreter's lock
STAT_CHUNK = 4096

CachePolicy = Literal["hotset", "mmap", "none", "auto"]
LmdbCodec = Literal["lossless", "jpeg"]


class Stamp(NamedTuple):
    """Size (bytes) and time of change (ns) of an original file, taken before it was decoded."""

    size: int
    mtime_ns: int


class Kept(NamedTuple):
    """An entry as a tier holds it."""

    pixels: RgbImage
    """uint8 (h, w, 3)."""
    stamp: Stamp


class DamagedEntryError(Exception):
    """An entry is there but not as it was written; whoever reads it takes it for absent."""


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """The entries of a store; an entry is one part of a picture, uint8 (h, w, 3)."""

    keys: NDArray[np.uint64]
    """(N,) unique, the same in every run: made of the sample's id and the part."""
    capacity: NDArray[np.int64]
    """(N,) most bytes the pixels of an entry take; 0: it is never kept."""
    identity: str
    """Digest of everything but the files that decides pixels; a store of another identity is another store."""
    stamps: NDArray[np.int64] | None = None
    """(N, 2) size and mtime_ns of each entry's original as it is now (`stat_stamps`); what was kept of another file is
    not served. None: not compared."""

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.keys)

    @property
    def kept(self) -> NDArray[np.int64]:
        """The entries that have a place, ascending."""
        return np.flatnonzero(self.capacity > 0)

    def check(self) -> None:
        """Look whether the arrays belong together.

        Raises:
            ValueError: Lengths differ, or two entries that are kept have one key.
        """
        if len(self.capacity) != len(self.keys) or (self.stamps is not None and self.stamps.shape != (len(self), 2)):
            shape = None if self.stamps is None else self.stamps.shape
            raise ValueError(
                f"A layout has {len(self.keys)} keys, {len(self.capacity)} capacities and stamps of shape {shape}; "
                "wanted as many of each, and two numbers a stamp."
            )
        keys = np.sort(self.keys[self.kept])  # np.unique takes ten times as long
        twice = int((keys[1:] == keys[:-1]).sum())
        if twice:
            raise ValueError(f"{twice} keys of a layout occur twice; wanted one for each entry that is kept.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """Which tiers a store has."""

    cache_policy: CachePolicy = "hotset"
    hotset_entries: int = 0
    """Entries kept in RAM, counted in the order of `hash_order`; used by policy `hotset`."""
    use_lmdb: bool = False
    lmdb_codec: LmdbCodec = "lossless"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreCounts:
    """What a store holds now, and what it did since it was opened, over all processes."""

    entries: int = 0
    """Entries that have a place in some tier."""
    in_ram: int = 0
    on_disk: int = 0
    ram_bytes: int = 0
    disk_bytes: int = 0
    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0
    written: int = 0
    damaged: int = 0
    """Entries found damaged; they were taken for absent."""
    stale: int = 0
    """Entries whose original has changed since; likewise."""
    left_out: int = 0
    """Writes of entries that have a place but found no room: too large for it, or the disk was full."""
    is_disk_full: bool = False
    """Whether writing to the cache folder has ended early; `True` for any reason that ends it."""
    jpeg_psnr_mean_db: float | None = None
    """Over the first entries that were written lossily; None without any."""
    jpeg_psnr_min_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def hash_order(layout: StoreLayout) -> NDArray[np.int64]:
    """Return the entries that have a place, in an order that depends on keys alone (SplitMix64's finaliser).

    The first K of it are an even sample of any data set, and mostly the same ones when the data set grows.
    """
    kept = layout.kept
    with np.errstate(over="ignore"):
        mixed = layout.keys[kept] + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.asarray(kept[np.argsort(mixed, kind="stable")], np.int64)


def stat_stamps(path_of: Callable[[int], str], num_entries: int) -> NDArray[np.int64]:
    """Return `StoreLayout.stamps` by asking the file system, several files at a time.

    Args:
        path_of: Path of an entry's original.
        num_entries: Entries are numbered from 0.

    Returns:
        int64 (N, 2): size and mtime_ns; zeros for a file that is not there.
    """
    stamps = np.zeros((num_entries, 2), np.int64)

    def ask(first: int) -> None:
        for entry in range(first, min(first + STAT_CHUNK, num_entries)):
            try:
                status = os.stat(path_of(entry))  # noqa: PTH116 - a Path for each of millions of files takes longer
            except OSError:
                continue
            stamps[entry] = status.st_size, status.st_mtime_ns

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        list(pool.map(ask, range(0, num_entries, STAT_CHUNK)))
    return stamps
