"""Running a model over a loader, in fp32 and without gradients: the raw material of every metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pillsnap.boxes import FloatArray
from pillsnap.data.batches import Broken, ClassificationBatch, DetectionBatch
from pillsnap.data.preprocess import ClassifierInput, normalize
from pillsnap.errors import DataError
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.evaluation.streaming import AnswerStream, BatchAnswers, ClassificationPredictions, summarise
from pillsnap.inference.nms import non_max_suppression
from pillsnap.models.detector_yolo11m import decode_predictions

MAP_CONF_THRESHOLD = (
    0.001  # low, so that the precision-recall curve reaches its end (ultralytics validates with it too)
)


@dataclass(frozen=True, slots=True)
class DetectionPredictions:
    """What the detector said about N photographs, in their own pixels."""

    predictions: list[dict[str, FloatArray]]
    """`boxes_xyxy` (M, 4) and `scores` (M,) a photograph."""
    targets: list[dict[str, FloatArray]]
    """`boxes_xyxy` (K, 4) a photograph."""
    rows: list[int]
    """Row of each photograph in the picture table."""
    broken: list[Broken]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Put a model into evaluation mode without gradients and in fp32, and its former mode back after (PRC-4)."""
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield device
    finally:
        model.train(was_training)


def classify_loader(
    model: nn.Module,
    loader: Iterable[Any],
    spec: ClassifierInput,
    criterion: nn.Module,
    *,
    cut: EvaluationCut | None = None,
    keep_logits: bool = False,
) -> ClassificationPredictions:
    """Classify everything a loader yields.

    Args:
        model: The classifier, logits (B, C) out.
        loader: Yields `ClassificationBatch`, or the list of broken pictures when a whole batch was. Labels of -1 are
            drugs the model does not know: they are answered too, and count for no loss.
        spec: The classifier's input, for normalising.
        criterion: Mean loss over (logits, labels).
        cut: How batches are divided; None begins with whole ones.
        keep_logits: Keep all logits too, on the disk (2 bytes a pill and class).

    Raises:
        DataError: Not one picture could be decoded.
        OutOfMemoryFloorError: Not even one picture fits into memory.
        PillError: Logits to keep cannot be written.
    """
    stream = AnswerStream()
    broken: list[Broken] = []
    loss = _MeanLoss(criterion)
    with evaluating(model) as device:
        cut = cut or EvaluationCut(device)
        is_channels_last = next(model.parameters()).is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format

        def classify(part: ClassificationBatch) -> tuple[BatchAnswers, torch.Tensor]:
            images = part.images_BCHW.to(device, non_blocking=True)
            logits = model(normalize(images, spec).to(memory_format=layout)).float()
            labels = part.labels_B.to(device, non_blocking=True)
            return summarise(logits, labels, keep_logits=keep_logits), loss.of(logits, labels, part.labels_B)

        for batch in loader:
            if isinstance(batch, list):
                broken += batch
                continue
            broken += batch.broken
            stream.add(batch.labels_B, batch.sample_ids)
            for answers, part_loss in cut.over(batch, classify):
                stream.add_answers(answers)
                loss.add(part_loss)
            loss.weight += loss.weight_of(batch.labels_B)
    if not len(stream):
        raise DataError(_nothing_decoded(broken))
    return stream.finish(loss.mean(), broken)


class _MeanLoss:
    """The mean of a criterion over batches, put together on the device without waiting for it."""

    def __init__(self, criterion: nn.Module) -> None:
        self._criterion = criterion
        self._batch_weight: Callable[[torch.Tensor], float] = getattr(criterion, "batch_weight", len)
        self._sum: torch.Tensor | None = None
        self.weight = 0.0

    def of(self, logits_BC: torch.Tensor, labels_B: torch.Tensor, host_labels_B: torch.Tensor) -> torch.Tensor:
        """Return the sum over the pills of known drugs, a float64 scalar."""
        is_known = host_labels_B >= 0
        if not is_known.all():
            rows = is_known.nonzero()[:, 0].to(logits_BC.device)
            logits_BC, labels_B = logits_BC[rows], labels_B[rows]
        if not len(labels_B):
            return torch.zeros((), dtype=torch.float64, device=logits_BC.device)
        mean: torch.Tensor = self._criterion(logits_BC, labels_B)
        return mean.double() * self.weight_of(host_labels_B)

    def add(self, part_sum: torch.Tensor) -> None:
        """Add what `of` returned."""
        self._sum = part_sum if self._sum is None else self._sum + part_sum

    def weight_of(self, host_labels_B: torch.Tensor) -> float:
        """Return what the known drugs of a batch count for."""
        known = host_labels_B[host_labels_B >= 0]
        return float(self._batch_weight(known)) if len(known) else 0.0

    def mean(self) -> float:
        """Return the mean; NaN where no drug was known."""
        return float(self._sum) / self.weight if self._sum is not None and self.weight else float("nan")


def detect_loader(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    iou_threshold: float,
    max_detections: int,
    cut: EvaluationCut | None = None,
) -> DetectionPredictions:
    """Detect pills in everything a loader yields, down to a very low confidence.

    Args:
        model: The detector.
        loader: Yields `DetectionBatch` with letterboxes, or the list of broken pictures when a whole batch was.
        iou_threshold: Overlap above which the shared NMS drops the weaker box.
        max_detections: Boxes kept a photograph.
        cut: How batches are divided; None begins with whole ones.

    Raises:
        DataError: Not one picture could be decoded.
        OutOfMemoryFloorError: Not even one picture fits into memory.
    """
    found = DetectionPredictions([], [], [], [])
    with evaluating(model) as device:
        cut = cut or EvaluationCut(device, label="val/detection")

        def detect(part: DetectionBatch) -> list[FloatArray]:
            images = part.images_BCHW.to(device, non_blocking=True).float() / 255
            raw = decode_predictions(model(images))
            kept = non_max_suppression(raw, MAP_CONF_THRESHOLD, iou_threshold, max_detections)
            return [boxes.cpu().numpy() for boxes in kept]

        for batch in loader:
            if isinstance(batch, list):
                found.broken.extend(batch)
                continue
            found.broken.extend(batch.broken)
            parts = cut.over(batch, detect)
            for sample, values in zip(batch.samples, (boxes for part in parts for boxes in part), strict=True):
                boxes_xyxy = sample.letterbox.to_image(values[:, :4])
                found.predictions.append({"boxes_xyxy": boxes_xyxy, "scores": values[:, 4].astype(np.float32)})
                found.targets.append({"boxes_xyxy": sample.target_xyxy})
                found.rows.append(sample.row)
    if not found.rows:
        raise DataError(_nothing_decoded(found.broken))
    return found


def _nothing_decoded(broken: list[Broken]) -> str:
    example = broken[0].reason if broken else "the loader was empty"
    return (
        f"None of the {len(broken)} pictures to evaluate could be decoded, at least one is needed. First: {example} "
        "Run `pillsnap data check` on the data set."
    )
