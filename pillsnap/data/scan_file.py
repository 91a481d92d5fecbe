"""Arrow tables in one memory-mapped file that notices every flipped byte.

    table, table, ...   each a whole Arrow stream, so that any Arrow program reads the first one as it is
    directory           JSON: where each table lies, and whatever text the writer wants to keep with them
    foot                length of the directory, CRC-32 of it and of all bytes before it, a mark

The checksum is compared when the file is opened: 0.1 s for the 550 MB of 2.6 million pictures. Processes that are
handed the open file map it again without that; they share the pages.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pillsnap.atomicfile import atomic_path

LENGTH = struct.Struct("<Q")
FOOT = struct.Struct("<QI8s")
MARK = b"PILLIDX2"
ALIGNMENT = 64  # bytes; what Arrow's own files use
CHUNK_BYTES = 1 << 24


class TableFile:
    """A memory-mapped file of tables.

    Handed to another process (pickled), it is opened there again by its path. Where another file has taken the path
    since, the one mapped here is opened through `/proc`, so that row numbers mean the same in every process.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        """Map `path`.

        Args:
            path: A file that `write_tables` wrote.
            verify: Compare the checksum.

        Raises:
            OSError: It cannot be opened.
            ValueError: It is not such a file, or a byte of it has changed.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_dev, status.st_ino)
        if status.st_size < FOOT.size:
            raise ValueError(f"it has only {status.st_size} bytes")
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        self._directory = _read_directory(self._map, verify=verify)

    def __del__(self) -> None:
        """Close the descriptor; tables that were taken from the map keep it."""
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path instead of the content."""
        return _reopen, (self.path, self._identity, os.getpid(), self._descriptor)

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given to `write_tables` beside the tables."""
        metadata: dict[str, Any] = self._directory["metadata"]
        return metadata

    def table(self, name: str) -> pa.Table:
        """Return a table whose columns lie in the map.

        Raises:
            ValueError: It is not in the file.
        """
        place = self._directory["tables"].get(name)
        if place is None:
            raise ValueError(f"it holds no table {name}")
        stream = pa.py_buffer(self._map).slice(place[0], place[1])
        return pa.ipc.open_stream(pa.BufferReader(stream)).read_all()


def write_tables(path: Path, tables: Mapping[str, pa.Table], metadata: Mapping[str, Any]) -> None:
    """Write tables and plain data that JSON can hold, atomically.

    Raises:
        PillError: The file cannot be written (disk full, no permission, no folder).
    """
    places = {}
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        for name, table in tables.items():
            start = file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
            with pa.ipc.new_stream(file, table.schema) as writer:
                # One batch: a table of several would be copied when its columns are joined after reading.
                writer.write_table(table.combine_chunks(), max_chunksize=max(table.num_rows, 1))
            places[name] = (start, file.tell() - start)
        directory = json.dumps({"tables": places, "metadata": dict(metadata)}, ensure_ascii=False).encode()
        file.write(directory)
        file.flush()
        file.seek(0)
        checksum = zlib.crc32(LENGTH.pack(len(directory)))
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
        file.write(FOOT.pack(len(directory), checksum, MARK))


def _read_directory(content: mmap.mmap, *, verify: bool) -> dict[str, Any]:
    length, checksum, mark = FOOT.unpack_from(content, len(content) - FOOT.size)
    if mark != MARK:
        raise ValueError("it is cut off or not of this program")
    with memoryview(content) as view, view[: -FOOT.size] as body:
        if verify and zlib.crc32(body, zlib.crc32(LENGTH.pack(length))) != checksum:
            raise ValueError("its checksum differs: a byte has changed since it was written")
        with body[len(body) - length :] as directory:
            found: dict[str, Any] = json.loads(bytes(directory))
            return found


def _reopen(path: Path, identity: tuple[int, int], pid: int, descriptor: int) -> TableFile:
    for place in (path, Path(f"/proc/{pid}/fd/{descriptor}")):
        with contextlib.suppress(OSError):
            status = place.stat()
            if (status.st_dev, status.st_ino) == identity:
                return TableFile(place, verify=False)
    raise FileNotFoundError(f"{path} was replaced or deleted, and process {pid}, which had it open, has ended")
