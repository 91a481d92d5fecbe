"""Entries packed in an LMDB environment of the cache folder: a fraction of the bytes for a little time at each read.

A key is the entry's (8 bytes) and a number (1): an entry that is written again, because it was damaged or its original
changed, gets the next number. Nothing is ever replaced, so LMDB never follows what a damaged entry says of itself.

Entries are committed a few at a time and synced, so neither a kill nor a power cut harms the tree; what was not
committed is decoded again. An environment must not pass through a fork, and closing it in the fork would end the
parent's lock (LMDB 0.9), so the process that opened the store, from which workers are forked, has it open only while
it uses it.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.codec import decode, encode
from pillsnap.data.store.layout import DamagedEntryError, Kept, LmdbCodec, Stamp
from pillsnap.data.store.lmdb_check import check_lmdb_file
from pillsnap.fastzlib import crc32

logger = logging.getLogger("pillsnap")

VALUE_HEADER = struct.Struct("<QIHHqqB")  # key, CRC-32 of the packed pixels, height, width, size, mtime_ns, codec
KEY = struct.Struct(">QB")
CODECS: dict[int, LmdbCodec] = {1: "lossless", 2: "jpeg"}
CODEC_NUMBERS = {name: number for number, name in CODECS.items()}
MAX_NUMBER = 254
MOST_VALUE_BYTES = 2**31
FIRST_MAP_BYTES = 1 << 28
BATCH_ENTRIES, BATCH_BYTES, BATCH_SECONDS = 16, 8_000_000, 5.0
MAX_READERS = 512
DATA_FILE, LOCK_FILE = "data.mdb", "lock.mdb"
LOCK_FILE_BYTES = 1 << 16  # 64 for each of `MAX_READERS`, and some more

ABSENT, PRESENT, NO_PLACE = 0, 1, 2


@dataclass
class LmdbEntries:
    """What is known of the entries, in memory that all processes share."""

    keys: NDArray[np.uint64]
    """(N,)"""
    states: NDArray[np.uint8]
    """(N,) `ABSENT`, `PRESENT` or `NO_PLACE`."""
    next_numbers: NDArray[np.uint8]
    """(N,) how often an entry was written."""


@dataclass
class _Pending:
    entries: list[int] = field(default_factory=list)
    items: dict[bytes, bytes] = field(default_factory=dict)
    num_bytes: int = 0
    since: float = 0.0


class LmdbTier:
    """The entries of one environment; pickling sends its path."""

    def __init__(self, path: Path, codec: LmdbCodec, owner_pid: int) -> None:
        """Use the environment at `path` (`prepare_lmdb`); nothing is opened yet."""
        self.path = path
        self.codec = codec
        self._owner_pid = owner_pid
        self._process = 0
        self._environment: lmdb.Environment | None = None
        self._pending = _Pending()
        self._at_exit: Any = None

    def read(self, entry: int, known: LmdbEntries) -> Kept | None:
        """Return an entry; None when it is absent.

        Raises:
            DamagedEntryError: It is not what was written.
            lmdb.Error: The environment cannot be read.
        """
        if known.states[entry] != PRESENT:
            return None
        key, number = int(known.keys[entry]), int(known.next_numbers[entry]) - 1
        full_key = KEY.pack(key, number)
        self._begin_process()
        if full_key in self._pending.items:
            return _unpack(key, self._pending.items[full_key])
        with self._open() as environment, _begin(environment, is_write=False) as transaction:
            value = transaction.get(full_key)
            if value is None:  # a process was killed before it committed it
                known.states[entry] = ABSENT
                return None
            return _unpack(key, value)  # inside the transaction, which the packed bytes belong to

    def pack(self, entry: int, kept: Kept, known: LmdbEntries) -> bytes:
        """Return an entry as it will be stored."""
        packed = encode(kept.pixels, self.codec)
        height, width = kept.pixels.shape[:2]
        codec = CODEC_NUMBERS[self.codec]
        return VALUE_HEADER.pack(int(known.keys[entry]), crc32(packed), height, width, *kept.stamp, codec) + packed

    def unpack(self, entry: int, value: bytes, known: LmdbEntries) -> Kept:
        """Return what `pack` packed, as it will be read."""
        return _unpack(int(known.keys[entry]), value)

    def write(self, entry: int, value: bytes, known: LmdbEntries) -> bool:
        """Put a packed entry into the next commit.

        Returns:
            False when it has no place, or was written too often.

        Raises:
            lmdb.Error: As `flush`.
        """
        number = int(known.next_numbers[entry])
        if number > MAX_NUMBER or known.states[entry] == NO_PLACE:
            known.states[entry] = NO_PLACE
            return False
        self._begin_process()
        pending = self._pending
        if not pending.items:
            pending.since = time.monotonic()
            self._at_exit = self._at_exit or Finalize(None, self._flush_quietly, exitpriority=10)
        pending.entries.append(entry)
        pending.items[KEY.pack(int(known.keys[entry]), number)] = value
        pending.num_bytes += len(value)
        known.next_numbers[entry] = number + 1
        known.states[entry] = PRESENT
        is_old = time.monotonic() - pending.since > BATCH_SECONDS
        if len(pending.items) >= BATCH_ENTRIES or pending.num_bytes >= BATCH_BYTES or is_old:
            self.flush(known)
        return True

    def flush(self, known: LmdbEntries) -> None:
        """Commit what this process has waiting.

        Raises:
            lmdb.Error: It cannot be written (disk full); the entries are absent again.
        """
        self._begin_process()
        pending, self._pending = self._pending, _Pending()
        try:
            self._commit(pending.items)
        except lmdb.Error:
            known.states[pending.entries] = ABSENT
            raise

    def close(self) -> None:
        """Commit what is waiting, as far as that works, and close the environment in this process."""
        self._begin_process()
        self._flush_quietly()
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _flush_quietly(self) -> None:
        items, self._pending = self._pending.items, _Pending()
        if self._at_exit is not None:
            self._at_exit.cancel()
            self._at_exit = None
        with suppress(lmdb.Error):  # what is lost is decoded again
            self._commit(items)

    def _commit(self, items: dict[bytes, bytes]) -> None:
        if not items:
            return
        with self._open() as environment:
            while True:
                try:
                    with _begin(environment, is_write=True) as transaction:
                        for key, value in items.items():
                            transaction.put(key, value, overwrite=False)
                    return
                except lmdb.MapFullError:
                    environment.set_mapsize(2 * environment.info()["map_size"] + sum(map(len, items.values())))

    def _begin_process(self) -> None:
        """Forget what a fork inherited: its parent commits what waits, and the environment is the parent's."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pending, self._environment, self._at_exit = _Pending(), None, None

    @contextmanager
    def _open(self) -> Iterator[lmdb.Environment]:
        if self._process != self._owner_pid:
            self._environment = self._environment or _environment(self.path)
            yield self._environment
            return
        environment = _environment(self.path)
        try:
            yield environment
        finally:
            environment.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open or waiting."""
        return {**self.__dict__, "_process": 0, "_environment": None, "_pending": _Pending(), "_at_exit": None}


def prepare_lmdb(path: Path, known: LmdbEntries) -> None:
    """Make the environment at `path` usable, empty where there is none or a damaged one, and learn what it holds.

    Args:
        path: A folder; no other process may have it open.
        known: Its keys are read, states and numbers set.

    Raises:
        OSError: It cannot be made.
        lmdb.Error: Likewise.
    """
    data = path / DATA_FILE
    if data.exists() and data.stat().st_size == 0:
        data.unlink()  # of a process that was killed while it made the environment
    keys: list[bytes] = []
    if data.exists():
        try:
            keys = check_lmdb_file(data, KEY.size, MOST_VALUE_BYTES)
        except DamagedEntryError as error:
            logger.warning("the pixel store %s is damaged (%s); its pictures are decoded again", path, error)
            shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    _allocate_lock_file(path / LOCK_FILE)
    _environment(path).close()  # raises where it cannot be used
    if keys:
        _note_present(keys, known)


def lmdb_bytes(path: Path) -> int:
    """Return what the environment at `path` takes on the disk."""
    with suppress(OSError):
        return (path / DATA_FILE).stat().st_blocks * 512
    return 0


def _allocate_lock_file(path: Path) -> None:
    """Take disk space for the file that LMDB writes to through a map: on a full disk that would be a signal."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, LOCK_FILE_BYTES)
    finally:
        os.close(descriptor)


