"""How much of its disk a store may fill: checkpoints usually lie on the same one, and a run must not lose those."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.layout import LmdbCodec, StoreLayout, StoreOptions, hash_order

logger = logging.getLogger("pillsnap")

GB = 1e9
RESERVE_BYTES = 10_000_000_000
RESERVE_SHARE = 0.05  # of a disk so small that this is less
CHECK_BYTES = 16_000_000  # that a process writes to a store between two looks at the room
PACKED_SHARE: dict[LmdbCodec, float] = {"lossless": 0.4, "jpeg": 0.15}  # of the pixels, about


def room_in(folder: Path) -> int:
    """Return the bytes that may still be written to a folder's disk; below 0 when the reserve is touched.

    Raises:
        OSError: There is no such folder.
    """
    disk = os.statvfs(folder)
    reserve = min(RESERVE_BYTES, int(RESERVE_SHARE * disk.f_blocks * disk.f_frsize))
    return disk.f_bavail * disk.f_frsize - reserve


def require_room(folder: Path) -> None:
    """Look whether the reserve is untouched.

    Raises:
        OSError: It is touched, or there is no such folder.
    """
    if room_in(folder) < 0:
        raise OSError(errno.ENOSPC, "what is left of the disk is for checkpoints", str(folder))


def say_full(error: Exception) -> None:
    """Warn that the cache folder takes no more."""
    logger.warning(
        "the pixel store takes no more pictures: %s. The run goes on and decodes the others each time; make room in "
        "paths.cache_dir and start again to have them kept.",
        error,
    )


def planned_bytes(layout: StoreLayout, options: StoreOptions) -> int:
    """Return what a store takes of the disk once it is full; for LMDB an estimate."""
    places: NDArray[np.int64] = layout.kept[:0]
    if options.use_lmdb or options.cache_policy == "mmap":
        places = layout.kept
    elif options.cache_policy == "hotset":
        places = hash_order(layout)[: options.hotset_entries]
    share = PACKED_SHARE[options.lmdb_codec] if options.use_lmdb else 1.0
    return int(share * int(layout.capacity[places].sum()))


def warn_of_little_room(name: str, folder: Path, needed: int, promised: int) -> None:
    """Warn when a store will not fit its disk.

    Args:
        name: The store's.
        folder: Where it lies; it can be looked at.
        needed: Bytes it still lacks.
        promised: Bytes that other stores of the run will still take.
    """
    room = max(room_in(folder) - promised, 0)
    if needed > room:
        logger.warning(
            "the pixel store %s needs up to %.1f GB more in %s, which has %.1f GB for it; pictures beyond that are "
            "decoded each time. Make room, or set paths.cache_dir to a folder of a larger disk.",
            name,
            needed / GB,
            folder,
            room / GB,
        )
