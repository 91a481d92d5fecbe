"""Anonymous shared memory that other processes open through its owner: `/proc/<pid>/fd/<number>`.

It has no name that a killed run could leave behind, and takes as much memory as is written. A fork inherits it; a
spawned process opens it when it first needs it.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

TOKEN_BYTES = 16
FIRST_OFFSET = 64  # of what the owner keeps in it; the token comes first


class SharedMemory:
    """A block of shared memory; pickling sends where it is found."""

    def __init__(self, num_bytes: int, mapped_bytes: int) -> None:
        """Make a block of zeros, `FIRST_OFFSET` of its bytes being for its own use.

        Args:
            num_bytes: Its size.
            mapped_bytes: As much of its beginning may be looked at as an array. The rest costs no address space.

        Raises:
            OSError: There is no such memory here.
        """
        self._descriptor = os.memfd_create("pillsnap-store")
        self._owner = (os.getpid(), self._descriptor)
        self._token = os.urandom(TOKEN_BYTES)
        self._mapped_bytes = mapped_bytes
        self._map: mmap.mmap | None = None
        os.ftruncate(self._descriptor, num_bytes)
        os.pwrite(self._descriptor, self._token, 0)

    @property
    def owner_pid(self) -> int:
        """The process that made the block."""
        return self._owner[0]

    def descriptor(self) -> int:
        """Return a descriptor of the block for this process.

        Raises:
            OSError: Its owner has ended, or this process may not look at it.
        """
        if self._descriptor < 0:
            pid, number = self._owner
            descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
            if os.pread(descriptor, TOKEN_BYTES, 0) != self._token:
                os.close(descriptor)
                raise OSError(f"process {pid} has another file open under the number {number}")
            self._descriptor = descriptor
        return self._descriptor

    def array(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array over the memory from `offset` on, shared with all processes.

        Raises:
            OSError: As `descriptor`.
        """
        if self._map is None:
            self._map = mmap.mmap(self.descriptor(), self._mapped_bytes)
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Give the descriptor back; arrays stay valid as long as they are used."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._map = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open."""
        return {**self.__dict__, "_descriptor": -1, "_map": None}

    def __del__(self) -> None:
        """Give the descriptor back."""
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()
