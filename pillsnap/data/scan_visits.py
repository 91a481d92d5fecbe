"""What a reader looked at on the disk, kept so small that a later start can look again at millions of files.

A folder is the same while its time of change and its inode are: any file that was added, removed, renamed or replaced
changes them. A file that can be rewritten in place is watched as well, by size and time of change; the watched files of
one folder become one number. Imports nothing but the standard library, because processes are started for this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# A file system's clock moves in ticks (4 ms on ext4, 10 ms on exFAT): two changes in one tick leave one time.
TICK_NS = 20_000_000
MASK = (1 << 62) - 1
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe would be waited for
NEVER = -1  # a digest that no look at the disk returns
ABSENT = hash((0, -1))

Look = tuple[int, int, int]
"""Time of change in ns and inode of a folder, and the digest of its watched files."""


class LookJob(NamedTuple):
    """Folders to look at again: path below `root`, and `suffix` and `names` of its `Visit`."""

    root: str
    folders: list[tuple[str, str, list[str]]]


@dataclass(slots=True)
class Visit:
    """One folder as it was when it was read.

    `suffix`: all files of this suffix (lower case, with dot) are watched, "" for none; `names` are watched besides.
    With `is_listed` false only the watched files count, whatever else lies in the folder.
    """

    path: str
    mtime_ns: int = 0
    inode: int = 0
    suffix: str = ""
    names: list[str] = field(default_factory=list)
    digest: int = 0
    is_listed: bool = True

    def add(self, size: int, mtime_ns: int) -> None:
        """Take one more watched file into the digest."""
        if self.digest != NEVER:
            self.digest = (self.digest + hash((size, mtime_ns))) & MASK


class Visits:
    """The folders that one reader has listed, by their paths relative to the data root."""

    def __init__(self) -> None:
        """Start with none."""
        self.folders: dict[str, Visit] = {}
        self._old_ns = 0

    @contextmanager
    def opened(self, where: Path, folder: str) -> Iterator[int]:
        """Open a folder for listing and remember it; give its descriptor.

        Raises:
            OSError: It cannot be opened.
        """
        descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            self.settle(status.st_mtime_ns)
            self.folders[folder] = Visit(folder, status.st_mtime_ns, status.st_ino)
            yield descriptor
        finally:
            os.close(descriptor)

    def watch_all(self, folder: str, suffix: str) -> None:
        """Watch all files with `suffix` in a folder that was listed; each must be read by its `reader`."""
        self.folders[folder].suffix = suffix

    def watch(self, path: str, size: int, mtime_ns: int) -> None:
        """Watch a file of a folder that was listed; its size and time were taken before it is read."""
        self.settle(mtime_ns)
        folder, _, name = path.rpartition("/")
        visit = self.folders[folder]
        if not (visit.suffix and name.lower().endswith(visit.suffix)):
            visit.names.append(name)
        visit.add(size, mtime_ns)

    def reader(self, folder: str, descriptor: int) -> Callable[[str], bytes]:
        """Return a function that reads a file of an open folder by its name, and watches it as one of `watch_all`."""
        visit = self.folders[folder]

        def read(name: str) -> bytes:
            file = os.open(name, READ, dir_fd=descriptor)
            try:
                status = os.fstat(file)
                size, mtime_ns = status.st_size, status.st_mtime_ns
                if mtime_ns > self._old_ns:
                    self.settle(mtime_ns)
                visit.add(size, mtime_ns)
                content = os.read(file, size + 1)
                if len(content) == size:
                    return content
                with open(file, "rb", closefd=False) as rest:  # noqa: PTH123 - it is open already
                    return content + rest.read()
            finally:
                os.close(file)

        return read

    def watch_names(self, root: Path, folder: str, names: Sequence[str]) -> None:
        """Watch files that need not exist, in a folder whose other files do not matter."""
        try:
            _, _, digest = look(root / folder, "", names)
        except OSError:
            digest = NEVER
        self.folders[folder] = Visit(folder, names=list(names), digest=digest, is_listed=False)

    def distrust(self, path: str) -> None:
        """Have the folder of `path` read again at every start: what is wrong with it can end without a trace in it."""
        self.folders[path.rpartition("/")[0]].digest = NEVER

    def distrust_refused(self, path: str, error: BaseException | None) -> None:
        """Distrust the folder of a file that the system would not read: a permission given back changes no time."""
        if isinstance(error, OSError) and error.errno is not None:
            self.distrust(path)

    def settle(self, mtime_ns: int) -> None:
        """Wait where something changed so lately that one more change could leave no trace."""
        if mtime_ns <= self._old_ns:
            return
        now = time.time_ns()
        if now - TICK_NS < mtime_ns <= now:
            time.sleep(TICK_NS / 1e9)
        self._old_ns = time.time_ns() - TICK_NS


def look(where: Path | str, suffix: str, names: Sequence[str]) -> Look:
    """Look at a folder and its watched files as they are now.

    Raises:
        OSError: The folder cannot be opened.
    """
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        digest = 0
        for name in (*_names_with(suffix, descriptor), *names):
            try:
                file = os.stat(name, dir_fd=descriptor)
            except OSError:
                digest += ABSENT
            else:
                # A folder with the suffix counts here alone, and so has its unit read at every start; there is none.
                digest += hash((file.st_size, file.st_mtime_ns))
        return status.st_mtime_ns, status.st_ino, digest & MASK
    finally:
        os.close(descriptor)


def _names_with(suffix: str, descriptor: int) -> list[str]:
    if not suffix:
        return []
    length = len(suffix)
    names = [
        name
        for name in os.listdir(descriptor)  # noqa: PTH208 - pathlib lists no open folder
        if name[-length:].lower() == suffix and name[0] != "."
    ]
    return names if all(map(str.isascii, names)) else list(filter(is_text, names))


def look_again(job: LookJob) -> list[Look]:
    """Look at folders again; one that cannot be opened is returned as never seen."""
    looks = []
    for folder, suffix, names in job.folders:
        try:
            looks.append(look(f"{job.root}/{folder}", suffix, names))
        except OSError:
            looks.append((0, 0, NEVER))
    return looks


def is_text(name: str) -> bool:
    """Tell whether a file name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
