"""Files that are kept to save work or memory, and the oldest of which go when there are too many."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

FILES_KEPT = 8  # of a kind in a cache folder; neighbouring experiments often use the same ones


def remove_old_files(folder: Path, pattern: str, kept: int = FILES_KEPT) -> None:
    """Remove all files that match `pattern` in `folder` but the `kept` ones changed last."""
    found = sorted(folder.glob(pattern), key=_changed_at, reverse=True)
    for path in found[kept:]:
        with suppress(OSError):  # another run removes them too
            path.unlink()


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
