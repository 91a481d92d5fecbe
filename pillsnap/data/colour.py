"""Random light for training views: drawn on the host from the sample's own generator, done on the device for a batch.

Brightness, contrast, saturation and hue are one affine map of RGB a picture, so a whole batch costs one small matrix
product on the GPU, where normalising is done anyway. On the CPU of a loader worker the same took longer than everything
else after decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pillsnap.data.preprocess import ClassifierInput, channel_constants

NUM_VALUES = 11
"""Of each picture: the 3 x 3 matrix row by row, the share of its mean that is added, the blur's deviation (pixels)."""
MEAN, BLUR = 9, 10
BLUR_SIGMAS = (0.3, 1.2)  # pixels
BLUR_RADIUS = 4  # pixels; beyond it the widest blur weighs less than 1 %
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of R, G, B, as in ITU-R BT.601
TO_YIQ = np.array([GREY_WEIGHTS, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
TO_RGB = np.linalg.inv(TO_YIQ)

Colour = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Strengths of the classifier's augmentation (`train.classification.augment`)."""

    rotation_degrees: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float


def draw_colour(augmentation: Augmentation, rng: np.random.Generator) -> Colour:
    """Draw the light of one view.

    Args:
        augmentation: Strengths; zeros leave the picture as it is.
        rng: The sample's own generator.

    Returns:
        float32 (NUM_VALUES,).
    """
    brightness = 1 + rng.uniform(-augmentation.brightness, augmentation.brightness)
    contrast = 1 + rng.uniform(-augmentation.contrast, augmentation.contrast)
    saturation = 1 + rng.uniform(-augmentation.saturation, augmentation.saturation)
    angle = 2 * math.pi * rng.uniform(-augmentation.hue, augmentation.hue)
    sigma = rng.uniform(*BLUR_SIGMAS)
    is_blurred = rng.random() < augmentation.blur
    out = np.empty(NUM_VALUES, np.float32)
    out[:MEAN] = (brightness * contrast * _turned_hue(angle, saturation)).ravel()
    out[MEAN] = brightness * (1 - contrast)  # contrast is around the mean; greys keep it, whatever the hue
    out[BLUR] = sigma if is_blurred else 0.0
    return out


def _turned_hue(angle: float, saturation: float) -> NDArray[np.float64]:
    """Return the map of RGB that turns hues by `angle` (radians) and scales saturation; greys stay as they are."""
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.asarray(TO_RGB @ turn @ TO_YIQ)


def apply_colour(images_BCHW: torch.Tensor, colour_BK: torch.Tensor, spec: ClassifierInput) -> torch.Tensor:
    """Give every picture of a batch its light and normalise it, on the device it lies on, without waiting for that.

    Both are affine in RGB and done at once; what the light takes beyond 8 bits is cut off as it would be between them.

    Args:
        images_BCHW: uint8 (B, 3, H, W), best in channels_last order.
        colour_BK: float32 (B, NUM_VALUES) from `draw_colour`, in host memory (which to blur is decided there).
        spec: Gives mean and standard deviation.

    Returns:
        float32 (B, 3, H, W), normalised as by `normalize`, in channels_last order.
    """
    device = images_BCHW.device
    batch, channels, height, width = images_BCHW.shape
    values = colour_BK.to(device, non_blocking=True)
    mean, std = (constant.flatten() for constant in channel_constants(spec.mean, spec.std, device))
    with torch.autocast(device.type, enabled=False):
        pixels_BNC = images_BCHW.permute(0, 2, 3, 1).reshape(batch, height * width, channels).float()
        offset_B3 = ((values[:, MEAN] * pixels_BNC.mean((1, 2)))[:, None] - mean) / std
        matrix = values[:, :MEAN].view(batch, 3, 3).transpose(1, 2) / std
        light = torch.baddbmm(offset_B3[:, None], pixels_BNC, matrix).clamp_(-mean / std, (255 - mean) / std)
        images = light.view(batch, height, width, channels).permute(0, 3, 1, 2)
        blurred = torch.nonzero(colour_BK[:, BLUR] > 0).flatten()
        if len(blurred):
            where = blurred.to(device, non_blocking=True)
            images[where] = _blur(images[where], values[where, BLUR])
    return images


def _blur(images_BCHW: torch.Tensor, sigmas_B: torch.Tensor) -> torch.Tensor:
    """Blur each picture by a Gaussian of its own deviation (pixels); the border is mirrored."""
    batch, channels, height, width = images_BCHW.shape
    distance = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images_BCHW.device, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (distance / sigmas_B[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = images_BCHW.reshape(1, batch * channels, height, width)
    padded = functional.pad(planes, (BLUR_RADIUS,) * 4, mode="reflect")
    rows = functional.conv2d(padded, kernels[:, None, None, :], groups=batch * channels)
    both = functional.conv2d(rows, kernels[:, None, :, None], groups=batch * channels)
    return both.view(batch, channels, height, width)
