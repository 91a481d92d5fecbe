"""Turns, tilts and lights a pill's relief: one pill as the camera sees it, with its silhouette and its shadow.

World axes: x right, y towards the viewer (down the picture), z up from the tray; the camera stands at the lower edge of
the picture, `latitude_deg` above the tray (90 = straight above). A point (x, y, z) appears at
`(x, y * sin(latitude) - z * cos(latitude))`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pillsnap.boxes import FloatArray
from pillsnap.data.synthetic_relief import Relief, scale_rgb

SUPERSAMPLING = 2  # the pill is drawn at twice the picture's resolution and averaged down
SLICES, BISECTIONS = 8, 3  # a line of sight is followed in 8 planes, then to 1/64 of the pill's thickness


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp and the colour it gives to everything."""

    direction: tuple[float, float, float]  # unit vector from the tray to the lamp
    gains_rgb: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a pill lies and how it is turned."""

    center_xy: tuple[float, float]  # pixels of the picture, of the point of the tray under the pill's middle
    rotation_deg: float
    latitude_deg: float
    px_per_mm: float  # of the picture


@dataclass(frozen=True, slots=True)
class Patch:
    """A piece of the picture: the pixels of a pill, or the shade of its shadow."""

    alpha: FloatArray  # (H, W) 0..1: how much of the pixel the pill covers, or how much light the shadow takes
    rgb: FloatArray  # (H, W, 3) 0..255, what covers it; black for a shadow
    origin_xy: tuple[int, int]  # of its upper left corner in the picture


def draw_pill(relief: Relief, pose: Pose, light: Light) -> Patch:
    """Draw one pill as seen by the camera, in neutral white light.

    Args:
        relief: Its upper side, at `SUPERSAMPLING` times `pose.px_per_mm`.
        pose: Where it lies.
        light: The lamp; its colour is not applied.
    """
    view = _View.of(relief, pose, SUPERSAMPLING, margin_mm=0.3)
    z_mm = _visible_height(relief, view)
    covered = (z_mm >= 0).astype(np.float32)
    map_x, map_y = view.relief_position(np.maximum(z_mm, 0))
    surface = _lit_surface(relief, pose, light)
    lit = np.asarray(cv2.remap(surface, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    # Light reaches the upright band less the nearer it is to the tray.
    openness = 0.8 + 0.2 * np.minimum(z_mm / (0.5 * relief.top_mm), 1)
    alpha = _average_down(covered)
    rgb = _average_down(scale_rgb(lit, openness * covered))
    uncovering = np.asarray(1 / np.maximum(alpha, 1e-3), np.float32)  # the average held the tray's black as well
    return Patch(alpha, scale_rgb(rgb, uncovering), view.origin_xy)


def cast_shadow(relief: Relief, pose: Pose, light: Light) -> Patch:
    """Draw the shadow of one pill on the tray."""
    view = _View.of(relief, pose, 1, margin_mm=1.4 * relief.top_mm)
    footprint = view.warp((relief.height_mm > 0).astype(np.float32), 0.0, 0.0)
    thickness_px = relief.top_mm * pose.px_per_mm
    reach = 0.55 * thickness_px / light.direction[2]
    shift = np.array([[1, 0, -light.direction[0] * reach], [0, 1, -light.direction[1] * reach]], np.float32)
    cast = cv2.warpAffine(footprint, shift, view.size_wh)
    soft = cv2.GaussianBlur(np.maximum(cast, footprint), (0, 0), max(0.6, 0.22 * thickness_px))
    contact = cv2.GaussianBlur(footprint, (0, 0), max(0.5, 0.07 * thickness_px))
    shade = np.minimum(0.34 * soft + 0.30 * contact, 0.8)
    return Patch(shade, np.zeros((*shade.shape, 3), np.float32), view.origin_xy)


@dataclass(frozen=True, slots=True)
class _View:
    """The affine map from an (oversampled) patch of the picture to the relief, for any height above the tray."""

    size_wh: tuple[int, int]  # of the patch, in oversampled pixels
    origin_xy: tuple[int, int]  # of the patch in the picture
    matrix: FloatArray  # (2, 3): patch pixel -> relief pixel, for points on the tray
    lift: FloatArray  # (2,): what a millimetre of height adds to the relief position

    @classmethod
    def of(cls, relief: Relief, pose: Pose, oversampling: int, margin_mm: float) -> _View:
        latitude, rotation = np.radians(pose.latitude_deg), np.radians(pose.rotation_deg)
        foreshortening = float(np.sin(latitude))
        reach = (relief.reach_mm + margin_mm) * pose.px_per_mm
        rise = float(np.cos(latitude)) * relief.top_mm * pose.px_per_mm
        center_x, center_y = pose.center_xy
        left, top = int(np.floor(center_x - reach)), int(np.floor(center_y - reach - rise))
        right, bottom = int(np.ceil(center_x + reach)), int(np.ceil(center_y + reach))
        middle = (np.array(pose.center_xy) - (left, top)) * oversampling - 0.5
        turn_back = np.array([[np.cos(rotation), np.sin(rotation)], [-np.sin(rotation), np.cos(rotation)]])
        scale = relief.px_per_mm / (pose.px_per_mm * oversampling)
        linear = scale * turn_back @ np.diag([1.0, 1.0 / foreshortening])
        rows, columns = relief.height_mm.shape
        offset = np.array([(columns - 1) / 2, (rows - 1) / 2]) - linear @ middle
        lift = linear @ np.array([0.0, np.cos(latitude) * pose.px_per_mm * oversampling])
        return cls(
            size_wh=((right - left) * oversampling, (bottom - top) * oversampling),
            origin_xy=(left, top),
            matrix=np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32),
            lift=lift.astype(np.float32),
        )

    def warp(self, source: FloatArray, height_mm: float, outside: float) -> FloatArray:
        """Return `source` (a map of the relief) as seen in the patch, if all of it lay at one height."""
        matrix = self.matrix.copy()
        matrix[:, 2] += height_mm * self.lift
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(source, matrix, self.size_wh, flags=flags, borderValue=outside)
        return np.asarray(warped, np.float32)

    def relief_position(self, height_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the relief pixel (x, y) that each patch pixel shows, given the height of what it shows."""
        u = np.arange(self.size_wh[0], dtype=np.float32)[None, :]
        v = np.arange(self.size_wh[1], dtype=np.float32)[:, None]
        first, second = (
            row[0] * u + row[1] * v + row[2] + lift * height_mm
            for row, lift in zip(self.matrix, self.lift, strict=True)
        )
        return first, second


