"""Figures for the pill detector: mAP by torchmetrics, precision and recall at the threshold used in practice.

One class, `pill`: which drug a box holds is the matter of `end_to_end.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import faster_coco_eval
import numpy as np
import torch
import torchmetrics
from torchmetrics.detection import MeanAveragePrecision

from pillsnap.boxes import FloatArray, iou_matrix
from pillsnap.errors import DataError
from pillsnap.evaluation.arrays import FloatValues, Values, as_floats

# Different tools give different mAP for the same boxes, so every result names the one it is from.
MAP_TOOL = (
    f"torchmetrics {torchmetrics.__version__} MeanAveragePrecision (faster-coco-eval {faster_coco_eval.__version__})"
)
MAX_DETECTIONS = 100
"""Boxes that count in a picture, the most confident ones."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)


def evaluate_detection_metrics(
    predictions: Sequence[Mapping[str, Values]],
    targets: Sequence[Mapping[str, Values]],
    *,
    conf_threshold: float = 0.3,
) -> dict[str, float | int | str]:
    """Compare found with labelled boxes, over all pictures of a split.

    Args:
        predictions: One mapping a picture: `boxes_xyxy` (N, 4) pixels and `scores` (N,) in 0..1, after NMS with a low
            threshold, because mAP needs the whole curve. At most 100 boxes a picture count.
        targets: One mapping a picture, in the same order: `boxes_xyxy` (M, 4) pixels.
        conf_threshold: Boxes scored at least this count for precision and recall.

    Returns:
        `mAP@0.5` and `mAP@0.5:0.95` (101-point COCO average precision), `precision` and `recall` at `conf_threshold`
        and IoU 0.5 (precision is 0 where nothing was found), `n_images`, `n_boxes` (labelled), `n_found` (predicted at
        `conf_threshold`), `tool`.

    Raises:
        ValueError: Lists of different length, or arrays of the wrong shape or with numbers that are not finite.
        DataError: No picture has a labelled box; there is nothing to measure, which is not the same as mAP 0.
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"detection cannot be evaluated: got predictions for {len(predictions)} pictures and targets for "
            f"{len(targets)}; wanted one of each for every picture. Pass both lists in the same order."
        )
    target_boxes = [box_array(target["boxes_xyxy"], index) for index, target in enumerate(targets)]
    found = [boxes_and_scores(prediction, index) for index, prediction in enumerate(predictions)]
    num_boxes = require_targets(target_boxes)
    used = [(boxes[scores >= conf_threshold], scores[scores >= conf_threshold]) for boxes, scores in found]
    num_found = sum(len(boxes) for boxes, _ in used)
    num_right = sum(len(match_boxes(*pair, target)) for pair, target in zip(used, target_boxes, strict=True))
    return {
        **_mean_average_precision(found, target_boxes),
        "precision": num_right / num_found if num_found else 0.0,
        "recall": num_right / num_boxes,
        "n_images": len(targets),
        "n_boxes": num_boxes,
        "n_found": num_found,
        "tool": MAP_TOOL,
    }


def match_boxes(
    pred_xyxy: FloatArray, scores: FloatValues, target_xyxy: FloatArray, iou_threshold: float = 0.5
) -> list[tuple[int, int]]:
    """Pair predicted with labelled boxes of one picture, the most confident prediction first.

    Each prediction takes the labelled box it overlaps most among those still free, as COCO's evaluation does.

    Args:
        pred_xyxy: (N, 4) pixels.
        scores: (N,) confidence.
        target_xyxy: (M, 4) pixels.
        iou_threshold: A pair needs at least this intersection over union.

    Returns:
        (index of the prediction, index of the target) a pair, in the order of confidence; no index occurs twice.
    """
    overlaps = iou_matrix(pred_xyxy, target_xyxy)
    if overlaps.size == 0:
        return []
    pairs: list[tuple[int, int]] = []
    for pred in np.argsort(-np.asarray(scores), kind="stable"):
        target = int(overlaps[pred].argmax())
        if overlaps[pred, target] >= iou_threshold:
            pairs.append((int(pred), target))
            overlaps[:, target] = -1.0  # taken
    return pairs


def box_array(boxes_xyxy: Values, picture: int) -> FloatArray:
    """Return boxes as (N, 4) float32 with finite corners in order; an empty list becomes (0, 4).

    Args:
        boxes_xyxy: (N, 4) pixels.
        picture: Position of the picture, for the message.

    Raises:
        ValueError: Another shape, a corner that is not finite, or x_max < x_min or y_max < y_min.
    """
    boxes = np.asarray(as_floats(boxes_xyxy), np.float32)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes of picture {picture} have shape {boxes.shape}; wanted (N, 4) as x_min, y_min, x_max, y_max in "
            "pixels. Reshape them."
        )
    is_box = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not is_box.all():
        wrong = boxes[~is_box][0].tolist()
        raise ValueError(
            f"picture {picture} has the box {wrong}; wanted finite x_min <= x_max and y_min <= y_max in pixels. "
            "Convert centre-format boxes first."
        )
    return boxes


def require_targets(target_boxes: Sequence[FloatArray]) -> int:
    """Return the number of labelled boxes over all pictures.

    Raises:
        DataError: There is none.
    """
    num_boxes = sum(len(boxes) for boxes in target_boxes)
    if num_boxes == 0:
        raise DataError(
            f"detection cannot be evaluated: the {len(target_boxes)} pictures of this split have no labelled box; "
            "wanted at least 1. Check the labels with `pillsnap data check`, or enlarge data.split.val_fraction and "
            "data.split.test_fraction."
        )
    return num_boxes


def boxes_and_scores(prediction: Mapping[str, Values], picture: int) -> tuple[FloatArray, FloatArray]:
    """Return the boxes (N, 4) and scores (N,) of one picture.

    Args:
        prediction: `boxes_xyxy` and `scores`.
        picture: Position of the picture, for the message.

    Raises:
        ValueError: They have the wrong shape, are not finite, or are not one score a box.
    """
    boxes = box_array(prediction["boxes_xyxy"], picture)
    scores = np.asarray(as_floats(prediction["scores"]), np.float32).reshape(-1)
    if len(scores) != len(boxes) or not np.isfinite(scores).all():
        raise ValueError(
            f"picture {picture} has {len(boxes)} predicted boxes and {len(scores)} scores; wanted one finite score a "
            "box. Pass both from the same NMS result."
        )
    return boxes, scores


def _mean_average_precision(
    found: Sequence[tuple[FloatArray, FloatArray]], target_boxes: Sequence[FloatArray]
) -> dict[str, float]:
    """Return COCO's mAP over IoU 0.5 and 0.5:0.95, all boxes labelled with the one class."""
    # torchmetrics' own thresholds are float32: a recall of exactly 14/25 would miss the point at 0.56000000238.
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        iou_thresholds=IOU_THRESHOLDS.tolist(),
        rec_thresholds=RECALL_POINTS.tolist(),
        max_detection_thresholds=[1, 10, MAX_DETECTIONS],
    )
    metric.warn_on_many_detections = False  # the cut at 100 is wanted
    metric.update(
        [
            {
                "boxes": torch.from_numpy(boxes),
                "scores": torch.from_numpy(scores),
                "labels": torch.zeros(len(boxes), dtype=torch.long),
            }
            for boxes, scores in found
        ],
        [
            {"boxes": torch.from_numpy(boxes), "labels": torch.zeros(len(boxes), dtype=torch.long)}
            for boxes in target_boxes
        ],
    )
    result = metric.compute()
    return {"mAP@0.5": float(result["map_50"]), "mAP@0.5:0.95": float(result["map"])}
