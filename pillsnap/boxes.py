"""Box arithmetic in the two formats this project uses, and nothing else.

`boxes_xyxy`       float (N, 4): x_min, y_min, x_max, y_max in pixels of the picture, origin top left.
`boxes_cxcywh_norm` float (N, 4): centre x, centre y, width, height as fractions of the picture (YOLO's label format).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def xyxy_to_cxcywh_norm(boxes_xyxy: FloatArray, size_wh: tuple[int, int]) -> FloatArray:
    """Convert pixel corners to YOLO's normalised centre format.

    Args:
        boxes_xyxy: (N, 4) pixels.
        size_wh: Width and height of the picture in pixels, both positive.

    Returns:
        (N, 4) float32 in 0..1 for boxes inside the picture.
    """
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    width, height = size_wh
    out = np.empty_like(boxes)
    out[:, 0] = (boxes[:, 0] + boxes[:, 2]) / 2 / width
    out[:, 1] = (boxes[:, 1] + boxes[:, 3]) / 2 / height
    out[:, 2] = (boxes[:, 2] - boxes[:, 0]) / width
    out[:, 3] = (boxes[:, 3] - boxes[:, 1]) / height
    return out


def cxcywh_norm_to_xyxy(boxes_cxcywh_norm: FloatArray, size_wh: tuple[int, int]) -> FloatArray:
    """Convert YOLO's normalised centre format to pixel corners; the inverse of `xyxy_to_cxcywh_norm`.

    Args:
        boxes_cxcywh_norm: (N, 4) fractions of the picture.
        size_wh: Width and height of the picture in pixels.

    Returns:
        (N, 4) float32 pixels.
    """
    boxes = np.asarray(boxes_cxcywh_norm, np.float32).reshape(-1, 4)
    width, height = size_wh
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return np.asarray(corners * np.array([width, height, width, height], np.float32), np.float32)


def clip_xyxy(boxes_xyxy: FloatArray, size_wh: tuple[int, int]) -> FloatArray:
    """Cut boxes (N, 4) at the picture's edges; a box wholly outside becomes one of zero area."""
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4).copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, size_wh[0])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, size_wh[1])
    return boxes


def area_xyxy(boxes_xyxy: FloatArray) -> FloatArray:
    """Areas (N,) in square pixels; a box whose corners are swapped counts as zero."""
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(min=0)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def iou_matrix(boxes_a_xyxy: FloatArray, boxes_b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of every pair.

    Args:
        boxes_a_xyxy: (N, 4) pixels.
        boxes_b_xyxy: (M, 4) pixels.

    Returns:
        (N, M) float32 in 0..1; pairs of empty boxes give 0.
    """
    a = np.asarray(boxes_a_xyxy, np.float32).reshape(-1, 1, 4)
    b = np.asarray(boxes_b_xyxy, np.float32).reshape(1, -1, 4)
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area_xyxy(a[:, 0])[:, None] + area_xyxy(b[0])[None, :] - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0), np.float32)
