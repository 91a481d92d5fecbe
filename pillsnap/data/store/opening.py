"""Opens a pixel store: finds what an earlier run kept, throws away what cannot be used, and lays out shared memory."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from pillsnap.atomicfile import remove_leftovers
from pillsnap.data.store.cache_lock import CacheLock, take_lock
from pillsnap.data.store.layout import ANY_STAMP, StoreLayout, StoreOptions, hash_order
from pillsnap.data.store.ledger import Ledger, ledger_bytes, map_ledger
from pillsnap.data.store.lmdb_tier import ABSENT, NO_PLACE, LmdbTier, prepare_lmdb
from pillsnap.data.store.room import GB, planned_bytes, require_room, say_full, warn_of_little_room
from pillsnap.data.store.shared import SharedMemory
from pillsnap.data.store.slab import MAX_CAPACITY, RECORD, plan_records
from pillsnap.data.store.slab_file import SlabFile
from pillsnap.data.store.slab_folder import NOWHERE, delete_others, file_stem, open_slab_files
from pillsnap.data.store.tiers import PixelStore, Tiers
from pillsnap.errors import PillError

logger = logging.getLogger("pillsnap")


@dataclass
class _Disk:
    """What the cache folder has for a store."""

    places: NDArray[np.int64]
    files: list[SlabFile] = field(default_factory=list)
    lmdb_path: Path | None = None
    lock: CacheLock | None = None
    is_full: bool = False


def open_store(
    layout: StoreLayout, options: StoreOptions, cache_dir: Path | None, *, name: str, promised: int = 0
) -> PixelStore:
    """Open the store of `layout`, with everything that an earlier run kept for it.

    Only one run may write to a name's files at a time; another one reads what is there, keeps the rest in its own RAM,
    and says so. So does a run that may not write to the folder.

    Args:
        layout: What it holds.
        options: Its tiers; the policy is not `auto` (`choose_store` turns that into another one).
        cache_dir: Where its files lie; None for RAM only.
        name: Which store of the folder this is: its purpose and a digest of the data root. Files of the same name and
            another identity are deleted.
        promised: Bytes of the disk that other stores of the run will still take.

    Returns:
        The store; it keeps nothing when no tier can be had, which is logged.

    Raises:
        ValueError: The layout is inconsistent, or the options name no tiers.
    """
    layout.check()
    if options.cache_policy == "auto" or (options.cache_policy == "mmap" and options.use_lmdb):
        raise ValueError(
            f"A store was asked for with cache_policy={options.cache_policy} and use_lmdb={options.use_lmdb}; wanted "
            "hotset, mmap (without LMDB) or none. Let choose_store decide for auto."
        )
    in_ram = hash_order(layout)[: options.hotset_entries] if options.cache_policy == "hotset" else layout.kept[:0]
    in_ram = in_ram[layout.capacity[in_ram] <= MAX_CAPACITY]
    disk = _open_disk(layout, options, cache_dir, name, in_ram)
    if len(in_ram) == 0 and not disk.files and disk.lmdb_path is None:
        return PixelStore(_no_tiers(layout), disk.lock)
    table_offset = -(-ledger_bytes(len(layout)) // RECORD.itemsize) * RECORD.itemsize
    records, num_bytes = plan_records(layout.keys[in_ram], layout.capacity[in_ram], table_offset)
    try:
        memory = SharedMemory(max(num_bytes, table_offset), table_offset + records.nbytes)
        ledger = map_ledger(memory, len(layout))
        memory.array(table_offset, (len(records),), RECORD)[:] = records
    except OSError as error:
        logger.warning("no pixel store: there is no shared memory (%s); every picture is decoded each time", error)
        return PixelStore(_no_tiers(layout), disk.lock)
    _fill(ledger, layout, in_ram, disk)
    tier = _open_lmdb(layout, options, disk, ledger, memory)
    tiers = Tiers(
        memory=memory,
        num_entries=len(layout),
        ram_table_offset=table_offset,
        num_ram_slots=len(in_ram),
        files=disk.files,
        lmdb=tier,
        folder=cache_dir if disk.lock is not None else None,
    )
    store = PixelStore(tiers, disk.lock)
    _say(store, name, layout, in_ram)
    if tiers.folder is not None and not disk.is_full:
        needed = planned_bytes(layout, options) - store.counts().disk_bytes
        with suppress(OSError):
            warn_of_little_room(name, tiers.folder, needed, promised)
    return store


def _no_tiers(layout: StoreLayout) -> Tiers:
    return Tiers(
        memory=None,
        num_entries=len(layout),
        ram_table_offset=0,
        num_ram_slots=0,
        files=[],
        lmdb=None,
        folder=None,
    )


def _fill(ledger: Ledger, layout: StoreLayout, in_ram: NDArray[np.int64], disk: _Disk) -> None:
    ledger.lmdb.keys[:] = layout.keys
    ledger.lmdb.states[:] = np.where(layout.capacity > 0, ABSENT, NO_PLACE)
    ledger.stamps[:] = ANY_STAMP if layout.stamps is None else layout.stamps
    ledger.ram_slots[:] = -1
    ledger.ram_slots[in_ram] = np.arange(len(in_ram))
    ledger.disk_places[:] = disk.places
    if disk.is_full:
        ledger.note_full_disk()


def _open_disk(
    layout: StoreLayout, options: StoreOptions, cache_dir: Path | None, name: str, in_ram: NDArray[np.int64]
) -> _Disk:
    disk = _Disk(np.full(len(layout), NOWHERE, np.int64))
    if cache_dir is None or (options.cache_policy == "none" and not options.use_lmdb):
        return disk
    disk.lock = _lock(cache_dir, name)
    is_writable = disk.lock is not None
    if is_writable:
        _tidy(cache_dir, name, layout.identity)
        disk.is_full = _is_full(cache_dir)
    if options.use_lmdb:
        disk.lmdb_path = cache_dir / f"{file_stem(name, layout.identity)}.lmdb" if is_writable else None
        return disk
    wanted = layout.kept if options.cache_policy == "mmap" else in_ram
    wanted = wanted[:0] if disk.is_full else wanted
    if not cache_dir.is_dir():
        return disk
    try:
        found = open_slab_files(cache_dir, name, layout, wanted, is_writable=is_writable)
    except PillError as error:
        logger.warning("the pixel store keeps nothing new in %s: %s", cache_dir, error)
        found = open_slab_files(cache_dir, name, layout, wanted[:0], is_writable=is_writable)
    disk.files, disk.places = found.files, found.places
    return disk


def _is_full(cache_dir: Path) -> bool:
    try:
        require_room(cache_dir)
    except OSError as error:
        say_full(error)
        return True
    return False


def _lock(cache_dir: Path, name: str) -> CacheLock | None:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = take_lock(cache_dir / f"{name}.lock")
    except OSError as error:
        logger.warning(
            "the pixel store keeps pictures in RAM only: %s cannot be written to (%s); set paths.cache_dir to a folder "
            "that can",
            cache_dir,
            error.strerror or error,
        )
        return None
    if lock is None:
        logger.warning(
            "another run writes the pixel store %s in %s; this one keeps what it decodes in its own RAM only",
            name,
            cache_dir,
        )
    return lock


def _tidy(cache_dir: Path, name: str, identity: str) -> None:
    """Delete what an older identity left, and what a process left that was killed while it made a file."""
    delete_others(cache_dir, name, identity)
    for path in cache_dir.glob(f".{name}.*.slab.*.tmp"):
        remove_leftovers(cache_dir, re.sub(r"^\.|\.\d+\.tmp$", "", path.name))


def _open_lmdb(
    layout: StoreLayout, options: StoreOptions, disk: _Disk, ledger: Ledger, memory: SharedMemory
) -> LmdbTier | None:
    if disk.lmdb_path is None:
        return None
    try:
        prepare_lmdb(disk.lmdb_path, ledger.lmdb)
    except (OSError, lmdb.Error) as error:
        logger.warning("the pixel store does without LMDB: %s cannot be used (%s)", disk.lmdb_path, error)
        return None
    return LmdbTier(disk.lmdb_path, options.lmdb_codec, memory.owner_pid)


def _say(store: PixelStore, name: str, layout: StoreLayout, in_ram: NDArray[np.int64]) -> None:
    counts = store.counts()
    logger.info(
        "pixel store %s: %d picture parts; RAM keeps up to %d of them (%.2f GB at most), the disk holds %d (%.2f GB)",
        name,
        len(layout.kept),
        len(in_ram),
        layout.capacity[in_ram].sum() / GB,
        counts.on_disk,
        counts.disk_bytes / GB,
    )
