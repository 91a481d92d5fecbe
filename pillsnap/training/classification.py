"""The classification task: one pill in, its drug out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pillsnap.data.batches import ClassificationBatch
from pillsnap.data.colour import apply_colour
from pillsnap.data.datasets import ClassificationDataset
from pillsnap.data.loaders import Loader
from pillsnap.data.preprocess import ClassifierInput, normalize
from pillsnap.evaluation.classification import classification_figures
from pillsnap.evaluation.predictions import classify_loader
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.training.context import RunContext
from pillsnap.training.losses import TargetWeightedCrossEntropy
from pillsnap.training.precision import Precision
from pillsnap.training.schedule import CLASSIFICATION
from pillsnap.training.step import TrainingParts
from pillsnap.training.task import Task, move
from pillsnap.training.telemetry import TBWriter


def classification_parts(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    scaler: torch.amp.GradScaler,
    *,
    criterion: TargetWeightedCrossEntropy,
    precision: Precision,
    spec: ClassifierInput,
    is_channels_last: bool,
) -> TrainingParts:
    """Return what a classification step needs, with the loss of a slice of a batch.

    The criterion's mean is over class weights, so a slice counts for the weights of its labels: the sum over slices is
    then exactly the mean over the whole step.
    """
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    host_criterion = copy.deepcopy(criterion).cpu()  # weights of labels are looked up where the labels are

    def loss(part: ClassificationBatch) -> torch.Tensor:
        images = model_input(part, precision.device, spec).to(memory_format=layout)
        result: torch.Tensor = criterion(model(images), part.labels_B.to(precision.device, non_blocking=True))
        return result

    def weight(part: ClassificationBatch) -> float:
        return host_criterion.batch_weight(part.labels_B)

    return TrainingParts(model, optimizer, scheduler, scaler, precision, loss, weight)


def model_input(part: ClassificationBatch, device: torch.device, spec: ClassifierInput) -> torch.Tensor:
    """Return what a training step shows the model: a batch in its random light, normalised, on `device`.

    Returns:
        float32 (B, 3, S, S).
    """
    images = move(part.images_BCHW, device)
    return normalize(images, spec) if part.colour_BK is None else apply_colour(images, part.colour_BK, spec)


class ClassificationTask(Task):
    """Trains the classifier."""

    name = CLASSIFICATION
    log_label = "train"
    tb_prefix = ""
    tie_breaker = ("val_loss", -1.0)

    def __init__(
        self,
        cfg: DictConfig,
        parts: TrainingParts,
        loaders: tuple[Loader, Loader | None],
        context: RunContext,
        *,
        criterion: nn.Module,
        identity: dict[str, Any],
        extras: dict[str, Any],
    ) -> None:
        """See `Task`; `criterion` also measures the validation loss."""
        super().__init__(cfg, parts, loaders, context, identity=identity, extras=extras)
        self.criterion = criterion

    def evaluate(self) -> dict[str, float]:
        """Return val_loss, acc, macro_f1, top5, confidence and n of the val split."""
        return validate_classification(
            self.evaluation_model,
            self.validation_batches(),
            self.criterion,
            self.cfg,
            self.context.logger,
            self.context.tb,
            self.clock.epoch,
            cut=self.val_cut,
        )


def validate_classification(
    model: nn.Module,
    loader: Iterable[Any],
    criterion: nn.Module,
    cfg: DictConfig,
    logger: logging.Logger,
    tb: TBWriter,
    epoch_idx: int,
    *,
    cut: EvaluationCut | None = None,
) -> dict[str, float]:
    """Judge a classifier on a loader, in fp32 (VAL-1, PRC-4).

    Args:
        model: Logits (B, C) out.
        loader: Yields `ClassificationBatch`; its `dataset.spec` tells how to normalise.
        criterion: Mean loss over (logits, labels).
        cfg: The configuration of the run (nothing of it changes the figures).
        logger: Told how many pictures could not be decoded.
        tb: Gets `val/loss`, `val/accuracy`, `val/macro_f1`, `val/top5`.
        epoch_idx: Epoch number from 0, TensorBoard's step.
        cut: How batches are divided; None begins with whole ones.

    Returns:
        val_loss, acc, macro_f1, top5, confidence, n.

    Raises:
        DataError: No picture could be decoded.
    """
    dataset = loader.dataset  # type: ignore[attr-defined]
    assert isinstance(dataset, ClassificationDataset)
    found = classify_loader(model, loader, dataset.spec, criterion, cut=cut)
    if found.broken:
        logger.warning("[val] %d pictures left out, first: %s", len(found.broken), found.broken[0].reason)
    figures = classification_figures(found)
    result = {
        "val_loss": found.loss,
        "acc": figures["accuracy"],
        "macro_f1": figures["macro_f1"],
        "top5": figures["top5"],
        "confidence": figures["confidence"],
        "n": int(figures["n"]),
    }
    tags = {"val/loss": "val_loss", "val/accuracy": "acc", "val/macro_f1": "macro_f1", "val/top5": "top5"}
    tb.add_scalars({tag: result[key] for tag, key in tags.items()}, epoch_idx)
    return result
