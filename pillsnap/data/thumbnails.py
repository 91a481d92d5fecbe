"""Thumbnails of all pictures of a run, for telling copies apart: made once, in light processes, and kept.

The file of thumbnails only grows, by whole entries: a key (path, size and time of change of the picture), whether it
could be decoded, and the pixels. What a killed process left unfinished at its end is cut off before the next is added.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.data.images import decode_reduced
from pillsnap.data.scan_pool import map_jobs
from pillsnap.errors import BrokenImageError

logger = logging.getLogger("pillsnap")

SIDE_PX = 24
DECODED_PX = 192  # longer side that is enough for the cells' means; JPEG decodes it in a fraction of the time
ENTRY = np.dtype([("key", "V16"), ("is_sound", "?"), ("pixels", "u1", (SIDE_PX * SIDE_PX * 3,))])
FORMAT = "1"  # raise it whenever thumbnails change
PICTURES_A_JOB = 32
PICTURES_A_BLOCK = 8192  # between two writes and lines of the log


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Thumbnails of the pictures that could be decoded."""

    places: NDArray[np.int64]
    """(T,) their places among the pictures asked for, ascending."""
    pixels: NDArray[np.uint8]
    """(T, D)"""


def picture_keys(root: Path, image_paths: Sequence[str]) -> NDArray[np.void]:
    """Return what tells each picture, as it is now, from all others: a hash of path, size and time of change, (N,)."""
    return np.array([_key(f"{root}/{path}", path) for path in image_paths], "V16")


def load_thumbnails(
    root: Path, image_paths: Sequence[str], cache_dir: Path | None, keys: NDArray[np.void] | None = None
) -> Thumbnails:
    """Return the thumbnails of pictures, making those that `cache_dir` does not hold.

    Args:
        root: The data root.
        image_paths: Paths below it.
        cache_dir: Where they are kept; None keeps nothing.
        keys: Their `picture_keys`, where they are at hand.
    """
    keys = picture_keys(root, image_paths) if keys is None else keys
    path = None if cache_dir is None else cache_dir / f"thumbnails-{_name(root)}.bin"
    entries = _read(path)
    missing = np.flatnonzero(_find(entries, keys) < 0)
    if len(missing):
        logger.info("looking for copies: %d of %d pictures are new", len(missing), len(keys))
    made = []
    for start in range(0, len(missing), PICTURES_A_BLOCK):
        block = missing[start : start + PICTURES_A_BLOCK]
        made.append(_make(root, [image_paths[place] for place in block], keys[block]))
        path = _append(path, made[-1])
        if len(missing) > PICTURES_A_BLOCK:
            logger.info("looking for copies: %d of %d new pictures read", start + len(block), len(missing))
    entries = np.concatenate([entries, *made]) if made else entries
    found = _find(entries, keys)
    places = np.flatnonzero(entries["is_sound"][found]) if len(keys) else np.zeros(0, np.int64)
    return Thumbnails(places, entries["pixels"][found[places]])


def thumbnail_job(image_paths: list[str]) -> list[bytes | None]:
    """Return the thumbnail of each picture; None for one that cannot be decoded. What a helper process runs."""
    return [_thumbnail(Path(path)) for path in image_paths]


def _thumbnail(path: Path) -> bytes | None:
    try:
        image = decode_reduced(path, DECODED_PX).image
    except BrokenImageError:
        return None
    return cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).tobytes()


def _make(root: Path, image_paths: list[str], keys: NDArray[np.void]) -> NDArray[np.void]:
    paths = [str(root / path) for path in image_paths]
    jobs = [paths[start : start + PICTURES_A_JOB] for start in range(0, len(paths), PICTURES_A_JOB)]
    pixels = [thumbnail for job in map_jobs(thumbnail_job, jobs) for thumbnail in job]
    entries = np.zeros(len(paths), ENTRY)
    entries["key"] = keys
    for place, content in enumerate(pixels):
        if content is not None:
            entries[place]["is_sound"] = True
            entries[place]["pixels"] = np.frombuffer(content, np.uint8)
    return entries


def _key(full_path: str, image_path: str) -> bytes:
    try:
        status = os.stat(full_path)  # noqa: PTH116 - a Path each costs more than the question
        stamp = f"{status.st_size}|{status.st_mtime_ns}"
    except OSError:
        stamp = "missing"
    return hashlib.blake2b(f"{image_path}|{stamp}".encode(), digest_size=16).digest()


def _name(root: Path) -> str:
    return hashlib.blake2b(f"{root.resolve()}|{FORMAT}".encode(), digest_size=8).hexdigest()


def _read(path: Path | None) -> NDArray[np.void]:
    """Map the entries of a file, whole ones only; none where it is not there or cannot be read."""
    if path is None:
        return np.zeros(0, ENTRY)
    try:
        count = path.stat().st_size // ENTRY.itemsize
        return np.memmap(path, ENTRY, "r", shape=(count,)) if count else np.zeros(0, ENTRY)
    except OSError:
        return np.zeros(0, ENTRY)


def _append(path: Path | None, entries: NDArray[np.void]) -> Path | None:
    """Add entries to the file; None where it cannot be written, so that nobody tries again."""
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # runs side by side share the file
            file.truncate(file.seek(0, os.SEEK_END) // ENTRY.itemsize * ENTRY.itemsize)
            file.write(entries.tobytes())
    except OSError as error:
        logger.warning("%s cannot be written (%s); the next start reads these pictures again", path, error.strerror)
        return None
    return path


def _find(entries: NDArray[np.void], keys: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the place of the entry of each key, -1 where there is none."""
    if not len(entries):
        return np.full(len(keys), -1, np.int64)
    have = np.ascontiguousarray(entries["key"]).view("<u8").reshape(-1, 2)
    want = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
    order = np.argsort(have[:, 0], kind="stable")
    place = np.minimum(np.searchsorted(have[order, 0], want[:, 0]), len(order) - 1)
    found = order[place]
    return np.where((have[found] == want).all(1), found, -1)
