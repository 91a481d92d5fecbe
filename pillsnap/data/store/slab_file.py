"""A file of the cache folder that holds records and pixels, sparse: it takes as much of the disk as is written.

Its header names what it is for; a file whose header is damaged, or that is for something else, is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path
from pillsnap.data.store.slab import Slab, place_checks, plan_records
from pillsnap.fastzlib import crc32

logger = logging.getLogger("pillsnap")

MAGIC = b"PILLSLAB"
FORMAT = 1  # raised whenever the bytes of a slab mean something else
HEADER = struct.Struct("<8sI32s16sQQI")  # magic, format, identity, file id, slots, file size, CRC-32 of what precedes
TABLE_OFFSET = 4096


class Header(NamedTuple):
    """What a slab file says of itself."""

    identity: bytes
    file_id: bytes
    """Random; another file under the same name has another one."""
    num_slots: int
    file_size: int


def digest_of(identity: str) -> bytes:
    """Return an identity as headers hold it, 32 bytes."""
    return hashlib.sha256(identity.encode()).digest()


def create_slab_file(path: Path, identity: str, keys: NDArray[np.uint64], capacity: NDArray[np.int64]) -> None:
    """Make a slab file with a place for each key; its records take up space at once, its pixels as they come.

    Raises:
        PillError: It cannot be written.
    """
    records, file_size = plan_records(keys, capacity, TABLE_OFFSET)
    with atomic_path(path) as temporary, temporary.open("wb") as sink:
        sink.write(pack_header(Header(digest_of(identity), os.urandom(16), len(keys), file_size)))
        sink.seek(TABLE_OFFSET)
        sink.write(records.tobytes())
        sink.truncate(file_size)


def pack_header(header: Header) -> bytes:
    """Return the bytes of a header."""
    fields = (MAGIC, FORMAT, *header)
    unsealed = HEADER.pack(*fields, 0)[:-4]
    return HEADER.pack(*fields, crc32(unsealed))


def read_header(descriptor: int) -> Header | None:
    """Return the header of a slab file; None when there is no whole one of this format.

    Raises:
        OSError: It cannot be read.
    """
    data = os.pread(descriptor, HEADER.size, 0)
    if len(data) < HEADER.size:
        return None
    magic, version, *fields, crc = HEADER.unpack(data)
    if magic != MAGIC or version != FORMAT or crc != crc32(data[:-4]):
        return None
    return Header(*fields)


class SlabFile:
    """A slab file that any process opens for itself when it first needs it; pickling sends its path."""

    def __init__(self, path: Path, header: Header, *, is_writable: bool) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        self.header = header
        self.is_writable = is_writable
        self._slab: Slab | None = None

    @classmethod
    def look_at(cls, path: Path, identity: str, *, is_writable: bool) -> SlabFile | None:
        """Return the slab file at `path`; None when it is damaged or for something else.

        A file that was cut off gets its length back: what was lost is found wherever it is read.

        Raises:
            OSError: It cannot be read.
        """
        descriptor = os.open(path, os.O_RDWR if is_writable else os.O_RDONLY)
        try:
            header = read_header(descriptor)
            if header is None or header.identity != digest_of(identity):
                return None
            length = os.fstat(descriptor).st_size
            if length != header.file_size:
                logger.warning("%s has %d bytes of %d; what is lost is decoded again", path, length, header.file_size)
                if is_writable:
                    os.ftruncate(descriptor, header.file_size)
        finally:
            os.close(descriptor)
        return cls(path, header, is_writable=is_writable)

    def slab(self) -> Slab:
        """Return the open file.

        Raises:
            OSError: It cannot be opened, or another one lies there now.
        """
        if self._slab is None:
            descriptor = os.open(self.path, os.O_RDWR if self.is_writable else os.O_RDONLY)
            if read_header(descriptor) != self.header:
                os.close(descriptor)
                raise OSError(f"{self.path} is another file by now")
            self._slab = Slab(descriptor, TABLE_OFFSET, self.header.num_slots)
        return self._slab

    def whole_places(self) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
        """Return all records, and which of them have a place that can be relied on.

        Raises:
            OSError: They cannot be read.
            DamagedEntryError: The file ends inside them.
        """
        records = self.slab().records()
        return records, np.asarray(records["place_check"] == place_checks(records))

    def close(self) -> None:
        """Close the file in this process; it is opened again when needed."""
        if self._slab is not None:
            os.close(self._slab.descriptor)
            self._slab = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open."""
        return {**self.__dict__, "_slab": None}

    def __del__(self) -> None:
        """Close the file."""
        if getattr(self, "_slab", None) is not None:
            self.close()
