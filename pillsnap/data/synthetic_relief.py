"""The surface of one side of an invented pill, seen from straight above: height, colour and slope of every point.

A relief is drawn once per (drug, side, scale) in the pill's own frame; `synthetic_pills` turns, tilts and lights it.
Lengths are millimetres. The pill's long side lies along x; the line to its middle is the score line's direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from pillsnap.boxes import FloatArray
from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import Drug, Face

# As far below the tray as a pill's edge is above it, so that between an inner and an outer point the surface meets the
# tray half-way and pills keep their size.
OUTSIDE_MM = -3.0
CAP_STEP_MM = 0.12  # the cap of a hard capsule is that much wider than its body
CAP_EDGE = 0.04  # where the cap ends, as a fraction of the capsule's length from its middle
ENGRAVING_MM = 0.16
SCORE_DEPTH_MM, SCORE_HALF_WIDTH_MM = 0.35, 0.32
DARK_INK, LIGHT_INK = (52.0, 54.0, 66.0), (236.0, 236.0, 232.0)
GLYPH_CANVAS_PX = 64


@dataclass(frozen=True, slots=True)
class Relief:
    """Maps of shape (H, W[, 3]) float32 over a grid of `px_per_mm`, centred on the pill."""

    height_mm: FloatArray  # (H, W) above the ground; negative outside the pill
    normals: FloatArray  # (H, W, 3) unit vectors, z up
    rgb: FloatArray  # (H, W, 3) 0..255, the surface's own colour
    px_per_mm: float
    top_mm: float
    reach_mm: float  # from the middle to the farthest point of the outline
    gloss: float


# One job draws the pictures of one drug (2 sides) or of one combination (up to 4 pills), so a few entries suffice;
# at full size an entry takes about 8 MB.
@lru_cache(maxsize=8)
def build_relief(drug: Drug, is_back: bool, px_per_mm: float) -> Relief:
    """Draw one side of `drug`.

    Args:
        drug: The pill.
        is_back: Which side lies up.
        px_per_mm: Resolution of the maps.
    """
    x_mm, y_mm = _grid(drug, px_per_mm)
    distance = _outline_distance(drug, x_mm, y_mm)
    height = _body_height(drug, distance, x_mm, y_mm)
    rgb = _body_color(drug, x_mm, height.shape[0])
    face = drug.back if is_back else drug.front
    imprint = _imprint_mask(drug, face, height.shape, px_per_mm)
    if drug.is_capsule:
        rgb += (np.array(_ink(drug), np.float32) - rgb) * (0.8 * imprint)[:, :, None]
    else:
        engraved = cv2.GaussianBlur(imprint, (0, 0), max(0.5, 0.09 * px_per_mm))
        height -= ENGRAVING_MM * engraved + _score_groove(face, x_mm)
        # Shade gathers in the letters.
        rgb = scale_rgb(rgb, 1 - 0.22 * engraved + _mottling(drug, px_per_mm, height.shape))
    inside = distance < 0
    height = np.where(inside, np.maximum(height, 0.02), 0).astype(np.float32)
    return Relief(
        height_mm=np.where(inside, height, np.float32(OUTSIDE_MM)),
        normals=_normals(height, px_per_mm),
        rgb=rgb,
        px_per_mm=px_per_mm,
        top_mm=float(height.max()),
        reach_mm=float(np.hypot(x_mm, y_mm)[inside].max()),
        gloss=drug.gloss,
    )


def scale_rgb(rgb: FloatArray, factor: FloatArray) -> FloatArray:
    """Multiply every channel of `rgb` (H, W, 3) by `factor` (H, W): five times faster than NumPy's broadcasting."""
    return np.asarray(cv2.multiply(rgb, cv2.merge([factor, factor, factor])), np.float32)


def _grid(drug: Drug, px_per_mm: float) -> tuple[FloatArray, FloatArray]:
    margin = 1.0  # mm of ground on each side, so that bilinear look-ups never leave the map
    half_w = int(np.ceil((drug.long_mm / 2 + margin) * px_per_mm))
    half_h = int(np.ceil((drug.short_mm / 2 + margin) * px_per_mm))
    x_mm = np.arange(-half_w, half_w + 1, dtype=np.float32)[None, :] / np.float32(px_per_mm)
    y_mm = np.arange(-half_h, half_h + 1, dtype=np.float32)[:, None] / np.float32(px_per_mm)
    return x_mm, y_mm


