"""A whole synthetic photograph: a tray, a lamp, pills laid on it, and the camera's noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.images import RgbImage
from pillsnap.data.synthetic_drugs import Drug
from pillsnap.data.synthetic_pills import SUPERSAMPLING, Light, Patch, Pose, cast_shadow, draw_pill
from pillsnap.data.synthetic_relief import build_relief, scale_rgb

FULL_SIZE_WH = (976, 1280)
FULL_PX_PER_MM = 22.0  # of the full size: pills of 9..19 mm become 200..420 px, as in the real set

# Colour casts of the three lamps after a camera's white balance: warm bulb, daylight, neutral white.
LAMP_GAINS: tuple[tuple[float, float, float], ...] = ((1.06, 0.99, 0.86), (0.95, 0.99, 1.06), (1.0, 1.0, 0.98))
LAMP_AZIMUTHS_DEG = (215.0, 240.0, 300.0)
TRAY_RGB: tuple[tuple[float, float, float], ...] = ((112.0, 122.0, 134.0), (214.0, 198.0, 172.0), (206.0, 208.0, 209.0))
DARK_WEAVE, FIBRE_PAPER, LIGHT_GREY = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Shot:
    """What the camera is set to: the fields of the file name that change the picture."""

    background: int
    side: int
    light: int
    latitude: int
    longitude: int


@dataclass(frozen=True, slots=True)
class PlacedPill:
    """A pill on the tray, in the tray's own pixels (as seen from straight above)."""

    drug: Drug
    tray_xy: tuple[float, float]
    rotation_deg: float


@dataclass(frozen=True, slots=True)
class Photograph:
    """A drawn picture and where its pills are visible."""

    image: RgbImage
    masks: list[NDArray[np.bool_]]  # one (H, W) a pill, in the order given

    def box_xywh(self, pill: int) -> tuple[int, int, int, int]:
        """Return the tight box of one pill's visible pixels: left, top, width, height."""
        x, y, w, h = cv2.boundingRect(self.masks[pill].view(np.uint8))
        return int(x), int(y), int(w), int(h)


def picture_scale(size_wh: tuple[int, int]) -> float:
    """Return how much smaller than the real set's a picture of this size is."""
    return min(size_wh[0] / FULL_SIZE_WH[0], size_wh[1] / FULL_SIZE_WH[1])


def take_photograph(
    pills: Sequence[PlacedPill], shot: Shot, size_wh: tuple[int, int], rng: np.random.Generator
) -> Photograph:
    """Draw one picture.

    Args:
        pills: What lies on the tray; none may cover another.
        shot: Background, side up, lamp and latitude.
        size_wh: Picture size in pixels.
        rng: The picture's own randomness: exposure, lamp position, noise.
    """
    scale = picture_scale(size_wh)
    light = _lamp(shot.light, rng)
    canvas = _tray(shot, size_wh, scale, rng)
    px_per_mm = FULL_PX_PER_MM * scale
    lying = []
    for pill in pills:
        relief = build_relief(pill.drug, shot.side == 1, px_per_mm * SUPERSAMPLING)
        place = _tilt(pill.tray_xy, shot.latitude, size_wh)
        lying.append((relief, Pose(place, pill.rotation_deg, float(shot.latitude), px_per_mm)))
    for relief, pose in lying:
        _lay_over(canvas, cast_shadow(relief, pose, light))
    masks = [_lay_over(canvas, draw_pill(relief, pose, light)) for relief, pose in lying]
    return Photograph(_develop(canvas, light, scale, rng), masks)


def _lamp(light: int, rng: np.random.Generator) -> Light:
    azimuth = np.radians(LAMP_AZIMUTHS_DEG[light] + rng.uniform(-15, 15))
    elevation = np.radians(rng.uniform(50, 62))
    direction = (
        float(np.cos(azimuth) * np.cos(elevation)),
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
    )
    gains = np.array(LAMP_GAINS[light]) * rng.uniform(0.98, 1.02, 3)
    return Light(direction, (float(gains[0]), float(gains[1]), float(gains[2])))


