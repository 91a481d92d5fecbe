"""Batches: what collating does with broken pictures, and how a batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pillsnap.data.batches import (
    Broken,
    ClassificationBatch,
    ClassificationSample,
    DetectionBatch,
    DetectionSample,
    channels_first,
    safe_collate,
)

pytestmark = pytest.mark.req("DAT-2")


def _classification(number: int) -> ClassificationSample:
    return ClassificationSample(torch.full((3, 2, 2), number, dtype=torch.uint8), number, 100 + number)


def _detection(number: int, num_boxes: int) -> DetectionSample:
    return DetectionSample(
        torch.zeros(3, 4, 4, dtype=torch.uint8), np.full((num_boxes, 4), number / 10, np.float32), number, number
    )


def test_broken_pictures_are_left_out_and_counted() -> None:
    batch = safe_collate([_classification(1), Broken("a.png", "cut"), _classification(2)])
    assert isinstance(batch, ClassificationBatch)
    assert batch.labels_B.tolist() == [1, 2]
    assert batch.sample_ids == [101, 102]
    assert [broken.image_path for broken in batch.broken] == ["a.png"]


def test_a_batch_of_nothing_but_broken_pictures_is_their_list() -> None:
    broken = [Broken("a.png", "cut"), Broken("b.png", "empty")]
    assert safe_collate(broken) == broken


def test_slices_cover_the_batch_once_with_a_ragged_last_one() -> None:
    batch = safe_collate([_classification(number) for number in range(7)])
    assert isinstance(batch, ClassificationBatch)
    parts = list(batch.slices(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [label for part in parts for label in part.labels_B.tolist()] == list(range(7))


def test_detection_targets_number_the_pictures_of_a_slice() -> None:
    batch = safe_collate([_detection(1, 2), _detection(2, 0), _detection(3, 1)])
    assert isinstance(batch, DetectionBatch)
    whole = batch.targets(torch.device("cpu"))
    assert whole["batch_idx"].tolist() == [0, 0, 2]
    assert whole["bboxes"].shape == (3, 4)
    last = list(batch.slices(2))[1].targets(torch.device("cpu"))
    assert last["batch_idx"].tolist() == [0]
    assert last["bboxes"][0, 0] == pytest.approx(0.3)


def test_channels_first_owns_its_memory() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    tensor = channels_first(pixels)
    pixels[:] = 9
    assert tensor.shape == (3, 2, 3)
    assert int(tensor.sum()) == 0
