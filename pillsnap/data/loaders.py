"""Loaders of both tasks. A batch is the G samples of one optimizer step; its order is a pure function of the epoch."""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Sampler

from pillsnap.allocator import keep_freed_memory
from pillsnap.config.loading import for_task
from pillsnap.data.batches import safe_collate
from pillsnap.data.classes import ClassMap
from pillsnap.data.colour import Augmentation
from pillsnap.data.columns import equals
from pillsnap.data.datasets import (
    ClassificationEvaluationDataset,
    ClassificationTrainingDataset,
    DetectionEvaluationDataset,
    DetectionPictures,
    DetectionTrainingDataset,
    Key,
)
from pillsnap.data.items import ClassificationItems, classification_items
from pillsnap.data.levels import LevelSizes
from pillsnap.data.originals import Originals
from pillsnap.data.pixels import DetectorParts, EvaluationParts
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.data.samplers import OrderedSampler, StepSampler
from pillsnap.data.sampling import SamplingPlan
from pillsnap.data.stores import Stores
from pillsnap.data.training_parts import TrainingParts
from pillsnap.data.twostage import TwoStageData, is_training_over, load_data
from pillsnap.memory import lift_address_space_limit
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model
from pillsnap.models.classifier_efficientnetv2_s import classifier_input as input_of
from pillsnap.models.detector_yolo11m import detection_label, training_transforms

logger = logging.getLogger("pillsnap")

LOG_FILE = Path("logs", "pillsnap.log")  # of an experiment


Loader = DataLoader[Any]


@dataclass(frozen=True)
class DataMeta:
    """What training needs to know about the data beside the loaders."""

    data: TwoStageData
    class_map: ClassMap
    classifier_input: ClassifierInput | None
    train_items: ClassificationItems
    stores: Stores


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


def build_loaders(
    data: TwoStageData, cfg: DictConfig, spec: ClassifierInput | None, stores: Stores | None = None
) -> TwoStageLoaders:
    """Return the loaders over data that is already read; see `build_dataloaders_twostage`.

    Args:
        data: The run's data.
        cfg: The resolved configuration.
        spec: The classifier's input; None when the classifier is not trained, whose loaders are then None.
        stores: Where decoded pixels are kept; None opens what the configuration asks for.
    """
    stores = Stores.from_config(cfg) if stores is None else stores
    exp_dir, stage = Path(cfg.paths.exp_dir), cfg.data.progressive_validation.current_stage
    data.is_test_open = data.is_test_open or is_training_over(exp_dir, stage)
    train_items = _train_items(data, cfg)
    meta = DataMeta(data, data.class_map, spec, train_items, stores)
    has_classification = spec is not None and "classification" in cfg.train.tasks
    has_detection = "detection" in cfg.train.tasks
    # Validation first: while it runs nothing else does, so its places in the hot set are worth most.
    cls_val = cls_train = cls_test = det_val = det_train = det_test = None
    if has_classification:
        assert spec is not None
        cls_val = classification_evaluation_loader(data, cfg, spec, "val", stores)
    if has_detection:
        det_val = detection_evaluation_loader(data, cfg, "val", stores)
    if has_classification:
        assert spec is not None
        cls_train = _classification_train(data, cfg, spec, train_items, stores)
        cls_test = classification_evaluation_loader(data, cfg, spec, "test") if data.is_test_open else None
    if has_detection:
        det_train = _detection_train(data, cfg, stores)
        det_test = detection_evaluation_loader(data, cfg, "test") if data.is_test_open else None
    return TwoStageLoaders(cls_train, cls_val, cls_test, det_train, det_val, det_test, meta)


def classification_evaluation_loader(
    data: TwoStageData, cfg: DictConfig, spec: ClassifierInput, split: str, stores: Stores | None = None
) -> Loader:
    """Return the classifier's loader over `split` in order, with the fixed views of evaluation.

    Args:
        data: The run's data.
        cfg: The resolved configuration.
        spec: The classifier's input.
        split: "val", "test", or "unknown": pills of drugs nothing trains on, all with the label -1.
        stores: Where decoded pixels are kept; None: nowhere.
    """
    eval_view = cfg.data.classification.eval_view
    items = data.evaluation_items(split, eval_view)
    originals = Originals(data.records, data.root)
    parts = EvaluationParts(originals, items, spec, eval_view, cfg.inference.crop_padding)
    if stores is not None:
        stores.open(f"classification-{split}", parts)
    sampler = OrderedSampler(len(items), for_task(cfg, "classification").train.batch_size)
    return _loader(ClassificationEvaluationDataset(parts), sampler, cfg, is_training=False)


