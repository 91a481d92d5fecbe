"""A small disk of its own that can be filled to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs; it gives space away in pages of `PAGE_BYTES`."""

    dir: Path

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        return shutil.disk_usage(self.dir).free

    def leave(self, num_bytes: int) -> None:
        """Fill the disk until `num_bytes` are free (whole pages)."""
        (self.dir / "ballast").unlink(missing_ok=True)
        with (self.dir / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while self.free_bytes > num_bytes:  # others may be writing meanwhile
                ballast.write(bytes(min(self.free_bytes - num_bytes, 1 << 20)))

    def make_room(self) -> None:
        """Give the space back."""
        (self.dir / "ballast").unlink(missing_ok=True)

    def grow(self, num_bytes: int) -> None:
        """Give the disk another size."""
        _mount("-o", f"remount,size={num_bytes}", str(self.dir))


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of `num_bytes` at `folder` for the block.

    Raises:
        PermissionError: This process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that a test left behind may hold a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(f"mount {' '.join(words)}: {done.stderr.strip()}")
