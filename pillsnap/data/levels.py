"""What is kept of a picture for random views: the whole frame, and the neighbourhood of its pill, each at input size.

A random view is cut from one of these levels and never from the photograph itself, so that photographs are decoded once
and the pixels of a view are the same whether a level comes out of the store or was made a moment ago. A level is about
as large as the classifier's input: the frame for views of whole photographs, the pill's neighbourhood for close ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.images import RgbImage
from pillsnap.data.preprocess import GREY, Crop, box_square, crop_resize, resized

REGION_PADDING = 0.35  # of the box's longer side, on each end: the loosest close view, turned, sees little beyond it
REGION_REACH = (
    1.15  # a view up to so many times as wide as the region is cut from it; beyond, a mirror fills the corners
)
MIN_GAIN = 1.15  # a region sharper than the frame by less than this is not worth its bytes


@dataclass(frozen=True, slots=True)
class Level:
    """Pixels of a part of a picture.

    `origin_xy` is where the part begins in the picture, `scale_xy` how many pixels of the level show one of it.
    """

    pixels: RgbImage
    origin_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    border: int
    """What lies beyond the level: OpenCV's border mode."""

    def view(self, square: Crop, degrees: float, out: RgbImage) -> None:
        """Draw the square `square` of the picture, turned by `degrees` around its middle, into `out`.

        Args:
            square: x_min, y_min, x_max, y_max in pixels of the picture; may reach outside.
            degrees: How far to turn.
            out: uint8 (S, S, 3), contiguous; overwritten.
        """
        size_px = out.shape[0]
        side, radians = square[2] - square[0], math.radians(degrees)
        cos, sin = side / size_px * math.cos(radians), side / size_px * math.sin(radians)
        turn = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([(square[0] + square[2]) / 2, (square[1] + square[3]) / 2])
        # Pixel centres lie at half numbers, in the output, in the picture and in the level.
        start = middle + turn @ np.full(2, 0.5 - size_px / 2)
        scale = np.array(self.scale_xy)
        offset = (start - np.array(self.origin_xy)) * scale - 0.5
        matrix = np.column_stack([turn * scale[:, None], offset])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(
            self.pixels, matrix, (size_px, size_px), dst=out, flags=flags, borderMode=self.border, borderValue=GREY
        )


@dataclass(frozen=True, slots=True)
class LevelSizes:
    """How large the levels of pictures are, decided by their sizes and boxes alone."""

    size_px: int
    """Side of the classifier's input."""
    frame_fit: str
    """How a whole photograph becomes a square: `letterbox` or `center`."""

    def frame_wh(self, sizes_wh: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of the frame levels of pictures, (N, 2), from theirs, (N, 2): never larger than these."""
        sides = sizes_wh.max(1) if self.frame_fit == "letterbox" else sizes_wh.min(1)
        scale = np.minimum(self.size_px / np.maximum(sides, 1), 1.0)
        return np.asarray(np.maximum(np.rint(sizes_wh * scale[:, None]), 1), np.int64)

    def region_px(self, boxes_xyxy: FloatArray) -> NDArray[np.int64]:
        """Return the side of the region level around boxes (N, 4), (N,) pixels: never sharper than the picture."""
        sides = np.maximum((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(1, initial=1.0), 1.0)
        return np.asarray(np.minimum(np.ceil(sides * (1 + 2 * REGION_PADDING)), self.size_px), np.int64)


def region_of(box_xyxy: FloatArray) -> Crop:
    """Return the square neighbourhood of a box that its region level shows."""
    return box_square(box_xyxy, REGION_PADDING)


def make_frame(image: RgbImage, frame_wh: tuple[int, int]) -> RgbImage:
    """Return the pixels of the frame level of a picture (or of a reduced copy of it), uint8 (h, w, 3)."""
    return resized(image, frame_wh)


def make_region(image: RgbImage, size_wh: tuple[int, int], box_xyxy: FloatArray, side_px: int) -> RgbImage:
    """Return the pixels of the region level around a box, uint8 (side_px, side_px, 3).

    Args:
        image: The picture, in whatever size it was decoded.
        size_wh: The size of the picture that the box is for, pixels.
        box_xyxy: (4,) pixels.
        side_px: From `LevelSizes.region_px`.
    """
    # Where a label was made for another size than the file has, the box is moved along.
    ratio_x, ratio_y = image.shape[1] / size_wh[0], image.shape[0] / size_wh[1]
    x_min, y_min, x_max, y_max = region_of(box_xyxy)
    if ratio_x == ratio_y == 1:
        return crop_resize(image, (x_min, y_min, x_max, y_max), side_px)
    middle = ((x_min + x_max) / 2 * ratio_x, (y_min + y_max) / 2 * ratio_y)
    half = (x_max - x_min) / 2 * max(ratio_x, ratio_y)
    return crop_resize(image, (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half), side_px)


def frame_level(pixels: RgbImage, size_wh: tuple[int, int]) -> Level:
    """Return the frame level of a picture of `size_wh` pixels."""
    height, width = pixels.shape[:2]
    return Level(pixels, (0.0, 0.0), (width / size_wh[0], height / size_wh[1]), cv2.BORDER_CONSTANT)


def region_level(pixels: RgbImage, box_xyxy: FloatArray) -> Level:
    """Return the region level of a box."""
    region = region_of(box_xyxy)
    scale = pixels.shape[0] / (region[2] - region[0])
    return Level(pixels, (region[0], region[1]), (scale, scale), cv2.BORDER_REFLECT_101)


def fits_region(square: Crop, box_xyxy: FloatArray) -> bool:
    """Tell whether a view of `square` is close enough to the box to be cut from its region."""
    region = region_of(box_xyxy)
    return square[2] - square[0] <= REGION_REACH * (region[2] - region[0])
