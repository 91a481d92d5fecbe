"""Every instant between two file operations below a folder, and a way to let something happen at one of them.

Between two operations nothing on the disk changes, so a process that is killed before each operation in turn, and once
inside each write, has been killed at every instant that its files can tell apart.
"""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

Instant = int | str
"""The number of a file operation, from 0, or a pattern for its label such as `replace manifest.json`."""
STANDARD_OUTPUT = 1
DYING = "killed before: "
TEMPORARY = re.compile(r"^\.(.+)\.\d+\.tmp$")
TEMPORARY_LABEL = r"\1.tmp"
PATH_OF_DESCRIPTOR = "/proc/self/fd/{}"


def kill_this_process(label: str) -> None:
    """End the process as `kill -9` does: nothing is flushed, closed or cleaned up; says before which operation."""
    os.write(STANDARD_OUTPUT, f"{DYING}{label}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def refuse_with_a_full_disk(label: str) -> None:
    """Fail the operation as a full disk does."""
    raise OSError(28, f"No space left on device (before {label})")


class FileOperations:
    """The labels of the operations below `folder` so far; at `instant`, `action` is called before the operation."""

    def __init__(
        self, folder: Path, instant: Instant | None, action: Callable[[str], None], min_split_bytes: int
    ) -> None:
        """Count from 0; without an instant nothing happens but counting."""
        self.labels: list[str] = []
        self.min_split_bytes = min_split_bytes
        self._folder = str(folder)
        self._instant = instant
        self._action = action

    def are_about(self, path: object) -> bool:
        """Tell whether `path`, or the file that is open under that number, lies below the folder."""
        return _text(path).startswith(self._folder)

    def step(self, kind: str, path: object) -> None:
        """Note an operation that is about to happen, and act when its instant has come."""
        if not self.are_about(path):
            return
        # The names of temporary files hold the process id, which no test can know beforehand.
        self.labels.append(f"{kind} {TEMPORARY.sub(TEMPORARY_LABEL, Path(_text(path)).name)}")
        if self._is_instant():
            self._action(self.labels[-1])

    def _is_instant(self) -> bool:
        if isinstance(self._instant, str):
            return fnmatchcase(self.labels[-1], self._instant)
        return self._instant == len(self.labels) - 1


class _SplitWriter:
    """A file opened for writing whose every write is two, so that something can happen in the middle."""

    def __init__(self, file: Any, path: object, operations: FileOperations) -> None:
        self._file, self._path, self._operations = file, path, operations

    def write(self, data: Any) -> int:
        if len(data) < self._operations.min_split_bytes:
            return int(self._file.write(data))
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._operations.step("write", self._path)
        self._file.write(data[half:])
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@contextmanager
def file_operations(
    folder: Path,
    instant: Instant | None = None,
    action: Callable[[str], None] = kill_this_process,
    *,
    min_split_bytes: int = 0,
) -> Iterator[FileOperations]:
    """Watch the file operations below `folder` in the block: mkdir, open, write, fsync, replace, link, unlink.

    Args:
        folder: Operations elsewhere are neither counted nor touched.
        instant: Before which operation `action` is called; a pattern means every operation whose label fits.
        action: What happens there; it is given the label.
        min_split_bytes: Smaller writes are not counted; torch pads its files with thousands of tiny ones.
    """
    operations = FileOperations(folder, instant, action, min_split_bytes)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "unlink", "fsync"):
            patch.setattr(os, name, _watched(getattr(os, name), name, 0, operations))
        for name in ("replace", "link"):  # told apart by what they make, their second argument
            patch.setattr(os, name, _watched(getattr(os, name), name, 1, operations))
        patch.setattr(io, "open", _watched_open(io.open, operations))
        yield operations


def _watched(function: Callable[..., Any], kind: str, position: int, operations: FileOperations) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        operations.step(kind, args[position])
        return function(*args, **kwargs)

    return watched


def _watched_open(function: Callable[..., Any], operations: FileOperations) -> Callable[..., Any]:
    def watched(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "r" in mode or not operations.are_about(path):
            return function(path, mode, *args, **kwargs)
        operations.step("open", path)
        return _SplitWriter(function(path, mode, *args, **kwargs), path, operations)

    return watched


def _text(path: object) -> str:
    if isinstance(path, int):
        return str(Path(PATH_OF_DESCRIPTOR.format(path)).readlink())
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
