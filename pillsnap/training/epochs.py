"""Single epochs and single stages, for callers that drive training themselves.

They run the same tasks, steps and loop as a whole run does; only the surrounding story is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pillsnap.config.loading import config_snapshot, for_task
from pillsnap.data.datasets import ClassificationDataset
from pillsnap.data.loaders import Loader
from pillsnap.errors import DataError
from pillsnap.models.detector_yolo11m import build_criterion_detection
from pillsnap.training.classification import ClassificationTask, classification_parts
from pillsnap.training.context import RunContext
from pillsnap.training.detection import DetectionTask, detection_parts
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.loop import train_epoch
from pillsnap.training.losses import TargetWeightedCrossEntropy
from pillsnap.training.optim import build_optimizer, build_scheduler
from pillsnap.training.precision import classification_precision, detection_precision
from pillsnap.training.run import run_training
from pillsnap.training.schedule import CLASSIFICATION, DETECTION
from pillsnap.training.step import TrainingParts
from pillsnap.training.task import Task
from pillsnap.training.telemetry import TBWriter

PARTS_ATTRIBUTE = "training_parts"
"""Where a detector trained epoch by epoch keeps its optimizer, schedule and scaler: the specified signature has no
place for them, and starting them anew in every epoch would restart warm-up and forget AdamW's moments."""


def train_one_epoch_classification(
    model: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    criterion: TargetWeightedCrossEntropy,
    scheduler: LRScheduler,
    cfg: DictConfig,
    logger: logging.Logger,
    tb: TBWriter,
    epoch_idx: int,
) -> dict[str, float]:
    """Train the classifier for one epoch.

    Args:
        model: Logits (B, C) out, on its device.
        loader: A training loader of `build_dataloaders_twostage`.
        optimizer: From `build_optimizer`.
        scaler: Enabled for float16 only.
        criterion: From `build_criterion_classification`.
        scheduler: From `build_scheduler`; one step an optimizer step.
        cfg: The resolved configuration.
        logger: Gets the step lines.
        tb: Gets the step figures.
        epoch_idx: Epoch number from 0; decides order and augmentation.

    Returns:
        loss (mean over samples), samples, skipped, steps, lr.
    """
    assert isinstance(loader.dataset, ClassificationDataset)
    device = next(model.parameters()).device
    cfg = for_task(cfg, CLASSIFICATION)
    parts = classification_parts(
        model,
        optimizer,
        scheduler,
        scaler,
        criterion=criterion,
        precision=classification_precision(cfg, device),
        spec=loader.dataset.spec,
        is_channels_last=cfg.train.classification.channels_last,
    )
    context = RunContext(logger, tb, StopRequest(), "the last checkpoint")
    task = ClassificationTask(cfg, parts, (loader, None), context, criterion=criterion, identity={}, extras={})
    return _train_epoch(task, epoch_idx)


def train_one_epoch_detection(
    yolo_model: nn.Module,
    train_loader: Loader,
    cfg: DictConfig,
    logger: logging.Logger,
    tb: TBWriter,
    epoch_idx: int,
) -> dict[str, float]:
    """Train the detector for one epoch; its optimizer and schedule are kept from call to call of the same model.

    Args:
        yolo_model: From `build_yolo_model`, on its device.
        train_loader: A training loader of `build_dataloaders_twostage`.
        cfg: The resolved configuration.
        logger: Gets the step lines.
        tb: Gets the step figures.
        epoch_idx: Epoch number from 0; decides order and augmentation.

    Returns:
        loss (mean over samples), samples, skipped, steps, lr.
    """
    cfg = for_task(cfg, DETECTION)
    parts: TrainingParts | None = getattr(yolo_model, PARTS_ATTRIBUTE, None)
    if parts is None:
        precision = detection_precision(cfg, next(yolo_model.parameters()).device)
        optimizer = build_optimizer(cfg, yolo_model.parameters())
        scheduler = build_scheduler(cfg, optimizer, len(train_loader))
        criterion = build_criterion_detection()
        parts = detection_parts(
            yolo_model, optimizer, scheduler, precision.build_scaler(), criterion=criterion, precision=precision
        )
        setattr(yolo_model, PARTS_ATTRIBUTE, parts)
    context = RunContext(logger, tb, StopRequest(), "the last checkpoint")
    return _train_epoch(DetectionTask(cfg, parts, (train_loader, None), context, identity={}, extras={}), epoch_idx)


def train_classification_stage(cfg: DictConfig, logger: logging.Logger) -> Path:
    """Train the classifier alone and return the path of its best checkpoint (`best.pt`)."""
    return _train_stage(cfg, logger, [CLASSIFICATION], "best.pt")


def train_detection_stage(cfg: DictConfig, logger: logging.Logger) -> Path:
    """Train the detector alone and return the path of its best checkpoint (`detection_best.pt`)."""
    return _train_stage(cfg, logger, [DETECTION], "detection_best.pt")


def _train_stage(cfg: DictConfig, logger: logging.Logger, tasks: Sequence[str], name: str) -> Path:
    stage = OmegaConf.create(config_snapshot(cfg))
    stage.train.tasks = list(tasks)
    OmegaConf.set_readonly(stage, True)
    result = run_training(stage)
    path = result.exp_dir / "checkpoints" / name
    logger.info("%s: best model %s", ", ".join(tasks), path)
    return path


def _train_epoch(task: Task, epoch_idx: int) -> dict[str, float]:
    task.clock.epoch = epoch_idx
    task.clock.step = epoch_idx * task.steps_per_epoch
    try:
        train_epoch(task)
    finally:
        task.use_configured_cut()
    checkpoint = task.context.last_checkpoint
    task.log.flush(checkpoint=checkpoint)
    clock, mean_loss = task.clock, task.log.epoch_loss.mean()
    if mean_loss is None:
        raise DataError(
            f"None of the {clock.skipped} pictures of the epoch could be decoded; at least one is needed. Run "
            "`pillsnap data check` on the data set."
        )
    return {
        "loss": mean_loss,
        "samples": clock.samples,
        "skipped": clock.skipped,
        "steps": clock.step - epoch_idx * task.steps_per_epoch,
        "lr": float(task.parts.scheduler.get_last_lr()[0]),
    }
