"""What a pill looks like to a pharmacist: colour, outline and size, measured without any trained model.

A classifier only has to tell the drugs it was trained on from each other. If one of them is green, green is enough: it
names every other green pill after that drug, with full confidence, and no score made of its outputs or features tells
the difference. So an answer is checked against the pictures it was learned from: does this pill look like a training
pill of the drug it was given the name of? The descriptor needs no weights, and 22 numbers a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.images import RgbImage

RECIPE = 1  # raised whenever `describe` would give other numbers for the same picture
NUM_FEATURES = 22
VIEW_PX = 224
"""Longer side of what is looked at."""
FRAME_SHARE = {"center": 0.62, "letterbox": 1.0}
"""Part of a picture of one pill in which it is looked for, in its middle, by how the classifier sees the picture."""
MAX_REFERENCES = 48
"""Training pills of a drug that are worth keeping: 5,000 drugs take 21 MB."""
BOX_PADDING = 0.3
"""Of a box's longer side, added at each end: the background is measured along the border."""
MIN_CONTRAST = 14.0
"""Twice the least Lab distance (8 bit) between pill and background; a white tablet on white paper has about 20."""
_BORDER_PX = 8
_LIGHTNESS_WEIGHT = 0.6  # of a difference; shadows change lightness, not hue
_NUM_ANGLES, _HARMONICS = 128, slice(2, 8)
_SHRINKAGE = 0.05  # of the covariance towards its diagonal

Descriptors = NDArray[np.float32]
_Lab = NDArray[np.float32]
_Mask = NDArray[np.uint8]


def describe(image: RgbImage, box_xyxy: FloatArray | None = None, frame_fit: str = "center") -> Descriptors:
    """Measure one pill.

    Args:
        image: uint8 (H, W, 3) RGB, the whole picture.
        box_xyxy: (4,) pixels; None where the picture shows one pill, which is then looked for around the middle.
        frame_fit: `center` or `letterbox`, how the classifier sees a whole picture: how far from the middle to look.

    Returns:
        float32 (22,): Lab colour of the pill, its difference to the background around, the colours of both halves
        along its longer axis, log of its length relative to the picture's shorter side, log of length over width, how
        full its rectangle and its convex hull are, and six harmonics of its outline. All NaN where nothing stands out
        from the background.
    """
    if box_xyxy is None:
        box_xyxy = _found_box(image, frame_fit)
        if box_xyxy is None:
            return np.full(NUM_FEATURES, np.nan, np.float32)
    left, top, right, bottom = (float(value) for value in box_xyxy)
    half = max(right - left, bottom - top) * (0.5 + BOX_PADDING)
    view = _View.of(image, (left + right) / 2, (top + bottom) / 2, half)
    scale = view.scale
    lab, background = _lab_and_background(view.pixels)
    mask = _pill_mask(lab - background, view.centre_xy)
    if mask is None:
        return np.full(NUM_FEATURES, np.nan, np.float32)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)
    filled: _Mask = np.zeros_like(mask)
    cv2.drawContours(filled, [contour], -1, 1, -1)
    length_unit = min(image.shape[:2]) * scale
    return np.concatenate([_colours(lab, background, filled), _outline(contour, length_unit)]).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """What the training pills of every drug look like: R measured pills, in coordinates in which drugs vary evenly."""

    references: Descriptors
    """(R, F) float32, times `whitening`; sorted by class."""
    labels: NDArray[np.int32]
    """(R,) class numbers, ascending."""
    whitening: NDArray[np.float32]
    """(F, F): pills of the same drug have the covariance 1 after it."""

    @classmethod
    def fit(cls, descriptors: Descriptors, labels: NDArray[np.integer[Any]]) -> Appearance:
        """Take training pills as they are, and learn how much pills of one drug differ.

        Args:
            descriptors: (R, F) from `describe`; rows with NaN (no pill was seen) are left out.
            labels: (R,) class numbers.

        Raises:
            ValueError: No pills, or not one label a pill.
        """
        if len(descriptors) != len(labels) or not np.isfinite(descriptors).all(axis=1).any():
            raise ValueError(
                f"got {len(descriptors)} measured pills and {len(labels)} labels; wanted as many of both, and at least "
                "one. Measure pictures of the training side."
            )
        is_measured = np.isfinite(descriptors).all(axis=1)
        descriptors, labels = descriptors[is_measured], labels[is_measured]
        order = np.argsort(labels, kind="stable")
        values, sorted_labels = descriptors[order].astype(np.float64), labels[order].astype(np.int32)
        starts = np.flatnonzero(np.diff(sorted_labels, prepend=-1))
        sizes = np.diff(np.append(starts, len(values)))
        centres = np.stack([np.median(part, axis=0) for part in np.split(values, starts[1:])])
        rest = values - np.repeat(centres, sizes, axis=0)
        covariance = rest.T @ rest / len(rest)
        diagonal = np.diag(covariance) + 1e-6
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(diagonal) + 1e-6 * np.eye(len(diagonal))
        whitening = np.linalg.cholesky(np.linalg.inv(shrunk)).astype(np.float32)
        return cls((values @ whitening).astype(np.float32), sorted_labels, whitening)

    def distances(self, descriptors: Descriptors, classes: NDArray[np.integer[Any]]) -> Descriptors:
        """Return how far pills are from the most similar training pill of a drug.

        Args:
            descriptors: (N, F) from `describe`.
            classes: (N,) the drug each is compared with.

        Returns:
            (N,) float32, in standard deviations of pills of one drug; infinite for a drug without training pills and
            for a pill that was not measured (NaN).
        """
        found = np.full(len(descriptors), np.inf, np.float32)
        is_measured = [bool(np.isfinite(row).all()) for row in descriptors]
        whitened = descriptors @ self.whitening
        first = np.searchsorted(self.labels, classes, side="left")
        last = np.searchsorted(self.labels, classes, side="right")
        for number, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            if stop > start and is_measured[number]:
                found[number] = np.linalg.norm(self.references[start:stop] - whitened[number], axis=1).min()
        return found


