"""What the classifier answered for every pill of a split: `reports/predictions_<split>.arrow`.

One row a pill. Everything that is told about single answers later (calibration, refusal, hard cases, comparing two
runs) reads this file, so no model has to run again. The file is Arrow's own (`pyarrow.ipc`, also read by pandas, R and
DuckDB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path
from pillsnap.errors import DataError

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("image_path", pa.string()),
        ("group", pa.string()),
        ("box", pa.int32()),
        ("true_code", pa.string()),
        ("pred_code", pa.string()),
        ("confidence", pa.float32()),
        ("score", pa.float32()),
        ("accepted", pa.bool_()),
        ("rank", pa.int32()),
        ("top5_codes", pa.list_(pa.string())),
        ("top5_confidences", pa.list_(pa.float32())),
    ]
)
UNKNOWN_RANK = -1
"""The rank of a drug the model was not trained on: it is not among its classes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionTable:
    """N answers as parallel columns, named as in the file.

    Raises:
        ValueError: Columns of different length.
    """

    sample_id: Sequence[str]
    """Id of the picture, as text: it has 64 bits, more than other readers' numbers hold."""
    image_path: Sequence[str]
    """Relative to the data root."""
    group: Sequence[str]
    """Pictures of the same shot, which are not independent; the unit that is resampled for intervals."""
    box: NDArray[np.int32]
    """Number of the pill's box in the picture's labels; -1 for the whole frame."""
    true_code: Sequence[str]
    pred_code: Sequence[str]
    """The most probable drug, also where it was refused."""
    confidence: NDArray[np.float32]
    """Calibrated probability of `pred_code`, 0..1."""
    score: NDArray[np.float32]
    """Acceptance score: higher means more sure that the answer is right and the drug known."""
    accepted: NDArray[np.bool_]
    """Whether the drug was named; otherwise the answer was "unknown"."""
    rank: NDArray[np.int32]
    """How many classes came before the true one; -1 for drugs the model does not know."""
    top5_codes: Sequence[Sequence[str]]
    """Most probable first; fewer where the model has fewer classes."""
    top5_confidences: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        lengths = {name: len(getattr(self, name)) for name in SCHEMA.names}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"a table of predictions has columns of different length: {lengths}; wanted one value a pill in each. "
                "Build them from the same predictions."
            )

    def __len__(self) -> int:
        """Return the number of pills."""
        return len(self.box)

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Which answers name the true drug, (N,); never true for drugs the model does not know."""
        return np.equal(self.rank, 0)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which pills show a drug the model was trained on, (N,)."""
        return np.not_equal(self.rank, UNKNOWN_RANK)


def write_predictions(path: Path, table: PredictionTable) -> None:
    """Write the table atomically; the folder must exist.

    Raises:
        PillError: The file cannot be written.
    """
    columns = [pa.array(getattr(table, field.name), field.type) for field in SCHEMA]
    content = pa.Table.from_arrays(columns, schema=SCHEMA)
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):
        writer.write_table(content)


def read_predictions(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote.

    Raises:
        DataError: The file is missing, damaged, or holds other columns.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            content = reader.read_all()
            content.validate(full=True)
            found = _columns(content, path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read: {error}; wanted a table of predictions. Judging the experiment again writes it."
        ) from error
    return PredictionTable(**found)


def _columns(content: pa.Table, path: Path) -> dict[str, Any]:
    """Return the columns as `PredictionTable` takes them: numbers as arrays of their own, texts as lists."""
    if not content.schema.equals(SCHEMA):
        raise DataError(
            f"{path} holds the columns {content.schema.names}; wanted {SCHEMA.names}. It was written by another "
            "version: judge the experiment again."
        )
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(PredictionTable)):
        column = content.column(name).combine_chunks()
        is_number = not (pa.types.is_string(column.type) or pa.types.is_list(column.type))
        columns[name] = np.array(column.to_numpy(zero_copy_only=False)) if is_number else column.to_pylist()
    return columns
