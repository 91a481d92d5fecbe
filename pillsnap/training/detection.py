"""The detection task: a photograph in, the boxes of its pills out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pillsnap.data.batches import DetectionBatch
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.predictions import detect_loader
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.training.precision import Precision
from pillsnap.training.schedule import DETECTION
from pillsnap.training.step import TrainingParts
from pillsnap.training.task import Task, move
from pillsnap.training.telemetry import TBWriter

TB_PREFIX = "detection/"
DetectionCriterion = Callable[[nn.Module, Any, dict[str, torch.Tensor]], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def detection_parts(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    scaler: torch.amp.GradScaler,
    *,
    criterion: DetectionCriterion,
    precision: Precision,
) -> TrainingParts:
    """Return what a detection step needs, with YOLO's loss of a slice of a batch.

    A slice counts for its photographs. YOLO's loss is normalised by the targets assigned within the slice, so cutting a
    step smaller changes its value slightly; that is the library's recipe.
    """

    def loss(part: DetectionBatch) -> torch.Tensor:
        images = move(part.images_BCHW, precision.device).float() / 255
        return criterion(model, model(images), part.targets(precision.device))[0]

    def weight(part: DetectionBatch) -> float:
        return float(len(part))

    return TrainingParts(model, optimizer, scheduler, scaler, precision, loss, weight)


class DetectionTask(Task):
    """Trains the detector."""

    name = DETECTION
    log_label = "train/detection"
    tb_prefix = TB_PREFIX
    tie_breaker = ("mAP@0.5:0.95", 1.0)

    def evaluate(self) -> dict[str, float]:
        """Return mAP@0.5, mAP@0.5:0.95, precision, recall and counts of the val split."""
        return validate_detection(
            self.evaluation_model,
            self.validation_batches(),
            self.cfg,
            self.context.logger,
            self.context.tb,
            self.clock.epoch,
            cut=self.val_cut,
        )


def validate_detection(
    yolo_model: nn.Module,
    val_loader: Iterable[Any],
    cfg: DictConfig,
    logger: logging.Logger,
    tb: TBWriter,
    epoch_idx: int,
    *,
    cut: EvaluationCut | None = None,
) -> dict[str, float]:
    """Judge a detector on a loader, in fp32, through the shared NMS (VAL-2, PRC-4).

    Args:
        yolo_model: The detector.
        val_loader: Yields `DetectionBatch` with letterboxes.
        cfg: Reads the section `inference`.
        logger: Told how many pictures could not be decoded.
        tb: Gets `detection/val/mAP@0.5`, `detection/val/mAP@0.5:0.95`, precision and recall.
        epoch_idx: Epoch number from 0, TensorBoard's step.
        cut: How batches are divided; None begins with whole ones.

    Returns:
        mAP@0.5, mAP@0.5:0.95, precision, recall, n_images, n_boxes.

    Raises:
        DataError: No picture could be decoded, or none has a box.
    """
    options = cfg.inference
    found = detect_loader(
        yolo_model,
        val_loader,
        iou_threshold=options.iou_threshold,
        max_detections=options.max_detections,
        cut=cut,
    )
    if found.broken:
        logger.warning("[val/detection] %d pictures left out, first: %s", len(found.broken), found.broken[0].reason)
    figures = evaluate_detection_metrics(found.predictions, found.targets, conf_threshold=options.conf_threshold)
    names = ("mAP@0.5", "mAP@0.5:0.95", "precision", "recall")
    tb.add_scalars({f"val/{name}": float(figures[name]) for name in names}, epoch_idx, TB_PREFIX)
    return {key: float(value) for key, value in figures.items() if not isinstance(value, str)}