@dataclass(frozen=True, slots=True)
class _View:
    """A part of a picture."""

    pixels: RgbImage
    corner_xy: tuple[int, int]
    """Of the part, in the picture."""
    centre_xy: tuple[float, float]
    """Where the pill should be, in the view's pixels."""
    scale: float
    """The view's pixels a pixel of the picture."""

    @classmethod
    def of(cls, image: RgbImage, x: float, y: float, half: float) -> _View:
        """Cut out the square around (x, y), as far as it lies in the picture, `VIEW_PX` on its longer side."""
        height, width = image.shape[:2]
        x0, x1 = _span(x - half, x + half, width)
        y0, y1 = _span(y - half, y + half, height)
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        scale = VIEW_PX / max(part.shape[:2])
        size_wh = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(part, size_wh, interpolation=interpolation), np.uint8)
        return cls(pixels, (x0, y0), ((x - x0) * scale, (y - y0) * scale), scale)


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    """Return whole pixels from `low` to `high` inside of 0 to `limit`, at least one."""
    start = min(max(0, round(low)), limit - 1)
    return start, max(start + 1, min(limit, round(high)))


def _found_box(image: RgbImage, frame_fit: str) -> FloatArray | None:
    """Return the box of what stands out around the middle of a picture, (4,) pixels; None where nothing does."""
    height, width = image.shape[:2]
    side = min(height, width) if frame_fit == "center" else max(height, width)
    view = _View.of(image, width / 2, height / 2, FRAME_SHARE[frame_fit] * side / 2)
    lab, background = _lab_and_background(view.pixels)
    mask = _pill_mask(lab - background, view.centre_xy)
    if mask is None:
        return None
    x, y, box_width, box_height = cv2.boundingRect(mask)
    corners = np.array([x, y, x + box_width, y + box_height]) / view.scale
    return np.asarray(corners + np.tile(view.corner_xy, 2), np.float32)


