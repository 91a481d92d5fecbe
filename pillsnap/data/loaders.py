"""Loaders of both tasks. A batch is the G samples of one optimizer step; its order is a pure function of the epoch."""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Sampler

from pillsnap.config.loading import for_task
from pillsnap.data.batches import safe_collate
from pillsnap.data.classes import ClassMap
from pillsnap.data.datasets import (
    ClassificationDataset,
    DetectionEvaluationDataset,
    DetectionPictures,
    DetectionTrainingDataset,
    EvaluationView,
    Key,
    TrainingView,
)
from pillsnap.data.items import ClassificationItems, classification_items
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.randomness import epoch_order
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.data.transforms import Augmentation
from pillsnap.data.twostage import TwoStageData, is_training_over, load_data
from pillsnap.memory import lift_address_space_limit
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model
from pillsnap.models.classifier_efficientnetv2_s import classifier_input as input_of
from pillsnap.models.detector_yolo11m import detection_label, training_transforms

logger = logging.getLogger("pillsnap")

LOG_FILE = Path("logs", "pillsnap.log")  # of an experiment


class StepSampler(Sampler[list[Key]]):
    """Yields, step by step, the `(epoch, position)` keys of the samples of one optimizer step.

    `drop_last` drops samples that do not fill a micro-batch; a last step with fewer micro-batches is kept, so no
    accumulation group is lost (LOP-3). A set smaller than one micro-batch is never dropped.
    """

    def __init__(
        self, num_samples: int, *, batch_size: int, grad_accum_steps: int, drop_last: bool, seed: int, task: str
    ) -> None:
        """Plan steps of `batch_size * grad_accum_steps` samples over `num_samples`."""
        dropped = num_samples % batch_size if drop_last and num_samples >= batch_size else 0
        self.num_samples = num_samples
        self.num_used = num_samples - dropped
        self.step_size = batch_size * grad_accum_steps
        self.seed = seed
        self.task = task
        self.epoch = 0
        self.start_sample = 0

    def __len__(self) -> int:
        """Return the number of optimizer steps of a whole epoch."""
        return -(-self.num_used // self.step_size)

    def set_position(self, epoch: int, start_sample: int = 0, *, step_size: int | None = None) -> None:
        """Make the next iteration begin at `start_sample` of `epoch`'s order, without visiting what lies before.

        Args:
            epoch: Decides the order.
            start_sample: Samples of the epoch that are used up.
            step_size: Samples of a step from here on; None leaves it.
        """
        self.epoch = epoch
        self.start_sample = start_sample
        if step_size is not None:
            self.step_size = step_size

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the keys of the remaining steps of the epoch."""
        epoch, step_size = self.epoch, self.step_size
        order = epoch_order(self.num_samples, self.seed, self.task, epoch)[: self.num_used]
        for start in range(self.start_sample, self.num_used, step_size):
            yield [(epoch, int(position)) for position in order[start : start + step_size]]


class OrderedSampler(Sampler[list[Key]]):
    """Yields the keys of a whole set in order, `batch_size` at a time, for validation and test."""

    def __init__(self, num_samples: int, batch_size: int) -> None:
        """Cover `num_samples` in batches of at most `batch_size`."""
        self.num_samples = num_samples
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield lists of `(0, position)`."""
        for start in range(0, self.num_samples, self.batch_size):
            yield [(0, position) for position in range(start, min(start + self.batch_size, self.num_samples))]


Loader = DataLoader[Any]
LoaderTriple = tuple[Loader | None, Loader | None, Loader | None]  # train, val, test


@dataclass(frozen=True)
class DataMeta:
    """What training needs to know about the data beside the loaders."""

    data: TwoStageData
    class_map: ClassMap
    classifier_input: ClassifierInput | None
    train_items: ClassificationItems


class TwoStageLoaders(NamedTuple):
    """The loaders of both tasks, in the order the specification gives them; a task not asked for has None."""

    cls_train: Loader | None
    cls_val: Loader | None
    cls_test: Loader | None
    det_train: Loader | None
    det_val: Loader | None
    det_test: Loader | None
    meta: DataMeta


def build_dataloaders_twostage(cfg: DictConfig, *, classifier_input: ClassifierInput | None = None) -> TwoStageLoaders:
    """Read the data set and return the loaders of both tasks (DAT-1).

    Args:
        cfg: The resolved configuration.
        classifier_input: How the classifier wants its pictures; None asks the configured backbone.

    Returns:
        Seven values: classification train/val/test, detection train/val/test, meta. The test loaders are None until
        the experiment has completed stage 4 and best.pt is there.

    Raises:
        DataError: The data set is missing, empty, or cannot serve the tasks.
    """
    if classifier_input is None:
        backbone = build_classification_model(cfg.model.backbone, 2, channels_last=False, pretrained=False)
        classifier_input = input_of(backbone, cfg.model.image_size, cfg.data.classification.frame_fit)
    return build_loaders(load_data(cfg), cfg, classifier_input)


def build_loaders(data: TwoStageData, cfg: DictConfig, spec: ClassifierInput | None) -> TwoStageLoaders:
    """Return the loaders over data that is already read; see `build_dataloaders_twostage`.

    Args:
        data: The run's data.
        cfg: The resolved configuration.
        spec: The classifier's input; None when the classifier is not trained, whose loaders are then None.
    """
    exp_dir, stage = Path(cfg.paths.exp_dir), cfg.data.progressive_validation.current_stage
    data.is_test_open = data.is_test_open or is_training_over(exp_dir, stage)
    train_items = _train_items(data, cfg)
    meta = DataMeta(data, data.class_map, spec, train_items)
    classification: LoaderTriple = (None, None, None)
    if spec is not None and "classification" in cfg.train.tasks:
        classification = (
            _classification_train(data, cfg, spec, train_items),
            classification_evaluation_loader(data, cfg, spec, "val"),
            classification_evaluation_loader(data, cfg, spec, "test") if data.is_test_open else None,
        )
    detection: LoaderTriple = (None, None, None)
    if "detection" in cfg.train.tasks:
        detection = (
            _detection_train(data, cfg),
            detection_evaluation_loader(data, cfg, "val"),
            detection_evaluation_loader(data, cfg, "test") if data.is_test_open else None,
        )
    return TwoStageLoaders(*classification, *detection, meta)


def classification_evaluation_loader(data: TwoStageData, cfg: DictConfig, spec: ClassifierInput, split: str) -> Loader:
    """Return the classifier's loader over `split` in order, with the fixed views of evaluation."""
    padding = cfg.inference.crop_padding
    eval_view = cfg.data.classification.eval_view
    view = EvaluationView(spec, eval_view, padding)
    combo_view = EvaluationView(spec, "box", padding)
    dataset = ClassificationDataset(
        data.records, data.evaluation_items(split, eval_view), data.root, (view, combo_view), spec
    )
    sampler = OrderedSampler(len(dataset), for_task(cfg, "classification").train.batch_size)
    return _loader(dataset, sampler, cfg, is_training=False)


def detection_evaluation_loader(data: TwoStageData, cfg: DictConfig, split: str) -> Loader:
    """Return the detector's loader over `split` in order, letterboxed."""
    pictures = _pictures(data, cfg, split)
    sampler = OrderedSampler(len(pictures), for_task(cfg, "detection").train.batch_size)
    return _loader(DetectionEvaluationDataset(pictures), sampler, cfg, is_training=False)


def _train_items(data: TwoStageData, cfg: DictConfig) -> ClassificationItems:
    tasks = (SINGLE, COMBO) if cfg.data.classification.combo_crops else (SINGLE,)
    items = classification_items(data.records, data.rows("train"), data.class_map, tasks)
    return items if len(items) else classification_items(data.records, data.rows("train"), data.class_map, (COMBO,))


def _classification_train(
    data: TwoStageData, cfg: DictConfig, spec: ClassifierInput, items: ClassificationItems
) -> Loader:
    augmentation = Augmentation(**cfg.train.classification.augment)
    view = TrainingView(spec, augmentation, cfg.data.classification.train_view, cfg.train.seed)
    combo_view = TrainingView(spec, augmentation, "box", cfg.train.seed)
    dataset = ClassificationDataset(data.records, items, data.root, (view, combo_view), spec)
    return _loader(dataset, _step_sampler(len(dataset), cfg, "classification"), cfg, is_training=True)


def _detection_train(data: TwoStageData, cfg: DictConfig) -> Loader:
    pictures = _pictures(data, cfg, "train")
    augment, size_px = cfg.train.detection.augment, cfg.detection.image_size
    mosaic = training_transforms(pictures, size_px, dict(augment), mosaic=True)
    plain = training_transforms(pictures, size_px, dict(augment), mosaic=False)
    mosaic_epochs = cfg.train.detection.epochs - augment.close_mosaic_epochs
    dataset = DetectionTrainingDataset(pictures, mosaic, plain, mosaic_epochs=mosaic_epochs, seed=cfg.train.seed)
    return _loader(dataset, _step_sampler(len(dataset), cfg, "detection"), cfg, is_training=True)


def _pictures(data: TwoStageData, cfg: DictConfig, split: str) -> DetectionPictures:
    rows = data.labelled_rows(split, cfg.data.detection.images)
    return DetectionPictures(data.records, rows, data.root, cfg.detection.image_size, detection_label)


def _step_sampler(num_samples: int, cfg: DictConfig, task: Literal["classification", "detection"]) -> StepSampler:
    train = for_task(cfg, task).train
    return StepSampler(
        num_samples,
        batch_size=train.batch_size,
        grad_accum_steps=train.grad_accum_steps,
        drop_last=cfg.dataloader.drop_last,
        seed=train.seed,
        task=task,
    )


def _loader(dataset: Dataset[Any], sampler: Sampler[list[Key]], cfg: DictConfig, *, is_training: bool) -> Loader:
    options = cfg.dataloader
    num_workers = options.num_workers
    log_path = Path(cfg.paths.exp_dir) / LOG_FILE
    worker_options: dict[str, Any] = {}
    if num_workers > 0:
        worker_options = {
            "prefetch_factor": options.prefetch_factor,
            # Validation's workers end with it: kept alive they would hold memory through every training epoch.
            "persistent_workers": options.persistent_workers and is_training,
            "worker_init_fn": functools.partial(_start_worker, log_path=log_path if log_path.parent.is_dir() else None),
        }
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=safe_collate,
        pin_memory=options.pin_memory and torch.cuda.is_available() and options.pin_memory_device == "cuda",
        # The loader's own base seed would draw from the global generator and tie it to how often a loader is started.
        generator=torch.Generator().manual_seed(0),
        **worker_options,
    )


def _start_worker(worker_id: int, log_path: Path | None) -> None:
    # Ctrl-C and a service manager's SIGTERM go to a whole process group; in a group of its own a worker does not hear
    # them, and the main process decides what to finish and when workers end. SIGTERM itself keeps its meaning: workers
    # are ended by it, and ignoring it would hang Python's exit.
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lift_address_space_limit()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if log_path is not None:
        # The stall watchdog asks with SIGUSR1. The signal handler itself, C code, writes the answer, so even a worker
        # that is stuck inside a library gives one; the file stays open as long as the process lives.
        faulthandler.register(signal.SIGUSR1, file=log_path.open("a", encoding="utf-8"), all_threads=True)
