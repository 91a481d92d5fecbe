"""The table of pictures that every reader produces and everything else reads.

One row is one picture. The columns live in an Arrow table, not in Python objects, so that 2.6 million rows cost the
loader's worker processes nothing: the memory is shared after a fork and memory-mapped after a spawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.scan_file import TableFile, write_tables

SINGLE = "single"
COMBO = "combo"

SCHEMA = pa.schema(
    [
        ("sample_id", pa.uint64()),  # stable 64-bit hash of image_path: owns the sample's randomness
        ("image_path", pa.string()),  # posix path relative to the data root
        ("task", pa.string()),  # "single": one pill in the picture; "combo": any other number
        ("code", pa.string()),  # class key of a single picture's pill, null for combos
        ("boxes_xyxy", pa.list_(pa.float32())),  # 4 numbers a box, pixels, inside the picture; may be empty
        ("box_codes", pa.list_(pa.string())),  # one class key a box
        ("group", pa.string()),  # pictures that must stay on the same side of a split
        ("source", pa.string()),  # the reader: "aihub576", "yolo" or "folders"
        ("part", pa.string()),  # the data set's own split: "train", "val", "test", or "" where it has none
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
    ]
)

PROBLEM_SCHEMA = pa.schema([("kind", pa.string()), ("path", pa.string()), ("detail", pa.string())])

RECORDS = "records"  # name of the table in its file
MAX_RUNS = 1000  # ascending stretches of rows that are sorted as wholes
PER_SAMPLE = ("image_path", "sample_id", "boxes_xyxy", "box_codes")


def sample_id_of(image_path: str) -> int:
    """Return the stable 64-bit id of a picture, from its path relative to the data root."""
    return int.from_bytes(hashlib.blake2b(image_path.encode(), digest_size=8).digest(), "little")


class Picture(NamedTuple):
    """One row before it enters the table; the readers build these."""

    image_path: str
    task: str
    code: str | None
    group: str
    source: str
    part: str
    width: int
    height: int
    boxes_xyxy: Sequence[tuple[float, float, float, float]] = ()
    box_codes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one file of a data set.

    `kind` is a short fixed word (for counting), `detail` the sentence for the user, `path` relative to the data root.
    """

    kind: str
    path: str
    detail: str


