"""From a data root to the picture table, by the right reader, and from a cache what has not changed.

Reading 2.6 million label files takes minutes; with the cache the second start maps one file. It looks at every folder
and label file again, about 2 us each in every process, and reads only the drugs and combinations where one is not as
it was. Pictures are not looked at one by one: a picture that was rewritten in place is noticed where its pixels are
stored. Pictures whose own header was read, because no label tells their size, are.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pillsnap.data import aihub576, folders, yolo
from pillsnap.data.cache_files import remove_old_files
from pillsnap.data.manifest import SOURCE as MANIFEST
from pillsnap.data.manifest import manifest_reader, restrict
from pillsnap.data.records import Records, Scan
from pillsnap.data.scan import Reader, changed_units, read_tables, scan_of, updated
from pillsnap.data.scan_file import TableFile, write_tables
from pillsnap.data.scan_units import SCHEMAS, Tables
from pillsnap.data.tree import DEMO_HINT, DataTree, require_folder
from pillsnap.errors import ConfigError, DataError, PillError

logger = logging.getLogger("pillsnap")

AUTO = "auto"
CACHE_FORMAT = "2"  # raise it whenever a reader or the table changes
READERS = {reader.name: reader for reader in (aihub576.READER, yolo.READER, folders.READER)}
ALL_LAYOUTS = "\n".join(reader.layout for reader in READERS.values())
UNITS = "units"  # the table of the units' places, beside those of `Tables`


def detect_reader(root: Path) -> str:
    """Return the name of the reader for the data below `root`: "aihub576", "yolo" or "folders".

    Raises:
        DataError: The folder is missing, or lies like none of them.
    """
    require_folder(root, ALL_LAYOUTS)
    if aihub576.level_of(root) is not None:
        return aihub576.READER.name
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


def reader_of(root: Path, name: str = AUTO, manifest: Path | None = None) -> Reader:
    """Return the reader of a data set.

    Args:
        root: The data root.
        name: Name of a reader, or "auto".
        manifest: A CSV file that names pictures; with "auto" it is the data set where `root` lies like no other.

    Raises:
        ConfigError: There is no such reader.
        DataError: The folder is missing, or lies like nothing known and there is no manifest.
    """
    if name not in (AUTO, *READERS, MANIFEST):
        choices = ", ".join([AUTO, *READERS, MANIFEST])
        raise ConfigError(f"data.reader is {name!r}; there are {choices}. Set one of them.")
    if name == MANIFEST:
        if manifest is None:
            raise ConfigError("data.reader is 'manifest', but there is no manifest. Set data.manifest=FILE.csv.")
        return manifest_reader(manifest)
    if name != AUTO:
        require_folder(root, READERS[name].layout)
        return READERS[name]
    require_folder(root, ALL_LAYOUTS)
    try:
        return READERS[detect_reader(root)]
    except DataError:
        if manifest is None:
            raise
        return manifest_reader(manifest)


def load_index(
    root: Path,
    reader: str = AUTO,
    cache_dir: Path | None = None,
    *,
    manifest: Path | None = None,
    processes: int | None = None,
) -> Scan:
    """Read a data set, from the cache what has not changed.

    Args:
        root: The data root.
        reader: Name of a reader, or "auto".
        cache_dir: Where the cache files of all data sets lie; None for no cache. Never a folder of the data set.
        manifest: A CSV file that names the pictures to use; None uses all.
        processes: How many read; None for one per core. It changes nothing in the result.

    Returns:
        Pictures, problems and drug names, the same with and without the cache.

    Raises:
        ConfigError: There is no such reader.
        DataError: The data set is missing, unreadable, or holds no usable picture; the manifest cannot be used.
    """
    found = reader_of(root, reader, manifest)
    if cache_dir is not None and lies_in_data(cache_dir, root, reader, manifest):
        logger.warning(
            "no label cache: %s lies in the data set, which is not written to; set paths.cache_dir", cache_dir
        )
        cache_dir = None
    index = _Index(root, found, processes)
    if cache_dir is None:
        scan = index.read()
    else:
        scan = index.read_cached(cache_dir / f"index-{_key(root, found, manifest)}.arrow")
    if manifest is None or found.name == MANIFEST:
        return scan
    chosen = restrict(scan, manifest)
    return chosen if cache_dir is None else replace(chosen, records=_mapped(chosen.records, cache_dir))


def _mapped(records: Records, cache_dir: Path) -> Records:
    """Return the same records from a file in `cache_dir`, so that all processes share them."""
    digest = hashlib.blake2b(np.ascontiguousarray(records.column("sample_id")).tobytes(), digest_size=12).hexdigest()
    path = cache_dir / f"manifest-{digest}.arrow"
    try:
        records.write(path)
        remove_old_files(cache_dir, "manifest-*.arrow")
        return Records.read(path)[0]
    except (OSError, ValueError, PillError) as error:
        logger.warning("the pictures of the manifest stay in memory, in each worker of its own: %s", error)
        return records


class _Index:
    """The way from the disk, or the cache and the disk, to the tables of one data set."""

    def __init__(self, root: Path, reader: Reader, processes: int | None) -> None:
        self._root = root
        self._reader = reader
        self._processes = processes
        self._found = reader.discover(root)

    def read(self) -> Scan:
        """Read all of it."""
        return self._scan(self._read_tables())

    def read_cached(self, path: Path) -> Scan:
        """Read what the cache at `path` does not hold, and bring it up to date."""
        start = time.perf_counter()
        file = _open_cache(path)
        old = None if file is None else _tables_in(file, path)
        if file is None or old is None:
            return self._keep(path, self._read_tables())
        known = dict(zip(*(file.table(UNITS).column(name).to_pylist() for name in ("unit", "places")), strict=True))
        units = self._found.units
        changed = changed_units(self._root, units, known, old.folders, self._processes)
        if not changed and known.keys() == {unit.key for unit in units}:
            scan = self._scan(old, Records.from_file(file))
            seconds = time.perf_counter() - start
            logger.info("%d pictures from the label cache %s in %.1f s", len(scan.records), path, seconds)
            return scan
        logger.info(
            "the data set has changed since %s was written; reading %d of its %d parts again",
            path,
            len(changed),
            len(units),
        )
        return self._keep(path, updated(self._root, self._reader, old, units, changed, self._processes))

    def _read_tables(self) -> Tables:
        logger.info("reading %s with reader %s", self._root, self._reader.name)
        return read_tables(self._root, self._reader, self._found.units, self._processes)

    def _scan(self, tables: Tables, records: Records | None = None) -> Scan:
        return scan_of(self._root, self._reader, self._found, tables, records)

    def _keep(self, path: Path, tables: Tables) -> Scan:
        """Write the cache and return what was read, mapped from there so that it is shared by all processes."""
        scan = self._scan(tables)
        units = self._found.units
        places = pa.table({"unit": [unit.key for unit in units], "places": [unit.places for unit in units]})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tables(path, {**tables._asdict(), UNITS: places}, {"root": str(self._root)})
            return self._scan(tables, Records.from_file(TableFile(path, verify=False)))
        except (OSError, ValueError, PillError) as error:
            logger.warning("the label cache %s cannot be written (%s); the next start reads all labels", path, error)
            return scan


def lies_in_data(path: Path, root: Path, reader: str, manifest: Path | None = None) -> bool:
    """Tell whether `path` lies in a folder that `reader` ("auto" included) reads below `root`.

    Raises:
        ConfigError: There is no such reader.
        DataError: The data set is missing or lies like nothing known.
    """
    found = reader_of(root, reader, manifest)
    # With a folder per class, any new folder below the root would be a class.
    paths = ["."] if found is folders.READER else found.folders_read(root)
    return any(path.resolve().is_relative_to((root / read).resolve()) for read in paths)


def _key(root: Path, reader: Reader, manifest: Path | None) -> str:
    named = os.fsencode(manifest.resolve()) if manifest is not None and reader.name == MANIFEST else b""
    key = b"\0".join([os.fsencode(root.resolve()), reader.name.encode(), CACHE_FORMAT.encode(), named])
    return hashlib.blake2b(key, digest_size=12).hexdigest()


def _open_cache(path: Path) -> TableFile | None:
    if not path.exists():
        return None
    try:
        return TableFile(path)
    except (OSError, ValueError, KeyError) as error:
        _say_damaged(path, error)
        return None


def _tables_in(file: TableFile, path: Path) -> Tables | None:
    try:
        tables = Tables(*(file.table(name) for name in SCHEMAS))
        file.table(UNITS)
    except (OSError, ValueError) as error:
        _say_damaged(path, error)
        return None
    return tables


def _say_damaged(path: Path, error: Exception) -> None:
    logger.warning("the label cache %s is damaged (%s); reading the data set again", path, error)
