"""Which training pills are kept to compare with, and that pills are measured where they are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.images import decode_rgb
from pillsnap.data.items import ClassificationItems, classification_items
from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation import looks
from pillsnap.evaluation.looks import describe_items, reference_items
from pillsnap.inference.appearance import MAX_REFERENCES, NUM_FEATURES, describe
from tests.unit.evaluation.looks_case import build_painted_data, settings_of

pytestmark = pytest.mark.req("FIN-3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TwoStageData:
    return build_painted_data(tmp_path_factory.mktemp("data"))


def combo_pills(data: TwoStageData) -> ClassificationItems:
    rows = np.arange(len(data.records))
    return classification_items(data.records, rows, data.class_map, ("combo",))


@pytest.mark.parametrize("limit", [1, 5, MAX_REFERENCES])
def test_a_drug_has_no_more_references_than_the_limit(
    data: TwoStageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(looks, "MAX_REFERENCES", limit)
    cfg = settings_of(data, tmp_path, "data.classification.combo_crops=true")
    found = reference_items(data, cfg)
    there = classification_items(data.records, data.rows("train"), data.class_map)
    assert np.bincount(found.labels).tolist() == np.minimum(np.bincount(there.labels), limit).tolist()
    assert set(found.rows.tolist()) <= set(data.rows("train").tolist())


def test_single_pictures_come_first_among_the_references_of_a_drug(data: TwoStageData, tmp_path: Path) -> None:
    found = reference_items(data, settings_of(data, tmp_path, "data.classification.combo_crops=true"))
    tasks = np.array(data.records.table.column("task").to_pylist())[found.rows]
    is_combo = tasks == "combo"
    assert is_combo.any()
    for label in np.unique(found.labels):
        own = is_combo[found.labels == label].tolist()
        assert own == sorted(own)


def test_without_crops_of_combinations_references_are_single_pictures(data: TwoStageData, tmp_path: Path) -> None:
    found = reference_items(data, settings_of(data, tmp_path, "data.classification.combo_crops=false"))
    assert set(np.array(data.records.table.column("task").to_pylist())[found.rows]) == {"single"}


def test_a_pill_of_a_combination_is_measured_in_its_box(data: TwoStageData, tmp_path: Path) -> None:
    pills = combo_pills(data).take(np.arange(4))
    found = describe_items(data, pills, settings_of(data, tmp_path), "center")
    for row, number, features in zip(pills.rows.tolist(), pills.box_numbers.tolist(), found, strict=True):
        image = decode_rgb(data.root / data.records.image_path(row))
        np.testing.assert_array_equal(features, describe(image, data.records.boxes_xyxy(row)[number], "center"))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("view", ["frame", "box"])
def test_a_single_pill_is_looked_for_where_the_classifier_sees_the_frame(
    data: TwoStageData, tmp_path: Path, view: str
) -> None:
    (row,) = data.evaluation_items("val", "frame").rows[:1].tolist()
    items = ClassificationItems(np.array([row]), np.array([0]), np.array([0]))
    cfg = settings_of(data, tmp_path, f"data.classification.eval_view={view}")
    image = decode_rgb(data.root / data.records.image_path(row))
    box = None if view == "frame" else data.records.boxes_xyxy(row)[0]
    (found,) = describe_items(data, items, cfg, "letterbox")
    np.testing.assert_array_equal(found, describe(image, box, "letterbox"))


def test_a_broken_picture_has_no_looks_and_stops_nothing(data: TwoStageData, tmp_path: Path) -> None:
    items = data.evaluation_items("val", "frame").take(np.arange(3))
    path = data.root / data.records.image_path(int(items.rows[1]))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    try:
        found = describe_items(data, items, settings_of(data, tmp_path), "letterbox")
    finally:
        path.write_bytes(content)
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(found[1]).all()


def test_no_pills_have_no_looks(data: TwoStageData, tmp_path: Path) -> None:
    none = data.evaluation_items("val", "frame").take(np.arange(0))
    assert describe_items(data, none, settings_of(data, tmp_path), "center").shape == (0, NUM_FEATURES)
