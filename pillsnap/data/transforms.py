"""Random views of a pill for training the classifier: where to cut, and how far to turn.

There is no mirroring: it would turn an imprint into one that no drug carries (DAT-7). The light is in `colour.py`.
"""

from __future__ import annotations

import numpy as np

from pillsnap.boxes import FloatArray
from pillsnap.data.preprocess import Crop, box_square, frame_square

MAX_BOX_PADDING = 0.25  # inference pads detector boxes by 0.1, and detectors err by a few per cent of the box
MAX_SHIFT = 0.06  # of the crop's side
FRAME_SCALE = (0.8, 1.05)
VIEW_SHARES = (0.35, 0.35)  # tight crop, whole frame; the rest lies between the two


def random_square(
    size_wh: tuple[int, int], box_xyxy: FloatArray | None, frame_fit: str, view: str, rng: np.random.Generator
) -> Crop:
    """Draw the square to cut: around the box, the whole frame, or one of a size between the two.

    Args:
        size_wh: Size of the picture, pixels.
        box_xyxy: (4,) pixels, or None when the pill's place is unknown (then the whole frame is the view).
        frame_fit: How a frame becomes a square: `letterbox` or `center`.
        view: `box` (tight), `frame` (whole photograph) or `both` (anything from tight to whole).
        rng: The sample's own generator.

    Returns:
        x_min, y_min, x_max, y_max in pixels; may reach outside the picture.
    """
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
