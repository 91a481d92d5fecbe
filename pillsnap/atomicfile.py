"""Files that are either whole or not there: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and vanishes when it raises.

    A file that was at `path` before stays until the new one is complete. Whoever needs the content to survive a power
    cut syncs it inside the block.

    Args:
        path: The file wanted in the end; its folder must exist.

    Yields:
        A path in the same folder (a rename across disks would not be atomic), hidden, with the process id in its name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
