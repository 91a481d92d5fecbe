"""From a data root to the picture table, by the right reader, and from a cache when nothing has changed.

Reading 2.6 million label files takes many minutes; the cache makes the second start read one Arrow file instead. It is
used while the path, size and time of change of every file are the same, which is found without opening any of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pillsnap.data import aihub576, folders, yolo
from pillsnap.data.records import Problem, Records, Scan
from pillsnap.data.tree import DEMO_HINT, DataTree, FileEntry, require_folder
from pillsnap.errors import ConfigError, DataError, PillError

logger = logging.getLogger("pillsnap")

AUTO = "auto"
CACHE_FORMAT = "1"  # raise it whenever a reader or the table changes


@dataclass(frozen=True, slots=True)
class Reader:
    """One kind of data set: how to read it, how it must lie, and which folders and files of the root are read."""

    read: Callable[[Path], Scan]
    layout: str
    folders_read: Callable[[Path], list[str]]


READERS = {
    aihub576.SOURCE: Reader(aihub576.read_aihub576, aihub576.LAYOUT, aihub576.folders_read),
    yolo.SOURCE: Reader(yolo.read_yolo, yolo.LAYOUT, yolo.folders_read),
    folders.SOURCE: Reader(folders.read_folders, folders.LAYOUT, folders.folders_read),
}
ALL_LAYOUTS = "\n".join(reader.layout for reader in READERS.values())


def detect_reader(root: Path) -> str:
    """Return the name of the reader for the data below `root`: "aihub576", "yolo" or "folders".

    Raises:
        DataError: The folder is missing, or lies like none of them.
    """
    require_folder(root, ALL_LAYOUTS)
    if aihub576.level_of(root) is not None:
        return aihub576.SOURCE
    has_names = yolo.has_names_file(root)
    if any(has_names or (root / labels).is_dir() for _, labels in yolo.image_label_folders(root)):
        return yolo.SOURCE
    tree = DataTree(root)
    class_folders, files = tree.children()
    if any(file.is_image for folder in class_folders for file in tree.files(folder)):
        return folders.SOURCE
    names = [path.rpartition("/")[2] for path in (*class_folders, *(file.path for file in files))]
    raise DataError(
        f"The data folder {root} lies like no data set that can be read; it holds {names[:10] or 'nothing'}. The data "
        f"must lie in one of these ways:\n{ALL_LAYOUTS}\nSet data.root=FOLDER to the place where they do. {DEMO_HINT}"
    )


def load_index(root: Path, reader: str = AUTO, cache_dir: Path | None = None) -> Scan:
    """Read a data set, from the cache where nothing has changed.

    Args:
        root: The data root.
        reader: Name of a reader, or "auto".
        cache_dir: Where the cache files of all data sets lie; None for no cache. Never a folder of the data set.

    Returns:
        Pictures, problems and drug names, the same with and without the cache.

    Raises:
        ConfigError: There is no such reader.
        DataError: The data set is missing, unreadable, or holds no usable picture.
    """
    if reader not in (AUTO, *READERS):
        raise ConfigError(f"data.reader is {reader!r}; there are {', '.join([AUTO, *READERS])}. Set one of them.")
    name = detect_reader(root) if reader == AUTO else reader
    require_folder(root, READERS[name].layout)
    if cache_dir is not None and lies_in_data(cache_dir, root, name):
        logger.warning(
            "no label cache: %s lies in the data set, which is not written to; set paths.cache_dir", cache_dir
        )
        cache_dir = None
    if cache_dir is None:
        return _read(root, name)
    cache_path = cache_dir / f"index-{_key(root, name)}.arrow"
    fingerprint = _fingerprint(root, name)
    scan = _load_cache(cache_path, fingerprint)
    if scan is None:
        scan = _read(root, name)
        _save_cache(cache_path, fingerprint, scan)
    return scan


def _read(root: Path, name: str) -> Scan:
    logger.info("reading %s with reader %s", root, name)
    start = time.perf_counter()
    scan = READERS[name].read(root)
    seconds = time.perf_counter() - start
    logger.info("read %d pictures in %.1f s; %d problems", len(scan.records), seconds, len(scan.problems))
    return scan


def lies_in_data(path: Path, root: Path, reader: str) -> bool:
    """Tell whether `path` lies in a folder that `reader` ("auto" included) reads below `root`.

    Raises:
        DataError: The data set is missing or lies like nothing known.
    """
    name = detect_reader(root) if reader == AUTO else reader
    require_folder(root, READERS[name].layout)
    # With a folder per class, any new folder below the root would be a class.
    folders = ["."] if name == "folders" else READERS[name].folders_read(root)
    folders_read = [(root / folder).resolve() for folder in folders]
    return any(path.resolve().is_relative_to(folder) for folder in folders_read)


def _key(root: Path, name: str) -> str:
    key = b"\0".join([os.fsencode(root.resolve()), name.encode(), CACHE_FORMAT.encode()])
    return hashlib.blake2b(key, digest_size=12).hexdigest()


def _fingerprint(root: Path, name: str) -> str:
    """Return a hash over path, size and time of change of every file the reader may read."""
    tree = DataTree(root)
    digest = hashlib.blake2b(digest_size=16)
    for path in READERS[name].folders_read(root):
        if tree.has_folder(path):
            entries = tree.files(path)
        else:
            status = (root / path).stat()
            entries = iter([FileEntry(path, status.st_size, status.st_mtime_ns)])
        for entry in entries:
            digest.update(f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\n".encode())
    return digest.hexdigest()


def _load_cache(path: Path, fingerprint: str) -> Scan | None:
    """Return what the cache holds; None where there is none, or it is damaged or out of date."""
    if not path.exists():
        return None
    try:
        records, metadata = Records.read(path)
        records.table.validate(full=True)
        if metadata["fingerprint"] != fingerprint:
            logger.info("the data set has changed since %s was written; reading it again", path)
            return None
        problems = [Problem(*values) for values in json.loads(metadata["problems"])]
        names = dict(json.loads(metadata["names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the label cache %s is damaged (%s); reading the data set again", path, error)
        return None
    logger.info("%d pictures from the label cache %s", len(records), path)
    return Scan(records, problems, names)


def _save_cache(path: Path, fingerprint: str, scan: Scan) -> None:
    problems = [(problem.kind, problem.path, problem.detail) for problem in scan.problems]
    metadata = {"fingerprint": fingerprint, "problems": json.dumps(problems), "names": json.dumps(scan.names)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scan.records.write(path, metadata)
    except (OSError, PillError) as error:
        logger.warning("the label cache %s cannot be written (%s); the next start reads all labels again", path, error)