def _visible_height(relief: Relief, view: _View) -> FloatArray:
    """Return the height in mm of the first surface on each line of sight, (H, W); -1 where it meets the tray.

    The line of sight is walked down plane by plane until it is below the surface, then the crossing is bisected:
    interpolating instead would leave rings on the upright band.
    """
    step = relief.top_mm / SLICES
    below = np.full(view.size_wh[::-1], -1.0, np.float32)
    for height in np.linspace(0.0, relief.top_mm, SLICES + 1):
        hit = view.warp(relief.height_mm, float(height), -1.0) >= np.float32(height)
        below[hit] = height
    seen = below >= 0
    for halving in range(1, BISECTIONS + 1):
        middle = below + np.float32(step / 2**halving)
        map_x, map_y = view.relief_position(middle)
        surface = cv2.remap(relief.height_mm, map_x, map_y, cv2.INTER_LINEAR, borderValue=-1.0)
        below = np.where(seen & (surface >= middle), middle, below)
    return below


def _lit_surface(relief: Relief, pose: Pose, light: Light) -> FloatArray:
    """Return the colour (H, W, 3) 0..255 of every point of the relief under the lamp, still in neutral white."""
    rotation, latitude = np.radians(pose.rotation_deg), np.radians(pose.latitude_deg)
    lamp = np.array(light.direction, np.float32)
    eye = np.array([0.0, np.cos(latitude), np.sin(latitude)], np.float32)
    halfway = (lamp + eye) / np.linalg.norm(lamp + eye)
    into_relief = np.array(
        [[np.cos(rotation), np.sin(rotation), 0], [-np.sin(rotation), np.cos(rotation), 0], [0, 0, 1]], np.float32
    )
    facing_lamp = np.maximum(relief.normals @ (into_relief @ lamp), 0)
    facing_up = 0.66 + 0.34 * relief.normals[:, :, 2]
    diffuse = 0.64 * facing_up + 0.36 * facing_lamp / lamp[2]
    mirrored = np.maximum(relief.normals @ (into_relief @ halfway), 0)
    highlight = relief.gloss * (90 * mirrored**60 + 28 * mirrored**12)
    return np.asarray(scale_rgb(relief.rgb, diffuse) + highlight[:, :, None], np.float32)


def _average_down(image: FloatArray) -> FloatArray:
    """Average blocks of `SUPERSAMPLING` pixels each way."""
    size_wh = (image.shape[1] // SUPERSAMPLING, image.shape[0] // SUPERSAMPLING)
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.float32)
