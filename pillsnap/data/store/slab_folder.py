"""The slab files of one store in the cache folder: found again, completed by a new file, thrown away when of no use.

A file keeps the keys it was made for. When a data set grows or another stage is selected, the entries whose keys lie in
an older file go on being served from there, and the others get a new file; nothing is copied.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.layout import DamagedEntryError, StoreLayout
from pillsnap.data.store.slab import MAX_CAPACITY
from pillsnap.data.store.slab_file import SlabFile, create_slab_file, digest_of

logger = logging.getLogger("pillsnap")

NOWHERE = -1
SLOT_BITS = 40  # of a place: the file's number above, the slot below
MAX_FILES = 8  # of one store; the one that serves fewest entries goes first


@dataclass
class SlabFiles:
    """The slab files of a store and where each entry lies in them."""

    files: list[SlabFile]
    places: NDArray[np.int64]
    """(N,) number of the file and slot, `NOWHERE` for entries without a place."""


def file_stem(name: str, identity: str) -> str:
    """Return how the names of a store's files begin."""
    return f"{name}.{digest_of(identity).hex()[:16]}"


def files_of_others(folder: Path, name: str, identity: str) -> Iterator[Path]:
    """Yield what stores of the same name and another identity have in the cache folder."""
    pattern = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{16}}\.(\d+\.slab|lmdb)")
    for path in sorted(folder.iterdir()):
        if pattern.fullmatch(path.name) and not path.name.startswith(f"{file_stem(name, identity)}."):
            yield path


def open_slab_files(
    folder: Path, name: str, layout: StoreLayout, wanted: NDArray[np.int64], *, is_writable: bool
) -> SlabFiles:
    """Find the slab files of a store, and make one more for wanted entries that have no place in them.

    Args:
        folder: The cache folder.
        name: The store's name.
        layout: Its entries.
        wanted: Entries that must have a place.
        is_writable: Whether this run may write; else nothing is made, changed or deleted.

    Raises:
        OSError: The folder cannot be read.
        PillError: The new file cannot be written.
    """
    found = SlabFiles([], np.full(len(layout), NOWHERE, np.int64))
    stem = file_stem(name, layout.identity)
    finder = _key_finder(layout)
    last_number = -1
    for number, path in _numbered(folder, stem):
        last_number = number
        _add(found, path, layout, finder, is_writable=is_writable)
    if is_writable:
        wanted = wanted[layout.capacity[wanted] <= MAX_CAPACITY]
        if (found.places[wanted] == NOWHERE).any():
            _drop_least_used(found)
            needed = wanted[found.places[wanted] == NOWHERE]
            path = folder / f"{stem}.{last_number + 1}.slab"
            create_slab_file(path, layout.identity, layout.keys[needed], layout.capacity[needed])
            _add(found, path, layout, finder, is_writable=True)
    return found


Finder = Callable[[NDArray[np.uint64]], tuple[NDArray[np.int64], NDArray[np.bool_]]]


def _key_finder(layout: StoreLayout) -> Finder:
    """Return a function from keys to the entries that have them, and whether there is one."""
    kept = layout.kept
    order = kept[np.argsort(layout.keys[kept])]
    keys = layout.keys[order]

    def find(wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if len(keys) == 0:
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
        ascending = np.argsort(wanted)  # a search in order stays in the processor's cache
        positions = np.empty(len(wanted), np.int64)
        positions[ascending] = np.minimum(np.searchsorted(keys, wanted[ascending]), len(keys) - 1)
        return order[positions], np.asarray(keys[positions] == wanted)

    return find


def _numbered(folder: Path, stem: str) -> list[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)\.slab")
    matches = ((pattern.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def _add(found: SlabFiles, path: Path, layout: StoreLayout, find: Finder, *, is_writable: bool) -> None:
    """Take a file in, or delete it when it is damaged or none of its keys is in use any more."""
    try:
        file = SlabFile.look_at(path, layout.identity, is_writable=is_writable)
        if file is None:
            raise DamagedEntryError("its header is wrong")
        records, is_whole = file.whole_places()
    except OSError as error:
        logger.warning("%s of the pixel store cannot be read (%s); its pictures are decoded again", path, error)
        return
    except DamagedEntryError as error:
        logger.warning("%s of the pixel store is damaged (%s); its pictures are decoded again", path, error)
        if is_writable:
            path.unlink(missing_ok=True)
        return
    if not is_whole.all():
        logger.warning("%d records of %s are damaged; those pictures are decoded again", (~is_whole).sum(), path)
    entries, has_entry = find(records["key"])
    is_used = is_whole & has_entry & (layout.capacity[entries] <= records["capacity"])
    if not is_used.any():
        file.close()
        if is_writable:
            logger.info("%s held none of the pictures in use any more and was deleted", path)
            path.unlink(missing_ok=True)
        return
    found.places[entries[is_used]] = (len(found.files) << SLOT_BITS) | np.flatnonzero(is_used)
    found.files.append(file)


def _drop_least_used(found: SlabFiles) -> None:
    """Keep room for one more file."""
    while len(found.files) >= MAX_FILES:
        numbers = np.where(found.places == NOWHERE, len(found.files), found.places >> SLOT_BITS)
        number = int(np.bincount(numbers, minlength=len(found.files) + 1)[: len(found.files)].argmin())
        dropped = found.files.pop(number)
        dropped.close()
        logger.info("%s served fewest pictures of %d files and was deleted", dropped.path, MAX_FILES)
        dropped.path.unlink(missing_ok=True)
        found.places[numbers == number] = NOWHERE
        later = (numbers > number) & (numbers <= len(found.files))
        found.places[later] -= 1 << SLOT_BITS


def delete_others(folder: Path, name: str, identity: str) -> None:
    """Delete what an older identity of the store has left in the cache folder, and say so."""
    for path in files_of_others(folder, name, identity):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            logger.warning("%s, of pictures made in another way, cannot be deleted: %s", path, error)
            continue
        logger.info("%s was deleted: its pictures were made in another way than this run's", path)
