"""Units of reading: the folders of one drug or combination, and the tables that reading them gives.

A unit depends on its own folders alone. So units are read in any process, and only those that changed are read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from pillsnap.data.records import PROBLEM_SCHEMA, SCHEMA, Picture, Problem, table_of
from pillsnap.data.scan_visits import Visits

UNIT = pa.field("unit", pa.string())
SCHEMAS = {
    "records": SCHEMA,
    "problems": pa.schema([UNIT, *PROBLEM_SCHEMA]),
    "names": pa.schema([UNIT, ("code", pa.string()), ("name", pa.string())]),
    "folders": pa.schema(
        [
            UNIT,
            ("path", pa.string()),
            ("mtime_ns", pa.int64()),
            ("inode", pa.uint64()),
            ("suffix", pa.string()),
            ("names", pa.list_(pa.string())),
            ("digest", pa.int64()),
            ("is_listed", pa.bool_()),
        ]
    ),
}


class UnitFolder(NamedTuple):
    """A folder of a unit: the data set's part ("train", "val", ...), "images" or "labels", and its path."""

    part: str
    side: str
    path: str


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read together.

    `key` is unique in the data set, and units sort by it; `weight` is 1 for a drug of some hundred pictures. `rows` are
    the lines of a manifest: name, class key and type of each picture.
    """

    key: str
    folders: tuple[UnitFolder, ...] = ()
    weight: float = 1.0
    rows: tuple[tuple[str, str, str], ...] = ()

    @property
    def places(self) -> str:
        """The folders as a text, to compare with those of an earlier start."""
        return "\n".join("\t".join(folder) for folder in self.folders)


class UnitJob(NamedTuple):
    """Some units of one data set, for one process."""

    root: str
    units: list[Unit]


class Tables(NamedTuple):
    """What is known of some units, each a table of `SCHEMAS`."""

    records: pa.Table
    problems: pa.Table
    names: pa.Table
    folders: pa.Table

    @classmethod
    def joined(cls, parts: Iterable[Tables]) -> Tables:
        """Return the rows of all `parts`, in their order."""
        empty = cls(*(schema.empty_table() for schema in SCHEMAS.values()))
        return cls(*(pa.concat_tables(tables) for tables in zip(empty, *parts, strict=True)))


class UnitColumns:
    """Collects what reading finds, unit by unit."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.pictures: list[Picture] = []
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in SCHEMAS if name != "records"}

    def close_unit(self, key: str, problems: Iterable[Problem], names: dict[str, str], visits: Visits) -> None:
        """Note what belongs to the unit whose pictures were added last."""
        self._rows["problems"] += [(key, problem.kind, problem.path, problem.detail) for problem in problems]
        self._rows["names"] += [(key, *item) for item in names.items()]
        self._rows["folders"] += [
            (key, visit.path, visit.mtime_ns, visit.inode, visit.suffix, visit.names, visit.digest, visit.is_listed)
            for visit in visits.folders.values()
        ]

    def tables(self) -> Tables:
        """Return what was collected."""
        tables = {"records": table_of(self.pictures)}
        for name, rows in self._rows.items():
            schema = SCHEMAS[name]
            columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
            tables[name] = pa.table(
                [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
            )
        return Tables(**tables)


def jobs_of(root: str, units: Iterable[Unit], weight: float = 4.0) -> list[UnitJob]:
    """Divide units into jobs of about `weight`, so that a process is handed neither crumbs nor everything."""
    jobs: list[UnitJob] = []
    room = 0.0
    for unit in units:
        if room <= 0:
            jobs.append(UnitJob(root, []))
            room = weight
        jobs[-1].units.append(unit)
        room -= unit.weight
    return jobs
