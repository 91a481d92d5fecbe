"""Which of several runs may write to a store of the cache folder: the one that holds the lock of its process.

The lock ends with the process that took it, however that ends, and not with the worker processes it leaves behind. It
is held once for a process, however many stores ask for it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class _Held:
    pid: int
    descriptor: int
    uses: int


# A second descriptor of the file, closed, would end the lock (POSIX), so a process keeps one.
_held: dict[Path, _Held] = {}


class CacheLock:
    """The right to write, until `release`."""

    def __init__(self, path: Path) -> None:
        """Stand for one use of the lock held at `path`; see `take_lock`."""
        self._path = path
        self._pid = os.getpid()
        self._is_released = False

    def release(self) -> None:
        """Give the right back; a fork of the process that took it does not."""
        if self._is_released or self._pid != os.getpid():
            return
        self._is_released = True
        held = _held[self._path]
        held.uses -= 1
        if held.uses == 0:
            del _held[self._path]
            os.close(held.descriptor)


def take_lock(path: Path) -> CacheLock | None:
    """Take the lock at `path`; its file is made where there is none.

    Returns:
        None when another process holds it.

    Raises:
        OSError: The file cannot be made or opened, or its file system has no locks.
    """
    path = path.resolve()
    held = _held.get(path)
    if held is not None and held.pid == os.getpid():
        held.uses += 1
        return CacheLock(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # both are "held by another", by system
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    _held[path] = _Held(os.getpid(), descriptor, 1)
    return CacheLock(path)
