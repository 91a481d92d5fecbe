"""Samples of both tasks out of the picture table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pillsnap.data.batches import Broken, ClassificationSample, DetectionSample
from pillsnap.data.classes import ClassMap
from pillsnap.data.datasets import (
    ClassificationDataset,
    ClassificationEvaluationDataset,
    DetectionEvaluationDataset,
    DetectionPictures,
    DetectionTrainingDataset,
)
from pillsnap.data.items import NO_BOX, classification_items
from pillsnap.data.originals import Originals
from pillsnap.data.pixels import DetectorParts, EvaluationParts
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.records import Picture, Records
from pillsnap.models.detector_yolo11m import detection_label, training_transforms
from tests.builders import write_image

SPEC = ClassifierInput(size_px=16, mean=(0.5,) * 3, std=(0.5,) * 3, frame_fit="letterbox")
AUGMENT = {
    "hsv_h": 0.0, "hsv_s": 0.5, "hsv_v": 0.5, "degrees": 0.0, "translate": 0.1, "scale": 0.5,
    "fliplr": 0.5, "flipud": 0.0, "mixup": 0.0, "mosaic": 1.0,
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index, name in enumerate(["a.png", "b.png", "c.png", "d.png"]):
        write_image(tmp_path / name, seed=index)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    return tmp_path


def _picture(path: str, task: str, code: str | None, boxes: int) -> Picture:
    box = (10.0, 20.0, 50.0, 70.0)
    codes = [code or "x", "y", "x"][:boxes]
    return Picture(
        image_path=path, task=task, code=code, group=path, source="yolo", part="", width=96, height=128,
        boxes_xyxy=[box] * boxes, box_codes=codes,
    )  # fmt: skip


def _records() -> Records:
    return Records.from_pictures(
        [
            _picture("a.png", "single", "x", 1),
            _picture("b.png", "single", "y", 0),
            _picture("c.png", "combo", None, 3),
            _picture("d.png", "single", "scenery", 1),
            _picture("broken.png", "single", "x", 1),
        ]
    )


def _class_map(records: Records) -> ClassMap:
    return ClassMap.from_records(records, {}, frozenset({"scenery"}))


@pytest.mark.req("DAT-5", "DAT-7")
def test_items_are_single_pictures_and_the_crops_of_combos() -> None:
    records = _records()
    items = classification_items(records, np.arange(5), _class_map(records))
    paths = [records.image_path(int(row)) for row in items.rows]
    assert list(zip(paths, items.box_numbers.tolist(), items.labels.tolist(), strict=True)) == [
        ("a.png", 0, 0), ("b.png", NO_BOX, 1), ("broken.png", 0, 0), ("c.png", 0, 0), ("c.png", 1, 1), ("c.png", 2, 0),
    ]  # fmt: skip


def _classification(root: Path) -> ClassificationDataset:
    records = _records()
    items = classification_items(records, np.arange(5), _class_map(records))
    return ClassificationEvaluationDataset(EvaluationParts(Originals(records, root), items, SPEC, "frame", 0.1))


@pytest.mark.req("DAT-2")
def test_a_classification_sample_is_a_uint8_view_with_its_label(root: Path) -> None:
    sample = _classification(root)[(0, 1, 0)]
    assert isinstance(sample, ClassificationSample)
    assert sample.image_CHW.shape == (3, 16, 16)
    assert sample.image_CHW.dtype is torch.uint8
    assert sample.label == 1


@pytest.mark.req("DAT-2")
def test_a_broken_picture_comes_back_by_name_in_both_tasks(root: Path) -> None:
    broken = _classification(root)[(0, 2, 0)]
    assert isinstance(broken, Broken)
    assert broken.image_path == "broken.png"
    assert isinstance(_training(root)[(0, 2, 0)], Broken)


@pytest.mark.req("DAT-7")
def test_a_combos_pill_is_cropped_even_where_singles_are_seen_whole(root: Path) -> None:
    dataset = _classification(root)
    crop, whole = dataset[(0, 3, 0)], dataset[(0, 0, 0)]
    assert isinstance(crop, ClassificationSample)
    assert isinstance(whole, ClassificationSample)
    assert (whole.image_CHW[:, :, 0] == 114).all(), "a letterboxed frame has a margin"
    assert not (crop.image_CHW[:, :, 0] == 114).all()


def _pictures(root: Path) -> DetectionPictures:
    parts = DetectorParts(Originals(_records(), root), np.arange(5), 64, is_training=True)
    return DetectionPictures(parts, detection_label)


def _training(root: Path) -> DetectionTrainingDataset:
    pictures = _pictures(root)
    mosaic = training_transforms(pictures, 64, AUGMENT, mosaic=True)
    plain = training_transforms(pictures, 64, AUGMENT, mosaic=False)
    return DetectionTrainingDataset(pictures, mosaic, plain, mosaic_epochs=1, seed=3)


def test_augmentation_belongs_to_the_sample_and_the_epoch(root: Path) -> None:
    dataset = _training(root)
    first, other = dataset[(0, 3, 0)], dataset[(0, 0, 0)]
    again, later = dataset[(0, 3, 0)], dataset[(1, 3, 0)]
    samples = [first, other, again, later]
    assert all(isinstance(sample, DetectionSample) for sample in samples)
    images = [s.image_CHW for s in samples if isinstance(s, DetectionSample) and s.image_CHW is not None]
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[3])
    assert images[0].shape == (3, 64, 64)


def test_a_broken_mosaic_partner_is_grey_and_without_pills(root: Path) -> None:
    label = _pictures(root).get_image_and_label(2)
    assert (label["img"] == 114).all()
    assert len(label["cls"]) == 0


def test_evaluation_keeps_the_way_back_to_the_photograph(root: Path) -> None:
    sample = DetectionEvaluationDataset(_pictures(root))[(0, 0, 0)]
    assert isinstance(sample, DetectionSample)
    assert sample.letterbox is not None
    pixels = sample.boxes_cxcywh_norm * 64
    corners = np.concatenate([pixels[:, :2] - pixels[:, 2:] / 2, pixels[:, :2] + pixels[:, 2:] / 2], axis=1)
    np.testing.assert_allclose(sample.letterbox.to_image(corners), [[10, 20, 50, 70]], atol=0.01)
