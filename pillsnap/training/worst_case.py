"""The hardest batches a task can be given, made of real samples: for finding out what fits before it has to.

A few samples are decoded once and repeated. What a step of the classifier needs does not depend on its samples; the
detector's loss needs memory for every box of the photograph with most boxes, in every photograph of a slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pillsnap.data.batches import Batch, Broken, DetectionSample, Sample, safe_collate
from pillsnap.data.datasets import DetectionTrainingDataset
from pillsnap.data.loaders import Loader
from pillsnap.errors import DataError
from pillsnap.training.task import Task

NUM_SAMPLES = 4  # decoded; a photograph of 12 megapixels takes a tenth of a second
PHOTOGRAPHS_IN_MOSAIC = 4
PHOTOGRAPHS_IN_MIXUP = 2
SOME_BOX = np.array([[0.5, 0.5, 0.2, 0.2]], np.float32)


def hardest_training_batch(task: Task, num_samples: int) -> Batch:
    """Return a batch of training samples that needs as much memory as any the task's loader can yield.

    Args:
        task: Its training set is looked at.
        num_samples: In the batch.

    Raises:
        DataError: Not one picture of the training set can be decoded.
    """
    dataset = task.train_loader.dataset
    if not isinstance(dataset, DetectionTrainingDataset):
        return _batch(_decoded(task.train_loader, range(_length(task.train_loader))), num_samples)
    counts = _box_counts(dataset)
    by_density = np.argsort(-counts, kind="stable")
    num_boxes = int(counts.max()) * _most_photographs_in_one(task, dataset)
    samples = _decoded(task.train_loader, (int(position) for position in by_density))
    return _batch([_with_boxes(sample, num_boxes) for sample in samples], num_samples)


def validation_batch(task: Task, num_samples: int) -> Batch | None:
    """Return a batch of validation samples; None for a task without validation.

    Raises:
        DataError: Not one picture of the val split can be decoded.
    """
    if task.val_loader is None:
        return None
    return _batch(_decoded(task.val_loader, range(_length(task.val_loader))), num_samples)


def _box_counts(dataset: DetectionTrainingDataset) -> NDArray[np.int64]:
    pictures = dataset.pictures
    lengths = pc.list_value_length(pictures.records.table.column("boxes_xyxy")).to_numpy()
    return np.asarray(lengths[pictures.rows] // 4, np.int64)


def _most_photographs_in_one(task: Task, dataset: DetectionTrainingDataset) -> int:
    augment = task.cfg.train.detection.augment
    if dataset.mosaic_epochs <= 0:
        return 1
    num_photographs = PHOTOGRAPHS_IN_MOSAIC if augment.mosaic > 0 else 1
    return num_photographs * (PHOTOGRAPHS_IN_MIXUP if augment.mixup > 0 else 1)


def _with_boxes(sample: Sample, num_boxes: int) -> DetectionSample:
    assert isinstance(sample, DetectionSample)
    own = sample.boxes_cxcywh_norm if len(sample.boxes_cxcywh_norm) else SOME_BOX
    # Augmentation may have moved boxes out of the picture or, with copies, brought more than expected.
    return replace(sample, boxes_cxcywh_norm=np.resize(own, (max(num_boxes, len(own)), 4)).astype(np.float32))


def _decoded(loader: Loader, positions: Iterable[int]) -> list[Sample]:
    """Return the first few samples of the loader's data set, in the order of `positions`, that can be decoded."""
    samples: list[Sample] = []
    broken: list[Broken] = []
    with _one_opencv_thread():
        for position in positions:
            sample = loader.dataset[(0, position, 0)]
            if isinstance(sample, Broken):
                broken.append(sample)
                continue
            samples.append(sample)
            if len(samples) == NUM_SAMPLES:
                break
    if not samples:
        example = broken[0].reason if broken else "the data set is empty"
        raise DataError(
            f"None of the {len(broken)} pictures to find a micro-batch with could be decoded, at least one is needed. "
            f"First: {example} Run `pillsnap data check` on the data set."
        )
    return samples


def _batch(samples: Sequence[Sample], num_samples: int) -> Batch:
    batch = safe_collate([samples[index % len(samples)] for index in range(num_samples)])
    assert not isinstance(batch, list)
    return batch


def _length(loader: Loader) -> int:
    return len(loader.dataset)  # type: ignore[arg-type]  # torch's Dataset promises no length; ours have one


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Decode without OpenCV's thread pool: loader workers are forked later, and a forked pool hangs."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
