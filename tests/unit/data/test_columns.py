from __future__ import annotations

import numpy as np
import pytest

from pillsnap.data import columns
from pillsnap.data.records import Picture, Records

pytestmark = pytest.mark.req("DAT-1")


def _records() -> Records:
    codes: list[tuple[str | None, list[str]]] = [("b", ["b"]), (None, ["a", "b"]), ("a", []), (None, [])]
    return Records.from_pictures(
        Picture(
            image_path=f"{number}.png", task="single" if code else "combo", code=code, group="g", source="yolo",
            part="", width=9, height=9, boxes_xyxy=[(0, 0, 1, 1)] * len(boxes), box_codes=boxes,
        )
        for number, (code, boxes) in enumerate(codes)
    )  # fmt: skip


def test_a_text_column_becomes_numbers_and_a_null_has_none() -> None:
    encoded = columns.encode(_records(), "code")
    assert encoded.values == ["b", "a"]
    assert encoded.numbers.tolist() == [0, columns.ABSENT, 1, columns.ABSENT]


def test_box_codes_come_with_where_each_row_begins() -> None:
    encoded, offsets = columns.encode_box_codes(_records())
    assert [encoded.values[number] for number in encoded.numbers] == ["b", "a", "b"]
    assert offsets.tolist() == [0, 1, 3, 3, 3]


def test_texts_are_looked_up_in_a_given_order() -> None:
    assert columns.find(_records(), "code", ["a", "z"]).tolist() == [-1, -1, 0, -1]
    assert columns.find_box_codes(_records(), ["a", "b"])[0].tolist() == [1, 0, 1]


def test_a_null_equals_nothing() -> None:
    assert columns.equals(_records(), "code", "b").tolist() == [True, False, False, False]


def test_boxes_are_counted_and_lists_added_up() -> None:
    assert columns.num_boxes(_records()).tolist() == [1, 2, 0, 0]
    assert columns.sums_of_lists(np.array([1, 2, 3]), np.array([0, 1, 3, 3])).tolist() == [1, 5, 0]


def test_a_table_without_rows_has_empty_columns() -> None:
    records = Records.from_pictures([])
    assert columns.encode(records, "code").values == []
    assert len(columns.num_boxes(records)) == len(columns.equals(records, "task", "single")) == 0


def test_numbers_become_texts() -> None:
    assert columns.texts(["x", "y"], np.array([1, 0, 1])).to_pylist() == ["y", "x", "y"]
