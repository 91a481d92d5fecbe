"""The batches a search runs: real samples, as many boxes as any batch of training can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.batches import ClassificationBatch, DetectionBatch
from pillsnap.data.datasets import DetectionPictures
from pillsnap.data.images import RgbImage
from pillsnap.data.pixels import DetectorParts
from pillsnap.errors import BrokenImageError, DataError
from pillsnap.training.worst_case import NUM_SAMPLES, hardest_training_batch, validation_batch
from tests.run.tiny import tiny_config
from tests.run.tiny_tasks import TinyTasks, build_tiny_tasks

Build = Callable[..., TinyTasks]


@pytest.fixture
def build(data_root: Path, tmp_path: Path) -> Build:
    """Return a function that builds both tasks from the tiny configuration and overrides."""
    return lambda *words: build_tiny_tasks(tiny_config(tmp_path / "exp", data_root, *words))


def _pictures(bench: TinyTasks) -> DetectionPictures:
    pictures = bench.detection.train_loader.dataset.pictures  # type: ignore[attr-defined]
    assert isinstance(pictures, DetectionPictures)
    return pictures


def _densest(bench: TinyTasks) -> int:
    pictures = _pictures(bench)
    return max(len(pictures.records.boxes_xyxy(int(row))) for row in pictures.rows)


@pytest.mark.req("BAT-3")
@pytest.mark.parametrize(
    ("words", "photographs"),
    [
        ((), 4),
        (("train.detection.augment.mixup=0.1",), 8),
        (("train.detection.augment.mosaic=0",), 1),
        (("train.detection.augment.close_mosaic_epochs=2",), 1),
    ],
    ids=["mosaic", "mixup of mosaics", "no mosaic", "mosaic closed from the start"],
)
def test_every_picture_has_the_boxes_of_the_densest_photographs_that_can_meet_in_one(
    build: Build, words: tuple[str, ...], photographs: int
) -> None:
    bench = build(*words)
    batch = hardest_training_batch(bench.detection, 7)
    assert isinstance(batch, DetectionBatch)
    assert [len(sample.boxes_cxcywh_norm) for sample in batch.samples] == [photographs * _densest(bench)] * 7
    assert {sample.boxes_cxcywh_norm.dtype for sample in batch.samples} == {np.dtype(np.float32)}


@pytest.mark.req("BAT-3")
def test_the_samples_are_the_tasks_own_repeated(build: Build) -> None:
    bench = build()
    batch = hardest_training_batch(bench.classification, 10)
    assert isinstance(batch, ClassificationBatch)
    assert tuple(batch.images_BCHW.shape) == (10, 3, 32, 32)
    first = bench.classification.train_loader.dataset[(0, 0, 0)]
    assert batch.sample_ids[0] == first.sample_id
    assert (batch.images_BCHW[0] == first.image_CHW).all()
    assert batch.sample_ids[NUM_SAMPLES:] == [batch.sample_ids[index % NUM_SAMPLES] for index in range(NUM_SAMPLES, 10)]


@pytest.mark.req("BAT-3")
def test_validation_samples_come_from_the_val_split(build: Build) -> None:
    bench = build()
    batch = validation_batch(bench.detection, 3)
    assert isinstance(batch, DetectionBatch)
    assert len(batch) == 3
    assert all(sample.letterbox is not None for sample in batch.samples)
    bench.detection.val_loader = None
    assert validation_batch(bench.detection, 3) is None


def test_pictures_that_cannot_be_decoded_are_passed_over(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build("train.detection.augment.mosaic=0")
    decode, tried = DetectorParts.pixels, []

    def sometimes(self: DetectorParts, position: int) -> RgbImage:
        tried.append(position)
        if len(tried) <= 2:
            raise BrokenImageError("truncated", "truncated_image")
        return decode(self, position)

    monkeypatch.setattr(DetectorParts, "pixels", sometimes)
    assert len(hardest_training_batch(bench.detection, 5)) == 5
    assert len(tried) == 2 + NUM_SAMPLES
    pictures = _pictures(bench)
    counts = [len(pictures.records.boxes_xyxy(int(pictures.rows[position]))) for position in tried]
    assert counts == sorted(counts, reverse=True), "the densest first"


def test_without_a_picture_that_can_be_decoded_it_says_so(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build()

    def broken(self: DetectorParts, position: int) -> RgbImage:
        raise BrokenImageError("a.png is truncated.")

    monkeypatch.setattr(DetectorParts, "pixels", broken)
    num_pictures = len(_pictures(bench))
    with pytest.raises(DataError, match=rf"None of the {num_pictures} pictures .* First: a.png is truncated. Run"):
        hardest_training_batch(bench.detection, 5)


def test_a_picture_without_boxes_is_given_some(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build("train.detection.augment.mosaic=0")
    monkeypatch.setattr(DetectionPictures, "boxes_norm", lambda self, position, size_wh: np.zeros((0, 4), np.float32))
    batch = hardest_training_batch(bench.detection, 2)
    assert isinstance(batch, DetectionBatch)
    assert [len(sample.boxes_cxcywh_norm) for sample in batch.samples] == [_densest(bench)] * 2