def detection_evaluation_loader(
    data: TwoStageData, cfg: DictConfig, split: str, stores: Stores | None = None
) -> Loader:
    """Return the detector's loader over `split` in order, letterboxed."""
    pictures = _pictures(data, cfg, split, stores)
    sampler = OrderedSampler(len(pictures), for_task(cfg, "detection").train.batch_size)
    return _loader(DetectionEvaluationDataset(pictures), sampler, cfg, is_training=False)


def _train_items(data: TwoStageData, cfg: DictConfig) -> ClassificationItems:
    tasks = (SINGLE, COMBO) if cfg.data.classification.combo_crops else (SINGLE,)
    items = classification_items(data.records, data.rows("train"), data.class_map, tasks)
    if not len(items):
        items = classification_items(data.records, data.rows("train"), data.class_map, (COMBO,))
    is_cached = cfg.dataloader.ram_optimization.cache_labels
    return items.saved(Path(cfg.paths.cache_dir)) if is_cached else items


def _classification_train(
    data: TwoStageData, cfg: DictConfig, spec: ClassifierInput, items: ClassificationItems, stores: Stores
) -> Loader:
    sizes = LevelSizes(spec.size_px, spec.frame_fit)
    originals = Originals(data.records, data.root)
    parts = TrainingParts(originals, items, sizes, cfg.data.classification.train_view)
    stores.open("classification-train", parts)
    augmentation = Augmentation(**cfg.train.classification.augment)
    dataset = ClassificationTrainingDataset(parts, spec, augmentation, cfg.train.seed)
    plan = SamplingPlan(
        items.labels,
        equals(data.records, "task", COMBO)[items.rows],
        balance=cfg.data.classification.sampling == "balanced",
        combo_share=cfg.data.classification.combo_share,
    )
    return _loader(dataset, _step_sampler(len(dataset), cfg, "classification", plan), cfg, is_training=True)


def _detection_train(data: TwoStageData, cfg: DictConfig, stores: Stores) -> Loader:
    pictures = _pictures(data, cfg, "train", stores)
    augment, size_px = cfg.train.detection.augment, cfg.detection.image_size
    mosaic = training_transforms(pictures, size_px, dict(augment), mosaic=True)
    plain = training_transforms(pictures, size_px, dict(augment), mosaic=False)
    mosaic_epochs = cfg.train.detection.epochs - augment.close_mosaic_epochs
    dataset = DetectionTrainingDataset(pictures, mosaic, plain, mosaic_epochs=mosaic_epochs, seed=cfg.train.seed)
    return _loader(dataset, _step_sampler(len(dataset), cfg, "detection"), cfg, is_training=True)


def _pictures(data: TwoStageData, cfg: DictConfig, split: str, stores: Stores | None) -> DetectionPictures:
    rows = data.labelled_rows(split, cfg.data.detection.images)
    originals = Originals(data.records, data.root)
    parts = DetectorParts(originals, rows, cfg.detection.image_size, is_training=split == "train")
    if stores is not None:
        stores.open(f"detection-{split}", parts)
    return DetectionPictures(parts, detection_label)


def _step_sampler(
    num_samples: int, cfg: DictConfig, task: Literal["classification", "detection"], plan: SamplingPlan | None = None
) -> StepSampler:
    train = for_task(cfg, task).train
    return StepSampler(
        num_samples,
        batch_size=train.batch_size,
        grad_accum_steps=train.grad_accum_steps,
        drop_last=cfg.dataloader.drop_last,
        seed=train.seed,
        task=task,
        plan=plan,
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
            "worker_init_fn": functools.partial(start_worker, log_path=log_path if log_path.parent.is_dir() else None),
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


def start_worker(worker_id: int, log_path: Path | None = None) -> None:
    """Prepare a loader's worker process: signals, threads, memory, and where it answers the stall watchdog."""
    # Ctrl-C and a service manager's SIGTERM go to a whole process group; in a group of its own a worker does not hear
    # them, and the main process decides what to finish and when workers end. SIGTERM itself keeps its meaning: workers
    # are ended by it, and ignoring it would hang Python's exit.
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lift_address_space_limit()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()
    if log_path is not None:
        # The stall watchdog asks with SIGUSR1. The signal handler itself, C code, writes the answer, so even a worker
        # that is stuck inside a library gives one; the file stays open as long as the process lives.
        faulthandler.register(signal.SIGUSR1, file=log_path.open("a", encoding="utf-8"), all_threads=True)
