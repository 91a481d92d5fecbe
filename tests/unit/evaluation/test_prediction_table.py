"""The table of predictions comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pillsnap.errors import DataError
from pillsnap.evaluation.prediction_table import PredictionTable, read_predictions, write_predictions

pytestmark = pytest.mark.req("VAL-1")


def table_of_three() -> PredictionTable:
    return PredictionTable(
        sample_id=["18446744073709551615", "7", "7"],
        image_path=["단일/a.png", "b.png", "b.png"],
        group=["g1", "g2", "g2"],
        box=np.array([-1, 0, 1], np.int32),
        true_code=["K-1", "K-2", "K-9"],
        pred_code=["K-1", "K-1", "K-2"],
        confidence=np.array([0.9, 0.4, 0.3], np.float32),
        score=np.array([2.5, -1.0, -3.0], np.float32),
        accepted=np.array([True, False, False]),
        rank=np.array([0, 1, -1], np.int32),
        top5_codes=[["K-1", "K-2"], ["K-1", "K-2"], ["K-2", "K-1"]],
        top5_confidences=[[0.9, 0.1], [0.4, 0.25], [0.3, 0.25]],
    )


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = table_of_three()
    write_predictions(tmp_path / "predictions_val.arrow", table)
    found = read_predictions(tmp_path / "predictions_val.arrow")
    for field in fields(PredictionTable):
        wanted, got = getattr(table, field.name), getattr(found, field.name)
        assert np.allclose(wanted, got) if field.name == "top5_confidences" else np.array_equal(wanted, got)
    assert found.confidence.flags.writeable  # an array of its own, not a map of the file


def test_an_empty_table_comes_back(tmp_path: Path) -> None:
    table = table_of_three()
    empty = PredictionTable(**{field.name: getattr(table, field.name)[:0] for field in fields(PredictionTable)})
    write_predictions(tmp_path / "p.arrow", empty)
    assert len(read_predictions(tmp_path / "p.arrow")) == 0


def test_unknown_drugs_are_never_right() -> None:
    table = table_of_three()
    assert table.is_right.tolist() == [True, False, False]
    assert table.is_known.tolist() == [True, True, False]


def test_other_readers_see_the_columns(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.arrow", table_of_three())
    with pa.ipc.open_file(tmp_path / "p.arrow") as reader:
        assert reader.read_all().column("pred_code").to_pylist() == ["K-1", "K-1", "K-2"]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of different length: .*'box': 2"):
        replace(table_of_three(), box=np.array([0, 1], np.int32))


@pytest.mark.parametrize("content", [b"", b"ARROW1 but nothing more"], ids=["empty", "damaged"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.arrow cannot be read: .*; wanted a table of predictions"):
        read_predictions(tmp_path / "p.arrow")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"p\.arrow cannot be read: .*No such file"):
        read_predictions(tmp_path / "p.arrow")


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = pa.table({"a": [1]})
    with pa.ipc.new_file(tmp_path / "p.arrow", other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(DataError, match=r"holds the columns \['a'\]; wanted \['sample_id'"):
        read_predictions(tmp_path / "p.arrow")
