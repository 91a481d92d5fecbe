"""The table of pictures that every reader produces and everything else reads.

One row is one picture. The columns live in an Arrow table, not in Python objects, so that 2.6 million rows cost the
loader's worker processes nothing: the memory is shared after a fork and memory-mapped after a spawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path
from pillsnap.boxes import FloatArray

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


def sample_id_of(image_path: str) -> int:
    """Return the stable 64-bit id of a picture, from its path relative to the data root."""
    return int.from_bytes(hashlib.blake2b(image_path.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
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


class Records:
    """Read-only view of the picture table, with NumPy access to its columns."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap `table`, which must have `SCHEMA`."""
        if table.schema != SCHEMA:
            raise ValueError(f"record table has columns {table.schema.names}; wanted {SCHEMA.names}")
        self.table = table.combine_chunks()

    @classmethod
    def from_pictures(cls, pictures: Iterable[Picture]) -> Records:
        """Build the table; rows are sorted by path so that the order never depends on the file system."""
        rows = sorted(pictures, key=lambda picture: picture.image_path)
        columns = {
            "sample_id": [sample_id_of(row.image_path) for row in rows],
            "boxes_xyxy": [[float(value) for box in row.boxes_xyxy for value in box] for row in rows],
            "box_codes": [list(row.box_codes) for row in rows],
        }
        for name in SCHEMA.names:
            if name not in columns:
                columns[name] = [getattr(row, name) for row in rows]
        return cls(pa.table(columns, schema=SCHEMA))

    def __len__(self) -> int:
        """Return the number of pictures."""
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[np.generic]:
        """Return one scalar column as a NumPy array (strings become an object array)."""
        return np.asarray(self.table.column(name).to_numpy())

    def image_path(self, row: int) -> str:
        """Return the posix path of a picture relative to the data root."""
        return str(self.table.column("image_path")[row].as_py())

    def boxes_xyxy(self, row: int) -> FloatArray:
        """Return the boxes of a picture, (N, 4) float32 pixels, as an array of their own."""
        values = self.table.column("boxes_xyxy")[row].values
        return np.array(values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)

    def box_codes(self, row: int) -> list[str]:
        """Return the class key of each box of a picture."""
        return list(self.table.column("box_codes")[row].as_py())

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Records:
        """Return the pictures chosen by a boolean mask or by row numbers."""
        mask = np.asarray(rows)
        indices = np.flatnonzero(mask) if mask.dtype == np.bool_ else mask
        return Records(self.table.take(pa.array(indices, pa.int64())))

    def write(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write an Arrow IPC file atomically; `metadata` travels in its schema.

        Raises:
            PillError: It cannot be written.
        """
        table = self.table.replace_schema_metadata(metadata or {})
        with (
            atomic_path(path) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)

    @classmethod
    def read(cls, path: Path) -> tuple[Records, dict[str, str]]:
        """Memory-map a file written by `write`; return the records and the metadata."""
        with pa.memory_map(str(path), "r") as source:
            table = pa.ipc.open_file(source).read_all()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return cls(table.replace_schema_metadata(None)), metadata


@dataclass(frozen=True)
class Scan:
    """What a reader found below a data root."""

    records: Records
    problems: list[Problem] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # class key -> drug name, where the labels tell