def _tilt(tray_xy: tuple[float, float], latitude: int, size_wh: tuple[int, int]) -> tuple[float, float]:
    """Return where a point of the tray appears when the camera leaves the vertical; the middle stays."""
    middle = size_wh[1] / 2
    return tray_xy[0], middle + (tray_xy[1] - middle) * float(np.sin(np.radians(latitude)))


def _tray(shot: Shot, size_wh: tuple[int, int], scale: float, rng: np.random.Generator) -> FloatArray:
    """Return the empty tray (H, W, 3) float32."""
    width, height = size_wh
    if shot.background == DARK_WEAVE:
        grain = _weave(size_wh, shot.latitude, scale, rng)
    elif shot.background == FIBRE_PAPER:
        grain = 5 * _blotches(size_wh, (6 * scale, 22 * scale), rng) + 3 * _blotches(size_wh, (60 * scale,) * 2, rng)
    else:
        grain = 2 * _blotches(size_wh, (90 * scale,) * 2, rng)
    canvas = np.empty((height, width, 3), np.float32)
    for channel, level in enumerate(TRAY_RGB[shot.background]):
        canvas[:, :, channel] = level + grain
    return canvas


def _weave(size_wh: tuple[int, int], latitude: int, scale: float, rng: np.random.Generator) -> FloatArray:
    """Return the threads of a cloth, (H, W); rows move together as the camera leaves the vertical."""
    period = max(9.0 * scale, 3.0)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    u = np.arange(size_wh[0], dtype=np.float32) * np.float32(2 * np.pi / period)
    v = np.arange(size_wh[1], dtype=np.float32) * np.float32(2 * np.pi / period / np.sin(np.radians(latitude)))
    threads = np.outer(np.sin(v + phase_y), np.sin(u + phase_x))
    return np.asarray(6 * threads + 4 * _blotches(size_wh, (14 * scale,) * 2, rng), np.float32)


def _blotches(size_wh: tuple[int, int], cell_wh: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """Return smooth noise (H, W) of unit strength whose spots are about a cell (pixels) large."""
    columns = max(2, int(size_wh[0] / max(cell_wh[0], 1)))
    rows = max(2, int(size_wh[1] / max(cell_wh[1], 1)))
    coarse = rng.standard_normal((rows, columns), np.float32)
    return np.asarray(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC), np.float32)


def _lay_over(canvas: FloatArray, patch: Patch) -> NDArray[np.bool_]:
    """Put a pill or a shadow onto the canvas, in place; return where it covers most of a pixel, (H, W)."""
    height, width = canvas.shape[:2]
    left, top = patch.origin_xy
    rows, columns = patch.alpha.shape
    in_canvas = np.s_[max(top, 0) : min(top + rows, height), max(left, 0) : min(left + columns, width)]
    in_patch = np.s_[max(-top, 0) : height - top, max(-left, 0) : width - left]
    alpha = patch.alpha[in_patch]
    below = scale_rgb(np.ascontiguousarray(canvas[in_canvas]), 1 - alpha)
    canvas[in_canvas] = below + scale_rgb(np.ascontiguousarray(patch.rgb[in_patch]), alpha)
    mask = np.zeros((height, width), np.bool_)
    mask[in_canvas] = alpha > 0.5
    return mask


def _develop(canvas: FloatArray, light: Light, scale: float, rng: np.random.Generator) -> RgbImage:
    """Apply the lamp's colour and fall-off, the exposure and the sensor's noise; return uint8 (H, W, 3)."""
    height, width = canvas.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    exposure = np.float32(rng.uniform(0.96, 1.04))
    field = 1 + np.float32(0.05) * (light.direction[0] * across + light.direction[1] * down - across**2 - down**2)
    strength = np.float32(1.2 + 1.2 * scale)  # a small picture is an averaged-down, hence quieter one
    grain = strength * rng.standard_normal((height, width), np.float32)
    chroma = 0.8 * strength * rng.standard_normal((height // 3, width // 3, 3), np.float32)
    lit = cv2.multiply(canvas, cv2.merge([(exposure * gain) * field for gain in light.gains_rgb]))
    lit = cv2.add(lit, cv2.merge([grain, grain, grain]))
    lit = cv2.add(lit, cv2.resize(chroma, (width, height)))
    return np.asarray(np.clip(lit, 0, 255).round(), np.uint8)
