"""Whole columns of the picture table as small arrays, for work on millions of rows without a Python object a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pillsnap.data.records import Records

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
ABSENT = -1  # number of a null, or of a value that is not among those looked for


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text column as numbers: `values[numbers[row]]` is the text of a row; a null has the number `ABSENT`."""

    numbers: NDArray[np.int32]
    values: list[str]


def encode(records: Records, name: str) -> Encoded:
    """Return a text column as numbers; the values come in the order in which the rows first show them."""
    return _encode(array_of(records, name))


def encode_box_codes(records: Records) -> tuple[Encoded, NDArray[np.int64]]:
    """Return the class keys of all boxes as numbers, and where those of each row begin, (N + 1,)."""
    lists = array_of(records, "box_codes")
    return _encode(lists.values), _offsets(lists)


def equals(records: Records, name: str, value: str) -> Mask:
    """Tell which rows have `value` in a text column, (N,)."""
    return _to_mask(pc.equal(array_of(records, name), pa.scalar(value)))


def find(records: Records, name: str, values: Sequence[str]) -> NDArray[np.int32]:
    """Return the place in `values` of each row's text, (N,); `ABSENT` for a null and for a text that is not there."""
    return _find(array_of(records, name), values)


def find_box_codes(records: Records, values: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the place in `values` of each box's class key, and where the boxes of each row begin, (N + 1,)."""
    lists = array_of(records, "box_codes")
    return _find(lists.values, values), _offsets(lists)


def num_boxes(records: Records) -> NDArray[np.int64]:
    """Return how many boxes each row has, (N,)."""
    return np.diff(_offsets(array_of(records, "boxes_xyxy"))) // 4


def sums_of_lists(values: NDArray[np.generic], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up `values` list by list, (N,), where list i is `values[offsets[i]:offsets[i + 1]]`."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]], np.int64)


def texts(values: Sequence[str], numbers: NDArray[np.integer[Any]]) -> pa.Array:
    """Return the text `values[number]` for each of `numbers`, as an Arrow array."""
    return pa.array(values, pa.string()).take(pa.array(numbers))


def array_of(records: Records, name: str) -> pa.Array:
    """Return a column in one piece."""
    column = records.table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _encode(array: pa.Array) -> Encoded:
    encoded = array.dictionary_encode()
    return Encoded(_to_numbers(encoded.indices), encoded.dictionary.to_pylist())


def _find(array: pa.Array, values: Sequence[str]) -> NDArray[np.int32]:
    return _to_numbers(pc.index_in(array, value_set=pa.array(values, pa.string())))


def _offsets(lists: pa.Array) -> NDArray[np.int64]:
    return np.asarray(lists.offsets.to_numpy(), np.int64)


def _to_numbers(array: pa.Array) -> NDArray[np.int32]:
    return np.asarray(array.fill_null(ABSENT).to_numpy(zero_copy_only=False), np.int32)


def _to_mask(array: pa.Array) -> Mask:
    return np.asarray(array.fill_null(False).to_numpy(zero_copy_only=False), bool)
