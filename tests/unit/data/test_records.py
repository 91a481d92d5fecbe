from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.index_records import synthesise
from benchmarks.index_workers import read_rows, some_rows, worker_growth
from pillsnap.data.records import SCHEMA, Picture, Problem, Problems, Records, sample_id_of, sorted_by, table_of

pytestmark = pytest.mark.req("DAT-3", "DAT-4")

SINGLE = Picture("b/1.png", "single", "K-1", "K-1|0", "aihub576", "train", 96, 128, [(1, 2, 3.5, 4)], ["K-1"])
COMBO = Picture(
    "a/2.png", "combo", None, "K-1-2", "aihub576", "", 976, 1280, [(0, 0, 9, 9), (5, 5, 7, 7)], ["K-1", "약"]
)
BARE = Picture("c/3.png", "single", "K-3", "g", "folders", "val", 10, 20)


def test_rows_come_by_path_with_every_column() -> None:
    records = Records.from_pictures([SINGLE, BARE, COMBO])
    rows = records.table.to_pylist()
    assert [row["image_path"] for row in rows] == ["a/2.png", "b/1.png", "c/3.png"]
    for row, picture in zip(rows, (COMBO, SINGLE, BARE), strict=True):
        boxes = [value for box in picture.boxes_xyxy for value in box]
        assert row == picture._asdict() | {
            "sample_id": sample_id_of(picture.image_path),
            "boxes_xyxy": boxes,
            "box_codes": list(picture.box_codes),
        }


def test_single_values_are_those_of_the_table() -> None:
    records = Records.from_pictures([SINGLE, COMBO])
    assert (records.image_path(0), records.sample_id(1)) == ("a/2.png", sample_id_of("b/1.png"))
    np.testing.assert_array_equal(records.boxes_xyxy(0), [[0, 0, 9, 9], [5, 5, 7, 7]])
    assert records.box_codes(0) == ["K-1", "약"]


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="record table has columns"):
        Records(pa.table({"a": [1]}))


def test_no_pictures_are_an_empty_table() -> None:
    assert len(Records.from_pictures([])) == 0
    assert table_of([]).schema == SCHEMA


def test_records_read_from_a_file_are_sent_as_its_path(tmp_path: Path) -> None:
    records = Records.from_table(synthesise(2000))
    records.write(tmp_path / "records.arrow", {"a": 1})
    mapped, metadata = Records.read(tmp_path / "records.arrow")
    content = pickle.dumps(mapped)
    assert len(content) < 1000
    assert pickle.loads(content).table.equals(records.table)
    assert metadata == {"a": 1}


def test_records_in_memory_are_sent_whole() -> None:
    records = Records.from_pictures([SINGLE, COMBO])
    assert pickle.loads(pickle.dumps(records)).table.equals(records.table)
    assert pickle.loads(pickle.dumps(records.select(np.array([1])))).image_path(0) == "b/1.png"


def test_problems_are_a_sequence() -> None:
    problems = [Problem("a", "1", "x"), Problem("b", "2", "y"), Problem("b", "3", "z")]
    table = Problems.of(problems)
    assert (list(table), len(table), table[1], table[1:]) == (problems, 3, problems[1], problems[1:])
    assert table == problems
    assert table != problems[:2]
    assert repr(table) == repr(problems)


def test_sorting_keeps_the_order_of_equal_rows() -> None:
    table = pa.table({"key": ["b", "a", "b", "a"], "number": [0, 1, 2, 3]})
    assert sorted_by(table, "key").column("number").to_pylist() == [1, 3, 0, 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_epoch_of_reads_leaves_a_worker_as_small_as_it_was(tmp_path: Path, method: str) -> None:
    path = tmp_path / "records.arrow"
    Records.from_table(synthesise(500_000)).write(path)
    checksum, growth = worker_growth(path, method, 200_000)
    records, _ = Records.read(path)
    assert checksum == read_rows(records, some_rows(records, 200_000))
    assert growth < 15e6  # half of what 2.6 million may cost
