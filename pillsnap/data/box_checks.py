"""What a labelled box must be to be learnt from: inside the picture and at least two pixels wide and high."""

from __future__ import annotations

from typing import NamedTuple

Box = tuple[float, float, float, float]

MIN_SIDE_PX = 2.0
ROUNDING_PX = 1.0  # labels are rounded to whole pixels or six decimals: less than this over the edge is no mistake
MIN_VISIBLE_SHARE = 0.3  # pills are photographed whole: a box mostly outside is a typing error, not half a pill


class BoxCheck(NamedTuple):
    """A box cut to the picture (None: not usable), and what was wrong with it (kind None: nothing)."""

    box_xyxy: Box | None
    kind: str | None = None
    detail: str = ""


def check_box(box_xyxy: Box, size_wh: tuple[int, int]) -> BoxCheck:
    """Cut a box at the picture's edges and say what was wrong with it.

    Args:
        box_xyxy: Corners in pixels, finite numbers in any order of magnitude.
        size_wh: Width and height of the picture in pixels.

    Returns:
        The usable box and its problem, if any: `zero_size_box` and `tiny_box` (unusable), `box_outside` (cut, or
        unusable where less than 30 % of it is visible).
    """
    x_min, y_min, x_max, y_max = box_xyxy
    width, height = x_max - x_min, y_max - y_min
    if x_min >= 0 and y_min >= 0 and x_max <= size_wh[0] and y_max <= size_wh[1] and min(width, height) >= MIN_SIDE_PX:
        return BoxCheck(box_xyxy)
    shown = f"box of {width:.4g}x{height:.4g} px at ({x_min:.4g}, {y_min:.4g})"
    if width <= 0 or height <= 0:
        return BoxCheck(None, "zero_size_box", f"{shown} has no area; the box is not used")
    if min(width, height) < MIN_SIDE_PX:
        return BoxCheck(None, "tiny_box", f"{shown} is narrower than {MIN_SIDE_PX:g} px; the box is not used")
    cut = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(size_wh[0])), min(y_max, float(size_wh[1])))
    cut_width, cut_height = max(cut[2] - cut[0], 0.0), max(cut[3] - cut[1], 0.0)
    overhang = max(-x_min, -y_min, x_max - size_wh[0], y_max - size_wh[1])
    frame = f"the {size_wh[0]}x{size_wh[1]} px picture"
    if min(cut_width, cut_height) < MIN_SIDE_PX or cut_width * cut_height < MIN_VISIBLE_SHARE * width * height:
        return BoxCheck(None, "box_outside", f"{shown} lies outside {frame}; the box is not used")
    if overhang > ROUNDING_PX:
        return BoxCheck(cut, "box_outside", f"{shown} reaches outside {frame}; cut at its edge")
    return BoxCheck(cut)
