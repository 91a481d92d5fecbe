"""Non-maximum suppression: the one step from a detector's raw boxes to the boxes that are reported.

It works on plain tensors, so that what a PyTorch model and an ONNX session return goes through the same code (VAL-2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def non_max_suppression(
    predictions_B5A: Tensor, conf_threshold: float = 0.3, iou_threshold: float = 0.5, max_detections: int = 100
) -> list[Tensor]:
    """Keep the confident boxes of each picture, and of those that overlap only the most confident one.

    Args:
        predictions_B5A: (B, 5, A) float: centre x, centre y, width, height in pixels, and a score in 0..1, for each of
            A candidates.
        conf_threshold: Candidates with a score not above this are dropped.
        iou_threshold: A box that overlaps a more confident one by more than this is dropped.
        max_detections: At most this many boxes a picture.

    Returns:
        B tensors (N, 5): x_min, y_min, x_max, y_max in the same pixels, and the score; most confident first.
    """
    return [_suppress(picture, conf_threshold, iou_threshold, max_detections) for picture in predictions_B5A.float()]


def _suppress(predictions_5A: Tensor, conf_threshold: float, iou_threshold: float, max_detections: int) -> Tensor:
    candidates_N5 = predictions_5A[:, predictions_5A[4] > conf_threshold].T
    centers, half_sizes, scores = candidates_N5[:, :2], candidates_N5[:, 2:4] / 2, candidates_N5[:, 4]
    boxes_xyxy = torch.cat([centers - half_sizes, centers + half_sizes], dim=1)
    kept = nms(boxes_xyxy, scores, iou_threshold)[:max_detections]
    return torch.cat([boxes_xyxy[kept], scores[kept, None]], dim=1)
