"""What happens to a picture between its pixels and a model, wherever that model runs.

Validation, PyTorch inference and everything served later share these functions, so a model is never asked about
pictures prepared in another way than it was judged on. Random augmentation is apart, in `transforms.py`.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from pillsnap.boxes import FloatArray, clip_xyxy
from pillsnap.data.images import RgbImage

PAD_VALUE = 114  # the grey YOLO models are trained to see as "nothing"
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Crop = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInput:
    """How a classifier wants its pictures; stored in its checkpoint."""

    size_px: int
    """Side of the square input, pixels."""
    mean: tuple[float, float, float]
    """Per-channel mean of RGB in 0..1, from the weights' own configuration."""
    std: tuple[float, float, float]
    """Per-channel standard deviation of RGB in 0..1."""
    interpolation: str
    """`bilinear` or `bicubic`, always antialiased."""
    frame_fit: str
    """How a whole photograph becomes a square: `letterbox` keeps all of it, `center` cuts the central square."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierInput:
        """Rebuild from `to_dict`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def frame_square(size_wh: tuple[int, int], frame_fit: str) -> Crop:
    """Return the square (x_min, y_min, x_max, y_max; pixels, may reach outside) that stands for a whole photograph."""
    width, height = size_wh
    side = max(width, height) if frame_fit == "letterbox" else min(width, height)
    return _square_around(width / 2, height / 2, side)


def box_square(box_xyxy: FloatArray, padding: float) -> Crop:
    """Return the square around a box, its longer side widened by `padding` (a fraction) on each end."""
    x_min, y_min, x_max, y_max = (float(value) for value in box_xyxy)
    side = max(x_max - x_min, y_max - y_min, 1.0) * (1 + 2 * padding)
    return _square_around((x_min + x_max) / 2, (y_min + y_max) / 2, side)


def crop_resize(image: RgbImage, crop: Crop, size_px: int, interpolation: str) -> RgbImage:
    """Cut `crop` out of a picture and resize it, antialiased; what lies outside the picture becomes grey.

    Args:
        image: uint8 (H, W, 3).
        crop: x_min, y_min, x_max, y_max in pixels, fractions allowed, may reach outside the picture.
        size_px: Side of the square result.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 (size_px, size_px, 3).
    """
    height, width = image.shape[:2]
    x_min, y_min, x_max, y_max = crop
    scale_x, scale_y = size_px / (x_max - x_min), size_px / (y_max - y_min)
    inside = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
    left, top = round((inside[0] - x_min) * scale_x), round((inside[1] - y_min) * scale_y)
    right, bottom = round((inside[2] - x_min) * scale_x), round((inside[3] - y_min) * scale_y)
    canvas = np.full((size_px, size_px, 3), PAD_VALUE, np.uint8)
    if right <= left or bottom <= top:
        return canvas
    # Only the cropped pixels go through Pillow: converting the whole photograph would cost more than the resize.
    margin = 4
    x0, y0 = max(int(inside[0]) - margin, 0), max(int(inside[1]) - margin, 0)
    x1, y1 = min(int(np.ceil(inside[2])) + margin, width), min(int(np.ceil(inside[3])) + margin, height)
    part = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    box = (inside[0] - x0, inside[1] - y0, inside[2] - x0, inside[3] - y0)
    canvas[top:bottom, left:right] = np.asarray(
        part.resize((right - left, bottom - top), RESAMPLING[interpolation], box=box)
    )
    return canvas


def frame_view(image: RgbImage, spec: ClassifierInput) -> RgbImage:
    """Return the whole photograph as the classifier sees it, uint8 (S, S, 3)."""
    height, width = image.shape[:2]
    return crop_resize(image, frame_square((width, height), spec.frame_fit), spec.size_px, spec.interpolation)


def box_view(image: RgbImage, box_xyxy: FloatArray, spec: ClassifierInput, padding: float = 0.1) -> RgbImage:
    """Return the square crop around one box as the classifier sees it, uint8 (S, S, 3)."""
    return crop_resize(image, box_square(box_xyxy, padding), spec.size_px, spec.interpolation)


def normalize(images_BCHW: torch.Tensor, spec: ClassifierInput) -> torch.Tensor:
    """Turn uint8 RGB batches into the classifier's float32 input, on the device they lie on.

    Args:
        images_BCHW: uint8 (B, 3, S, S).
        spec: Gives mean and standard deviation.

    Returns:
        float32 (B, 3, S, S), (x / 255 - mean) / std.
    """
    mean, std = _channel_constants(spec.mean, spec.std, images_BCHW.device)
    return (images_BCHW.float() - mean) / std


@functools.lru_cache(maxsize=8)
def _channel_constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    # Kept on the device: building them in every step would copy from the host in every step.
    shape = (1, 3, 1, 1)
    return torch.tensor(mean, device=device).view(shape) * 255, torch.tensor(std, device=device).view(shape) * 255


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The map from a photograph to the detector's square input: scale, then shift, both in pixels."""

    scale: float
    pad_x: float
    pad_y: float
    size_wh: tuple[int, int]

    def to_input(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Map boxes (N, 4) from pixels of the photograph to pixels of the input."""
        return np.asarray(np.asarray(boxes_xyxy, np.float32).reshape(-1, 4) * self.scale + self._shift(), np.float32)

    def to_image(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Map boxes (N, 4) from pixels of the input back to pixels of the photograph, cut at its edges."""
        boxes = (np.asarray(boxes_xyxy, np.float32).reshape(-1, 4) - self._shift()) / self.scale
        return clip_xyxy(np.asarray(boxes, np.float32), self.size_wh)

    def _shift(self) -> FloatArray:
        return np.array([self.pad_x, self.pad_y, self.pad_x, self.pad_y], np.float32)


def letterbox(image: RgbImage, size_px: int) -> tuple[RgbImage, Letterbox]:
    """Fit a photograph into the detector's square, centred on grey, without changing its proportions.

    Args:
        image: uint8 (H, W, 3).
        size_px: Side of the square, pixels.

    Returns:
        uint8 (size_px, size_px, 3) and the map between the two pixel systems.
    """
    height, width = image.shape[:2]
    resized = resize_longer_side(image, size_px)
    new_height, new_width = resized.shape[:2]
    top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
    canvas = np.full((size_px, size_px, 3), PAD_VALUE, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = resized
    return canvas, Letterbox(size_px / max(height, width), left, top, (width, height))


def resize_longer_side(image: RgbImage, size_px: int) -> RgbImage:
    """Resize so that the longer side is `size_px`; area averaging when shrinking, which does not alias."""
    height, width = image.shape[:2]
    scale = size_px / max(height, width)
    new_wh = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, new_wh, interpolation=interpolation), np.uint8)


def _square_around(center_x: float, center_y: float, side: float) -> Crop:
    return (center_x - side / 2, center_y - side / 2, center_x + side / 2, center_y + side / 2)
