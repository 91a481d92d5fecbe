"""Files that are either whole or not there: written under a temporary name beside the target, then renamed.

What a killed process leaves under its temporary name is removed when the same file is written again. `zip_damage` and
`sha256_of` are the reader's side: whether a file is whole, and whether it is the one that was written.
"""

from __future__ import annotations

import glob
import hashlib
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pillsnap.errors import PillError

# What zipfile and the decompressors raise, depending on which byte is wrong.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)
LEFTOVER = re.compile(r"\.(\d+)\.tmp$")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and vanishes when it raises.

    A file that was at `path` before stays until the new one is complete. Whoever needs the content to survive a power
    cut syncs it inside the block, and the folder (`sync_folder`) after it.

    Args:
        path: The file wanted in the end; its folder must exist.

    Yields:
        A path in the same folder (a rename across disks would not be atomic), hidden, with the process id in its name.
        No file is there yet.

    Raises:
        PillError: The file cannot be written (disk full, no permission, no folder): any `OSError` of the block.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        remove_leftovers(path.parent, path.name)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise PillError(
            f"{path} cannot be written: {error.strerror or error}; what was there before is untouched. "
            "Check that the folder exists, is writable and has free space."
        ) from error
    finally:
        with suppress(OSError):  # a disk that refuses this has refused the write before, and that is being said
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of processes that are no more; those of a living one are left to it.

    Args:
        folder: Where to look; it need not exist.
        name: Only those of the file of this name; None takes all.
    """
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        found = LEFTOVER.search(path.name)
        if found and not _is_another_alive(int(found.group(1))):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def zip_damage(path: Path) -> str | None:
    """Return what is wrong with a zip archive, or None when every member has the content it was written with.

    `torch.load` does not compare the checksums (torch 2.11 is built so, for speed): it returns the changed weights of a
    checkpoint with a flipped bit. Comparing them costs 0.07 s for 300 MB.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except ZIP_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return None if member is None else f"the checksum of its part {member} differs"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_another_alive(pid: int) -> bool:
    # A container gives the resumed run the killed one's id again: a file with our own id is a leftover too.
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