def _outline_distance(drug: Drug, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
    """Return the signed distance to the outline in mm, (H, W), negative inside."""
    a, b = drug.long_mm / 2, drug.short_mm / 2
    if drug.shape == "round":
        return np.asarray(np.hypot(x_mm, y_mm) - a, np.float32)
    if drug.shape in ("oblong", "capsule"):
        beyond = np.maximum(np.abs(x_mm) - (a - b), 0)
        return np.asarray(np.hypot(beyond, y_mm) - b, np.float32)
    if drug.shape == "oval":
        # First-order distance to an ellipse: exact on the outline, good enough a few mm away.
        level = np.hypot(x_mm / a, y_mm / b)
        slope = np.hypot(x_mm / a**2, y_mm / b**2)
        return np.asarray(level * (level - 1) / np.maximum(slope, 1e-3), np.float32)
    corner_mm = 0.12 * drug.short_mm
    return _polygon_distance(OUTLINES[drug.shape](a - corner_mm, b - corner_mm), x_mm, y_mm) - np.float32(corner_mm)


def _regular(corners: int) -> Callable[[float, float], FloatArray]:
    def vertices(a: float, _b: float) -> FloatArray:
        angles = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2
        return np.stack([a * np.cos(angles), a * np.sin(angles)], axis=1).astype(np.float32)

    return vertices


def _half_disc(a: float, b: float) -> FloatArray:
    angles = np.linspace(np.pi, 2 * np.pi, 15)
    return np.stack([a * np.cos(angles), b + 2 * b * np.sin(angles)], axis=1).astype(np.float32)


# Corners (N, 2) of the convex outlines, in mm, for half the long and half the short side.
OUTLINES: dict[str, Callable[[float, float], FloatArray]] = {
    "square": lambda a, b: np.array([[-a, -b], [a, -b], [a, b], [-a, b]], np.float32),
    "diamond": lambda a, b: np.array([[0, -b], [a, 0], [0, b], [-a, 0]], np.float32),
    "triangle": _regular(3),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "octagon": _regular(8),
    "half_round": _half_disc,
}


def _polygon_distance(corners: FloatArray, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
    """Return the signed distance to a convex polygon whose corners (N, 2) run clockwise on the screen."""
    nearest = np.full(np.broadcast_shapes(x_mm.shape, y_mm.shape), np.inf, np.float32)
    beyond = np.full_like(nearest, -np.inf)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = end - start
        length = np.hypot(edge[0], edge[1])
        dx, dy = x_mm - start[0], y_mm - start[1]
        along = np.clip((dx * edge[0] + dy * edge[1]) / length**2, 0, 1)
        nearest = np.minimum(nearest, np.hypot(dx - along * edge[0], dy - along * edge[1]))
        beyond = np.maximum(beyond, (dx * edge[1] - dy * edge[0]) / length)
    return np.asarray(np.where(beyond > 0, nearest, -nearest), np.float32)


def _body_height(drug: Drug, distance: FloatArray, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
    """Return the height above the ground of the bare body, (H, W) mm."""
    depth = np.maximum(-distance, 0)
    radius = drug.short_mm / 2
    if drug.is_capsule:
        rise = np.sqrt(np.maximum(radius**2 - (radius - np.minimum(depth, radius)) ** 2, 0))
        cap = 1 / (1 + np.exp(np.clip((x_mm - CAP_EDGE * drug.long_mm) / 0.05, -30, 30)))
        return np.asarray(radius + rise + CAP_STEP_MM * cap, np.float32)
    # A pressed tablet: an upright band, a rounded shoulder, and a shallow dome over the whole face.
    band, dome = 0.62 * drug.thick_mm, 0.28 * drug.thick_mm
    shoulder_mm = 0.10 * drug.thick_mm
    shoulder = np.sqrt(1 - (1 - np.minimum(depth / (0.16 * radius), 1)) ** 2)
    vault = np.maximum(1 - (x_mm / (drug.long_mm / 2)) ** 2 - (y_mm / radius) ** 2, 0)
    return np.asarray(band + shoulder_mm * shoulder + dome * vault, np.float32)


def _body_color(drug: Drug, x_mm: FloatArray, num_rows: int) -> FloatArray:
    first, second = np.array(drug.rgbs[0], np.float32), np.array(drug.rgbs[-1], np.float32)
    is_cap = (x_mm[0] < CAP_EDGE * drug.long_mm)[:, None]
    row = np.where(is_cap, first, second).astype(np.float32)
    return np.repeat(row[None], num_rows, axis=0)


def _mottling(drug: Drug, px_per_mm: float, shape_hw: tuple[int, int]) -> FloatArray:
    """Return the uneven tint of pressed powder, (H, W) around 0; a coating hides most of it."""
    coarse = sample_generator(drug.code, "mottling").standard_normal((40, 40), np.float32)
    rows, columns = np.ceil(np.array(shape_hw) * (2 / px_per_mm)).astype(int).clip(2, 40)  # spots of half a mm
    spots = cv2.resize(coarse[:rows, :columns], shape_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(0.03 * (1 - drug.gloss) * spots, np.float32)


def _ink(drug: Drug) -> tuple[float, float, float]:
    """Printing is dark on a light cap and white on a dark one."""
    return DARK_INK if np.mean(drug.rgbs[0]) > 120 else LIGHT_INK


def _score_groove(face: Face, x_mm: FloatArray) -> FloatArray:
    """Return the depth in mm of the line across the middle, (1, W)."""
    if not face.has_score_line:
        return np.zeros_like(x_mm)
    return np.asarray(SCORE_DEPTH_MM * np.exp(-((x_mm / SCORE_HALF_WIDTH_MM) ** 2)), np.float32)


def _imprint_mask(drug: Drug, face: Face, shape_hw: tuple[int, int], px_per_mm: float) -> FloatArray:
    """Return how much of each point the lettering covers, (H, W) in 0..1."""
    mask = np.zeros(shape_hw, np.float32)
    if not face.text:
        return mask
    narrow = drug.shape in ("triangle", "half_round", "diamond")
    box_h = (0.36 if narrow else 0.44) * drug.short_mm * px_per_mm
    if not (face.has_score_line or drug.is_capsule):
        box_w = (0.45 if narrow else 0.62) * drug.long_mm * px_per_mm
        _write(mask, face.text, 0.0, (box_w, box_h))
        return mask
    offset_px, box_w = 0.24 * drug.long_mm * px_per_mm, 0.28 * drug.long_mm * px_per_mm
    # A score line has half of the text on either side; a capsule carries it on its cap.
    middle = len(face.text) if drug.is_capsule else len(face.text) // 2
    for text, offset in ((face.text[:middle], -offset_px), (face.text[middle:], offset_px)):
        if text:
            _write(mask, text, offset, (box_w, box_h))
    return mask


def _write(mask: FloatArray, text: str, offset_x_px: float, box_wh: tuple[float, float]) -> None:
    """Write `text` into `mask`, as large as fits a box centred `offset_x_px` right of the middle."""
    canvas = np.zeros((2 * GLYPH_CANVAS_PX, GLYPH_CANVAS_PX * (len(text) + 1)), np.uint8)
    origin = (GLYPH_CANVAS_PX // 3, 3 * GLYPH_CANVAS_PX // 2)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 2.0, 255, 6, cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(canvas)
    scale = min(box_wh[0] / w, box_wh[1] / h)
    size_wh = (max(1, round(w * scale)), max(1, round(h * scale)))
    glyphs = cv2.resize(canvas[y : y + h, x : x + w], size_wh, interpolation=cv2.INTER_AREA)
    top = (mask.shape[0] - size_wh[1]) // 2
    left = round((mask.shape[1] - size_wh[0]) / 2 + offset_x_px)
    mask[top : top + size_wh[1], left : left + size_wh[0]] = glyphs.astype(np.float32) / 255


def _normals(height_mm: FloatArray, px_per_mm: float) -> FloatArray:
    """Return unit normals (H, W, 3) of a height map."""
    smooth = cv2.GaussianBlur(height_mm, (0, 0), max(0.6, 0.07 * px_per_mm))
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=px_per_mm / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=px_per_mm / 8)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    return np.asarray(np.stack([-slope_x / length, -slope_y / length, 1 / length], axis=2), np.float32)
