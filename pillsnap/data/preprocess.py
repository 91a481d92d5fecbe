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

from pillsnap.boxes import FloatArray, clip_xyxy
from pillsnap.data.images import RgbImage
from pillsnap.errors import CheckpointError

PAD_VALUE = 114  # the grey YOLO models are trained to see as "nothing"
GREY = (PAD_VALUE, PAD_VALUE, PAD_VALUE)
RESIZER = "opencv-halves-linear-cubic"
"""How pictures change size, everywhere (`resized`): halved by the mean of 2x2 pixels while they are twice too large,
then by OpenCV's linear interpolation; by its bicubic one when they grow. A checkpoint names it, because another one
shows a model other pictures. Shrinking 976x1280 to 293x384 takes 0.45 ms so and 2.8 ms by OpenCV's area average; the
two are 49 dB (PSNR) apart on pills."""

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
    frame_fit: str
    """How a whole photograph becomes a square: `letterbox` keeps all of it, `center` cuts the central square."""
    resizer: str = RESIZER
    """How pictures change size; there is one way."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint or JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierInput:
        """Rebuild from `to_dict`.

        Raises:
            CheckpointError: The model was trained on pictures resized in another way.
        """
        if "size_px" in values and values.get("resizer") != RESIZER:
            raise CheckpointError(
                f"The classifier was trained on pictures resized by {values.get('resizer', 'an older version')!r}; "
                f"this version resizes by {RESIZER!r}, and it would answer other pictures than it was judged on. Use "
                "the version that trained it, or train again."
            )
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


def crop_resize(image: RgbImage, crop: Crop, size_px: int) -> RgbImage:
    """Cut the square `crop` out of a picture and resize it by `RESIZER`; what lies outside the picture becomes grey.

    Args:
        image: uint8 (H, W, 3).
        crop: x_min, y_min, x_max, y_max in pixels, fractions allowed, may reach outside the picture.
        size_px: Side of the square result.

    Returns:
        uint8 (size_px, size_px, 3).
    """
    scale = size_px / (crop[2] - crop[0])
    return _enlarged(image, crop, size_px, scale) if scale >= 1 else _shrunk(image, crop, size_px, scale)


def _enlarged(image: RgbImage, crop: Crop, size_px: int, scale: float) -> RgbImage:
    # Pixel centres lie at half numbers: output u shows picture x = x_min + (u + 1/2) / scale - 1/2.
    to_picture = np.array(
        [[1 / scale, 0, crop[0] + 0.5 / scale - 0.5], [0, 1 / scale, crop[1] + 0.5 / scale - 0.5]], np.float64
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, to_picture, (size_px, size_px), flags=flags, borderValue=GREY)
    return np.asarray(out, np.uint8)


def _shrunk(image: RgbImage, crop: Crop, size_px: int, scale: float) -> RgbImage:
    height, width = image.shape[:2]
    x_min, y_min, x_max, y_max = crop
    inside = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
    left, top = round((inside[0] - x_min) * scale), round((inside[1] - y_min) * scale)
    right, bottom = round((inside[2] - x_min) * scale), round((inside[3] - y_min) * scale)
    canvas = np.full((size_px, size_px, 3), PAD_VALUE, np.uint8)
    # Edges are rounded to whole pixels of the picture, which are the smaller ones here.
    x0, y0, x1, y1 = (round(value) for value in inside)
    if right > left and bottom > top and x1 > x0 and y1 > y0:
        canvas[top:bottom, left:right] = resized(image[y0:y1, x0:x1], (right - left, bottom - top))
    return canvas


def resized(image: RgbImage, size_wh: tuple[int, int]) -> RgbImage:
    """Return a picture in another size, by `RESIZER`.

    Args:
        image: uint8 (H, W, 3).
        size_wh: Wanted width and height, pixels.

    Returns:
        uint8 (height, width, 3); `image` itself where it has that size.
    """
    width, height = size_wh
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        half_wh = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half_wh, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == (height, width):
        return image
    is_smaller = width <= image.shape[1] and height <= image.shape[0]
    interpolation = cv2.INTER_LINEAR if is_smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)


def frame_view(image: RgbImage, spec: ClassifierInput) -> RgbImage:
    """Return the whole photograph as the classifier sees it, uint8 (S, S, 3)."""
    height, width = image.shape[:2]
    return crop_resize(image, frame_square((width, height), spec.frame_fit), spec.size_px)


def box_view(image: RgbImage, box_xyxy: FloatArray, spec: ClassifierInput, padding: float = 0.1) -> RgbImage:
    """Return the square crop around one box as the classifier sees it, uint8 (S, S, 3)."""
    return crop_resize(image, box_square(box_xyxy, padding), spec.size_px)


def normalize(images_BCHW: torch.Tensor, spec: ClassifierInput) -> torch.Tensor:
    """Turn RGB batches into the classifier's float32 input, on the device they lie on.

    Args:
        images_BCHW: uint8 or float32 (B, 3, S, S), 0..255.
        spec: Gives mean and standard deviation.

    Returns:
        float32 (B, 3, S, S), (x / 255 - mean) / std.
    """
    mean, std = channel_constants(spec.mean, spec.std, images_BCHW.device)
    return torch.sub(images_BCHW, mean).div_(std)


@functools.lru_cache(maxsize=8)
def channel_constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of RGB in 0..255, (1, 3, 1, 1) each.

    They are kept on the device: building them in every step would copy from the host in every step.
    """
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


def letterbox(image: RgbImage, size_px: int, size_wh: tuple[int, int] | None = None) -> tuple[RgbImage, Letterbox]:
    """Fit a photograph into the detector's square, centred on grey, without changing its proportions.

    Args:
        image: uint8 (H, W, 3), the photograph or what `resize_longer_side` made of it.
        size_px: Side of the square, pixels.
        size_wh: Size of the photograph, pixels; None: that of `image`.

    Returns:
        uint8 (size_px, size_px, 3) and the map between the two pixel systems.
    """
    height, width = image.shape[:2]
    resized = image if max(height, width) == size_px else resize_longer_side(image, size_px)
    new_height, new_width = resized.shape[:2]
    top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
    canvas = np.full((size_px, size_px, 3), PAD_VALUE, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = resized
    size_wh = (width, height) if size_wh is None else size_wh
    return canvas, Letterbox(size_px / max(size_wh), left, top, size_wh)


def resize_longer_side(image: RgbImage, size_px: int) -> RgbImage:
    """Resize so that the longer side is `size_px`."""
    height, width = image.shape[:2]
    scale = size_px / max(height, width)
    return resized(image, (max(round(width * scale), 1), max(round(height * scale), 1)))


def _square_around(center_x: float, center_y: float, side: float) -> Crop:
    return (center_x - side / 2, center_y - side / 2, center_x + side / 2, center_y + side / 2)
