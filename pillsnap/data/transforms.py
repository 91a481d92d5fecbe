"""Random views of a pill for training the classifier: where to cut, how far to turn, what light.

There is no mirroring: it would turn an imprint into one that no drug carries (DAT-7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pillsnap.boxes import FloatArray
from pillsnap.data.images import RgbImage
from pillsnap.data.preprocess import PAD_VALUE, ClassifierInput, Crop, box_square, crop_resize, frame_square

MAX_BOX_PADDING = 0.25  # inference pads detector boxes by 0.1, and detectors err by a few per cent of the box
MAX_SHIFT = 0.06  # of the crop's side
FRAME_SCALE = (0.8, 1.05)
VIEW_SHARES = (0.35, 0.35)  # tight crop, whole frame; the rest lies between the two


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Strengths of the classifier's augmentation (`train.classification.augment`)."""

    rotation_degrees: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float


def training_view(
    image: RgbImage,
    box_xyxy: FloatArray | None,
    spec: ClassifierInput,
    augmentation: Augmentation,
    view: str,
    rng: np.random.Generator,
) -> RgbImage:
    """Return one random view of a pill.

    Args:
        image: uint8 (H, W, 3) RGB.
        box_xyxy: (4,) pixels, or None when the pill's place is unknown (then the whole frame is the view).
        spec: Gives size, interpolation and how a frame becomes a square.
        augmentation: Strengths.
        view: `box` (tight), `frame` (whole photograph) or `both` (anything from tight to whole).
        rng: The sample's own generator.

    Returns:
        uint8 (S, S, 3).
    """
    height, width = image.shape[:2]
    square = random_square((width, height), box_xyxy, spec.frame_fit, view, rng)
    turned = _rotated_crop(image, square, spec, augmentation.rotation_degrees, rng)
    return _recolour(turned, augmentation, rng)


def random_square(
    size_wh: tuple[int, int], box_xyxy: FloatArray | None, frame_fit: str, view: str, rng: np.random.Generator
) -> Crop:
    """Draw the square to cut: around the box, the whole frame, or one of a size between the two."""
    kind = "frame" if box_xyxy is None else view
    frame = frame_square(size_wh, frame_fit)
    if kind == "both":
        draw = rng.random()
        kind = "box" if draw < VIEW_SHARES[0] else "frame" if draw < sum(VIEW_SHARES) else "between"
    if kind == "frame" or box_xyxy is None:
        scale = rng.uniform(*FRAME_SCALE)
        return _scaled_shifted(frame, scale, MAX_SHIFT, rng)
    tight = box_square(box_xyxy, rng.uniform(0.0, MAX_BOX_PADDING))
    if kind == "box":
        return _scaled_shifted(tight, 1.0, MAX_SHIFT, rng)
    return _between(tight, frame, rng)


def _between(tight: Crop, frame: Crop, rng: np.random.Generator) -> Crop:
    # Sizes are drawn evenly on a logarithmic scale; the centre moves from the pill's to the frame's with the size.
    tight_side, frame_side = tight[2] - tight[0], max(frame[2] - frame[0], tight[2] - tight[0])
    share = rng.random()
    side = tight_side * (frame_side / tight_side) ** share
    center_x = (1 - share) * (tight[0] + tight[2]) / 2 + share * (frame[0] + frame[2]) / 2
    center_y = (1 - share) * (tight[1] + tight[3]) / 2 + share * (frame[1] + frame[3]) / 2
    square = (center_x - side / 2, center_y - side / 2, center_x + side / 2, center_y + side / 2)
    return _scaled_shifted(square, 1.0, MAX_SHIFT, rng)


def _scaled_shifted(square: Crop, scale: float, max_shift: float, rng: np.random.Generator) -> Crop:
    side = (square[2] - square[0]) * scale
    center_x = (square[0] + square[2]) / 2 + rng.uniform(-max_shift, max_shift) * side
    center_y = (square[1] + square[3]) / 2 + rng.uniform(-max_shift, max_shift) * side
    return (center_x - side / 2, center_y - side / 2, center_x + side / 2, center_y + side / 2)


def _rotated_crop(
    image: RgbImage, square: Crop, spec: ClassifierInput, max_degrees: float, rng: np.random.Generator
) -> RgbImage:
    """Cut a square large enough that turning it leaves no corner empty, turn it, and keep the middle."""
    degrees = rng.uniform(-max_degrees, max_degrees)
    radians = math.radians(degrees)
    factor = abs(math.cos(radians)) + abs(math.sin(radians))
    size = math.ceil(spec.size_px * factor)
    grow = (square[2] - square[0]) * (size / spec.size_px - 1) / 2
    larger = (square[0] - grow, square[1] - grow, square[2] + grow, square[3] + grow)
    cut = crop_resize(image, larger, size, spec.interpolation)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), degrees, 1.0)
    matrix = matrix - np.array([[0, 0, (size - spec.size_px) / 2]])
    turned = cv2.warpAffine(
        cut,
        matrix,
        (spec.size_px, spec.size_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PAD_VALUE, PAD_VALUE, PAD_VALUE),
    )
    return np.asarray(turned, np.uint8)


def _recolour(image: RgbImage, augmentation: Augmentation, rng: np.random.Generator) -> RgbImage:
    brightness = 1 + rng.uniform(-augmentation.brightness, augmentation.brightness)
    contrast = 1 + rng.uniform(-augmentation.contrast, augmentation.contrast)
    saturation = 1 + rng.uniform(-augmentation.saturation, augmentation.saturation)
    hue = rng.uniform(-augmentation.hue, augmentation.hue)
    sigma = rng.uniform(0.3, 1.2)
    should_blur = rng.random() < augmentation.blur
    offset = float(image.mean()) * (1 - contrast) * brightness
    out = cv2.convertScaleAbs(image, alpha=contrast * brightness, beta=offset)
    grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    out = cv2.addWeighted(out, saturation, grey, 1 - saturation, 0)
    if augmentation.hue > 0:
        hsv = cv2.cvtColor(out, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = ((hsv[..., 0].astype(np.int16) + round(hue * 180)) % 180).astype(np.uint8)
        out = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if should_blur:
        out = cv2.GaussianBlur(out, (0, 0), sigma)
    return np.asarray(out, np.uint8)