def _note_present(keys: list[bytes], known: LmdbEntries) -> None:
    packed = np.frombuffer(b"".join(keys), np.dtype([("key", ">u8"), ("number", "u1")]))
    stored = packed["key"].astype(np.uint64)
    is_last = np.append(stored[1:] != stored[:-1], True)  # they are in order
    stored, numbers = stored[is_last], packed["number"][is_last]
    order = np.argsort(known.keys)
    positions = np.minimum(np.searchsorted(known.keys, stored, sorter=order), len(order) - 1)
    entries = order[positions]
    is_known = known.keys[entries] == stored
    entries, numbers = entries[is_known], numbers[is_known]
    known.next_numbers[entries] = numbers + 1
    known.states[entries] = np.where(known.states[entries] == NO_PLACE, NO_PLACE, PRESENT)


def _environment(path: Path) -> lmdb.Environment:
    # The map grows as needed: a large one from the start would count against a limit on the address space.
    map_bytes = max(FIRST_MAP_BYTES, 2 * ((path / DATA_FILE).stat().st_size if (path / DATA_FILE).exists() else 0))
    return lmdb.open(str(path), map_size=map_bytes, metasync=False, readahead=False, max_readers=MAX_READERS)


def _begin(environment: lmdb.Environment, *, is_write: bool) -> lmdb.Transaction[memoryview[int]]:
    """Begin a transaction whose values are views of the map."""
    try:
        return environment.begin(write=is_write, buffers=True)
    except lmdb.MapResizedError:  # another process needed more room
        environment.set_mapsize(0)
        return environment.begin(write=is_write, buffers=True)


def _unpack(key: int, value: bytes | memoryview) -> Kept:
    if len(value) < VALUE_HEADER.size:
        raise DamagedEntryError("a value is too short")
    found_key, crc, height, width, size, mtime_ns, codec = VALUE_HEADER.unpack_from(value)
    packed = memoryview(value)[VALUE_HEADER.size :]
    if found_key != key or codec not in CODECS or crc != crc32(packed):
        raise DamagedEntryError("a value is not what was written")
    return Kept(decode(packed, (height, width), CODECS[codec]), Stamp(size, mtime_ns))