class Problems(Sequence[Problem]):
    """The problems of a data set, kept as an Arrow table: a hundred thousand of them cost nothing until looked at."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap `table`, which must have `PROBLEM_SCHEMA`."""
        self.table = table

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Problems:
        """Build the table of `problems`, in their order."""
        rows = list(problems)
        columns = {name: [getattr(row, name) for row in rows] for name in PROBLEM_SCHEMA.names}
        return cls(pa.table(columns, schema=PROBLEM_SCHEMA))

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        """Return one problem, or a list of them."""
        rows = range(len(self))[index]
        return [self._row(row) for row in rows] if isinstance(rows, range) else self._row(rows)

    def __iter__(self) -> Iterator[Problem]:
        """Go through all of them."""
        return map(Problem, *(self.table.column(name).to_pylist() for name in PROBLEM_SCHEMA.names))

    def __eq__(self, other: object) -> bool:
        """Compare with another sequence of problems."""
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show them as a list."""
        return repr(list(self))

    def _row(self, row: int) -> Problem:
        return Problem(*(self.table.column(name)[row].as_py() for name in PROBLEM_SCHEMA.names))


class Records:
    """Read-only view of the picture table, with NumPy access to its columns.

    One that was read from a file is sent to other processes as the path of that file, and its memory is shared.
    """

    def __init__(self, table: pa.Table) -> None:
        """Wrap `table`, which must have `SCHEMA`."""
        if table.schema != SCHEMA:
            raise ValueError(f"record table has columns {table.schema.names}; wanted {SCHEMA.names}")
        self.table = table.combine_chunks()
        self._file: TableFile | None = None
        # One look-up less for every sample: making Arrow's wrapper of a column costs as much as reading from it.
        self._arrays = {name: _only_chunk(self.table.column(name)) for name in PER_SAMPLE}

    @classmethod
    def from_pictures(cls, pictures: Iterable[Picture]) -> Records:
        """Build the table; rows are sorted by path so that the order never depends on the file system."""
        return cls(table_of(sorted(pictures, key=lambda picture: picture.image_path)))

    @classmethod
    def from_table(cls, table: pa.Table) -> Records:
        """Sort a table of `SCHEMA` by path and wrap it."""
        return cls(sorted_by(table, "image_path"))

    @classmethod
    def from_file(cls, file: TableFile) -> Records:
        """Return the records in a file of tables, without copying them."""
        records = cls(file.table(RECORDS))
        records._file = file
        return records

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the file's path where there is a file, else the table."""
        return (Records, (self.table,)) if self._file is None else (Records.from_file, (self._file,))

    def __len__(self) -> int:
        """Return the number of pictures."""
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[np.generic]:
        """Return one scalar column as a NumPy array (strings become an object array)."""
        return np.asarray(self.table.column(name).to_numpy())

    def image_path(self, row: int) -> str:
        """Return the posix path of a picture relative to the data root."""
        return str(self._arrays["image_path"][row].as_py())

    def sample_id(self, row: int) -> int:
        """Return the stable 64-bit id of a picture."""
        return int(self._arrays["sample_id"][row].as_py())

    def boxes_xyxy(self, row: int) -> FloatArray:
        """Return the boxes of a picture, (N, 4) float32 pixels, as an array of their own."""
        values = self._arrays["boxes_xyxy"][row].values
        return np.array(values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)

    def box_codes(self, row: int) -> list[str]:
        """Return the class key of each box of a picture."""
        return list(self._arrays["box_codes"][row].as_py())

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Records:
        """Return the pictures chosen by a boolean mask or by row numbers."""
        mask = np.asarray(rows)
        indices = np.flatnonzero(mask) if mask.dtype == np.bool_ else mask
        return Records(self.table.take(pa.array(indices, pa.int64())))

    def write(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a file of this one table atomically; `metadata` (plain data) travels in it.

        Raises:
            PillError: It cannot be written.
        """
        write_tables(path, {RECORDS: self.table}, metadata or {})

    @classmethod
    def read(cls, path: Path) -> tuple[Records, dict[str, Any]]:
        """Memory-map a file written by `write`; return the records and the metadata.

        Raises:
            OSError: It cannot be opened.
            ValueError: It is damaged, or no such file.
        """
        file = TableFile(path)
        return cls.from_file(file), file.metadata


@dataclass(frozen=True)
class Scan:
    """What a reader found below a data root."""

    records: Records
    problems: Sequence[Problem] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # class key -> drug name, where the labels tell


def table_of(pictures: Sequence[Picture]) -> pa.Table:
    """Return pictures as a table of `SCHEMA`, in their order."""
    columns: dict[str, Any] = dict(zip(Picture._fields, zip(*pictures, strict=True), strict=True)) if pictures else {}
    paths = columns.get("image_path", ())
    box_codes = columns.pop("box_codes", ())
    values = chain.from_iterable(chain.from_iterable(columns.pop("boxes_xyxy", ())))
    offsets = np.cumsum([0, *map(len, box_codes)], dtype=np.int32)
    columns |= {
        "sample_id": np.fromiter(map(sample_id_of, paths), np.uint64, len(paths)),
        "boxes_xyxy": pa.ListArray.from_arrays(offsets * 4, np.fromiter(values, np.float32)),
        "box_codes": pa.ListArray.from_arrays(offsets, pa.array(chain.from_iterable(box_codes), pa.string())),
    }
    return pa.table([pa.array(columns.get(field.name, ()), field.type) for field in SCHEMA], schema=SCHEMA)


def sorted_by(table: pa.Table, *names: str) -> pa.Table:
    """Return `table` in the order of text columns (by code point, as Python sorts), equal rows in their old order."""
    table = table.combine_chunks()
    if len(names) == 1 and (runs := _runs(table, names[0])) is not None:
        return runs
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in names]))


def _runs(table: pa.Table, name: str) -> pa.Table | None:
    """Sort a table by putting its ascending stretches in order; None where that is not enough.

    What a walk through folders finds is sorted but for some jumps, and moving rows in bulk takes a third of the time.
    """
    values = _only_chunk(table.column(name))
    descents = pc.indices_nonzero(pc.less(values.slice(1), values.slice(0, max(len(values) - 1, 0)))).to_pylist()
    if len(descents) > MAX_RUNS:
        return None
    starts = [0, *(place + 1 for place in descents)]
    ends = [*starts[1:], len(values)]
    runs = sorted((values[start].as_py(), start, end) for start, end in zip(starts, ends, strict=True) if end > start)
    for (_, _, end), (first, _, _) in pairwise(runs):
        if values[end - 1].as_py() > first:
            return None
    return pa.concat_tables([table.slice(start, end - start) for _, start, end in runs] or [table]).combine_chunks()


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
