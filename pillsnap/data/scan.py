"""Reading a data set whole, or only what has changed in it since an earlier start.

Both give the same tables: a unit that did not change is taken from the earlier ones, the others are read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pillsnap.data.records import PROBLEM_SCHEMA, Problem, Problems, Records, Scan, sorted_by
from pillsnap.data.scan_pool import map_jobs
from pillsnap.data.scan_units import Tables, Unit, UnitJob, jobs_of
from pillsnap.data.scan_visits import NEVER, LookJob, look_again
from pillsnap.data.tree import no_pictures_error, require_folder

logger = logging.getLogger("pillsnap")

FOLDERS_PER_JOB = 100
WORTH_READING_S, WORTH_LOOKING_S = 0.3, 0.1  # a helper that only looks starts faster than one that reads


class Found(NamedTuple):
    """The units of a data set, and the problems that belong to none."""

    units: list[Unit]
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class Reader:
    """One kind of data set.

    `discover` finds its units and `read_units` reads some of them. `folders_read` names the folders and files below
    the root that are looked into, `unit_of_rows` the unit of each picture, `layout` tells people how the data must lie.
    """

    name: str
    layout: str
    discover: Callable[[Path], Found]
    read_units: Callable[[UnitJob], Tables]
    folders_read: Callable[[Path], list[str]]
    unit_of_rows: Callable[[pa.Table], pa.Array | pa.ChunkedArray]


def only_unit(records: pa.Table) -> pa.Array:
    """Return the unit of each row of a data set that is one unit."""
    return pa.repeat("", records.num_rows)


def read_all(root: Path, reader: Reader, processes: int | None = None) -> Scan:
    """Read a data set.

    Args:
        root: The data root.
        reader: What reads it.
        processes: How many read; None for one per core.

    Raises:
        DataError: It is missing, unreadable, or holds no usable picture.
    """
    require_folder(root, reader.layout)
    found = reader.discover(root)
    return scan_of(root, reader, found, read_tables(root, reader, found.units, processes))


def read_tables(root: Path, reader: Reader, units: Sequence[Unit], processes: int | None = None) -> Tables:
    """Read some units, in several processes where it is worth it.

    Raises:
        DataError: A folder cannot be read.
    """
    start = time.perf_counter()
    parts = map_jobs(reader.read_units, jobs_of(str(root), units), processes, WORTH_READING_S)
    tables = _in_order(Tables.joined(parts))
    seconds = time.perf_counter() - start
    logger.info("read %d pictures of %d folders in %.1f s", len(tables.records), len(tables.folders), seconds)
    return tables


def changed_units(
    root: Path, units: Sequence[Unit], known: dict[str, str], folders: pa.Table, processes: int | None = None
) -> list[Unit]:
    """Return the units that are not as they were.

    Args:
        root: The data root.
        units: Those that are there now.
        known: Key and places of every unit that was there.
        folders: The table of their folders.
        processes: How many look; None for one per core.
    """
    stale = _keys_of_changed_folders(root, folders, processes)
    return [unit for unit in units if unit.key in stale or known.get(unit.key) != unit.places]


def updated(
    root: Path,
    reader: Reader,
    old: Tables,
    units: Sequence[Unit],
    changed: Sequence[Unit],
    processes: int | None = None,
) -> Tables:
    """Return the tables of all `units`: those of `changed` are read, the others taken from `old`.

    Raises:
        DataError: A folder cannot be read.
    """
    new = read_tables(root, reader, changed, processes)
    kept = pa.array({unit.key for unit in units} - {unit.key for unit in changed}, pa.string())
    is_kept = pc.is_in(reader.unit_of_rows(old.records), kept)
    others = (table.filter(pc.is_in(table.column("unit"), kept)) for table in old[1:])
    return _in_order(Tables.joined([Tables(old.records.filter(is_kept), *others), new]))


def scan_of(root: Path, reader: Reader, found: Found, tables: Tables, records: Records | None = None) -> Scan:
    """Return what readers of the index are given.

    Args:
        root: The data root.
        reader: What read it.
        found: What was found beside the units.
        tables: What the units hold.
        records: The same records as in `tables`, mapped from a file; None makes them from the table.

    Raises:
        DataError: There is no usable picture.
    """
    problems = tables.problems.select(PROBLEM_SCHEMA.names)
    if found.problems:
        problems = sorted_by(pa.concat_tables([problems, Problems.of(found.problems).table]), "path", "kind")
    if not tables.records.num_rows:
        raise no_pictures_error(root, reader.layout, list(Problems(problems)))
    rows = zip(*(tables.names.column(name).to_pylist() for name in ("code", "name")), strict=True)
    names: dict[str, str] = {}
    for code, name in rows:
        names.setdefault(code, name)
    return Scan(records or Records(tables.records), Problems(problems), dict(sorted(names.items())))


def _in_order(tables: Tables) -> Tables:
    """Sort the rows so that they do not depend on how the work was divided."""
    return Tables(
        sorted_by(tables.records, "image_path"),
        sorted_by(tables.problems, "path", "kind"),
        sorted_by(tables.names, "unit"),
        sorted_by(tables.folders, "unit"),
    )


def _keys_of_changed_folders(root: Path, folders: pa.Table, processes: int | None) -> set[str]:
    rows = list(zip(*(folders.column(name).to_pylist() for name in ("path", "suffix", "names")), strict=True))
    jobs = [LookJob(str(root), rows[start : start + FOLDERS_PER_JOB]) for start in range(0, len(rows), FOLDERS_PER_JOB)]
    looks = [look for part in map_jobs(look_again, jobs, processes, WORTH_LOOKING_S) for look in part]
    was = {name: folders.column(name).to_numpy() for name in ("mtime_ns", "inode", "digest", "is_listed")}
    now = [np.array(column) for column in zip(*looks, strict=True)] or [np.array([], np.int64)] * 3
    is_changed = (was["mtime_ns"] != now[0]) | (was["inode"] != now[1])
    is_changed = (was["is_listed"] & is_changed) | (was["digest"] != now[2]) | (was["digest"] == NEVER)
    return set(folders.column("unit").to_numpy()[is_changed].tolist())
