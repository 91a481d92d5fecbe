"""JSON files that are either whole or not there: written to a temporary name, synced, then renamed.

NaN and infinity are refused, because JSON has no word for them and other readers would fail on the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.atomicfile import atomic_path
from pillsnap.errors import PillError


def save_json(path: Path, obj: object) -> None:
    """Write `obj` as UTF-8 JSON atomically; a reader sees the old file or the new one, never half of one.

    Args:
        path: Where to write; the folder must exist.
        obj: Dicts with string keys, lists, tuples, strings, numbers, booleans, None; NumPy scalars and paths are
            converted.

    Raises:
        ValueError: A number in `obj` is NaN or infinite.
        TypeError: `obj` holds something JSON cannot express.
        PillError: The file cannot be written (disk full, no permission, no folder).
    """
    for where, value in _non_finite(obj, ""):
        raise ValueError(
            f"{path.name} cannot be written: {where or 'the value'} is {value}; every number must be finite. "
            "Leave the key out, or write None, where there is no figure."
        )
    text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False, default=_plain) + "\n"
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(sink.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        PillError: The file is missing, unreadable, not UTF-8, not JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise PillError(
            f"{path} cannot be read: {err.strerror}; wanted a JSON file. Check the path and its permissions."
        ) from err
    except ValueError as err:  # broken JSON and broken UTF-8 alike
        raise PillError(f"{path} is not valid JSON: {err}. Delete it, or write it again by repeating the run.") from err
    if not isinstance(content, dict):
        raise PillError(
            f"{path} holds a JSON {type(content).__name__} at its top level; wanted an object ({{...}}). "
            "Delete it, or write it again by repeating the run."
        )
    return content


def _non_finite(obj: object, where: str) -> Iterator[tuple[str, object]]:
    """Yield the dotted place and the value of every NaN or infinity in `obj`."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield from _non_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            yield from _non_finite(value, f"{where}[{index}]")
    elif isinstance(obj, float | np.floating) and not math.isfinite(obj):
        yield where, obj


def _plain(obj: object) -> object:
    """Turn what `json` does not know into what it does."""
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, Path):
        return str(obj)
    raise TypeError(
        f"JSON cannot hold {obj!r} of type {type(obj).__name__}; wanted dicts, lists, strings, numbers, booleans or "
        "None. Convert it before saving."
    )