def _lab_and_background(view: RgbImage) -> tuple[_Lab, _Lab]:
    """Return the picture in Lab (8 bit scale), and the plane through its border: paper is lit unevenly."""
    lab = cv2.cvtColor(cv2.GaussianBlur(view, (0, 0), 1.2), cv2.COLOR_RGB2LAB).astype(np.float32)
    height, width = lab.shape[:2]
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    edge = np.minimum(np.minimum(xs, width - 1 - xs), np.minimum(ys, height - 1 - ys)) < _BORDER_PX
    plane = np.stack([np.ones_like(xs), xs / width, ys / height], axis=2)
    coefficients = np.linalg.lstsq(plane[edge], lab[edge], rcond=None)[0]
    return lab, (plane @ coefficients).astype(np.float32)


def _pill_mask(difference: _Lab, centre_xy: tuple[float, float]) -> _Mask | None:
    """Return what stands out and lies in the middle, uint8 (H, W) of 0 and 1; None where nothing does."""
    squares = difference**2 * np.array([_LIGHTNESS_WEIGHT**2, 1, 1], np.float32)
    distance = np.clip(2 * np.sqrt(squares.sum(axis=2)), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(distance, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = (distance > max(threshold, MIN_CONTRAST)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)).astype(np.uint8)
    count, numbers, stats, centroids = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    away = np.hypot(*(centroids[1:] - np.array(centre_xy)).T)
    weight = stats[1:, cv2.CC_STAT_AREA] * np.exp(-4 * away / max(mask.shape))
    return np.equal(numbers, 1 + int(weight.argmax())).astype(np.uint8)


def _colours(lab: _Lab, background: _Lab, filled: _Mask) -> NDArray[np.float64]:
    """Return 12 numbers: the pill's colour, its difference to the background, the colours of its two halves."""
    inside = cv2.erode(filled, np.ones((5, 5), np.uint8)) > 0  # the rim is in shadow
    if inside.sum() < 20:
        inside = filled > 0
    colours = lab[inside]
    whole = np.median(colours, axis=0)
    ys, xs = np.nonzero(inside)
    points = np.stack([xs, ys], axis=1).astype(np.float64)
    points -= points.mean(axis=0)
    _, axes = np.linalg.eigh(points.T @ points)
    along = points @ axes[:, -1]
    spread = 0.2 * along.std()
    halves = [np.median(colours[side], axis=0) if side.any() else whole for side in (along < -spread, along > spread)]
    halves.sort(key=tuple)  # which end comes first is chance
    return np.concatenate([whole, whole - background[inside].mean(axis=0), *halves])


def _outline(contour: NDArray[Any], length_unit: float) -> NDArray[np.float64]:
    """Return 10 numbers that do not change when the pill is turned."""
    _, sides, _ = cv2.minAreaRect(contour)
    length, width = max(*sides, 1.0), max(min(sides), 1.0)
    area, hull = cv2.contourArea(contour), cv2.contourArea(cv2.convexHull(contour))
    points = contour[:, 0].astype(np.float64)
    points -= points.mean(axis=0)
    angles, radii = np.arctan2(points[:, 1], points[:, 0]), np.hypot(points[:, 0], points[:, 1])
    grid = np.linspace(-np.pi, np.pi, _NUM_ANGLES, endpoint=False)
    order = np.argsort(angles, kind="stable")
    profile = np.interp(grid, angles[order], radii[order], period=2 * np.pi)
    harmonics = np.abs(np.fft.rfft(profile / max(profile.mean(), 1e-6)))[_HARMONICS] / _NUM_ANGLES
    fullness = [area / (length * width), area / max(hull, 1.0)]
    return np.concatenate([[np.log(length / length_unit), np.log(length / width)], fullness, harmonics])
