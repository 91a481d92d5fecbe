"""Mode `auto`: whether a photograph is answered as one pill or pill by pill (DAT-6).

Both readings are made; the detector's boxes decide. Naming a mode is better than letting this choose, so it is never a
default.
"""

from __future__ import annotations

from dataclasses import dataclass

from pillsnap.boxes import FloatArray
from pillsnap.inference.answers import FallbackReason

MULTI_PILL_GATE = 0.5
"""The gating score from which a picture is read pill by pill."""
LOW_CONFIDENCE = 0.30
"""Below this the answer to the whole picture is not trusted (DAT-6)."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a photograph is read."""

    gating_score: float
    """How much speaks against one well framed pill, 0..1."""
    fallback_reason: FallbackReason | None
    """Why it is read pill by pill; None: it is read as one."""


def gating_score(boxes_xyxy: FloatArray, scores: FloatArray, size_wh: tuple[int, int], frame_fit: str) -> float:
    """Return how much speaks against a picture of one pill that the classifier sees whole, 0..1.

    It is the larger of two: the detector's score for a second pill, and its score for the first times the share of
    that box which lies outside of what the classifier sees.

    Args:
        boxes_xyxy: (N, 4) pixels, most confident first.
        scores: (N,) 0..1.
        size_wh: Of the picture.
        frame_fit: `center`: the classifier sees the central square. `letterbox`: all.
    """
    second = float(scores[1]) if len(scores) > 1 else 0.0
    if not len(scores) or frame_fit != "center":
        return second
    width, height = size_wh
    side = min(width, height)
    x_min, y_min, x_max, y_max = (float(value) for value in boxes_xyxy[0])
    left, top = (width - side) / 2, (height - side) / 2
    seen_wide = max(0.0, min(x_max, left + side) - max(x_min, left))
    seen_high = max(0.0, min(y_max, top + side) - max(y_min, top))
    area = max((x_max - x_min) * (y_max - y_min), 1e-6)
    return max(second, float(scores[0]) * min(1.0, max(0.0, 1 - seen_wide * seen_high / area)))


def choose_route(gate: float, num_boxes: int, single_confidence: float, *, is_refused: bool) -> Route:
    """Decide how a picture is read.

    Args:
        gate: From `gating_score`.
        num_boxes: Pills the detector found; without any the whole picture is all there is.
        single_confidence: Of the best candidate for the whole picture, 0..1.
        is_refused: Whether the answer to the whole picture is "unknown"; a closer look may know it.
    """
    if num_boxes and gate >= MULTI_PILL_GATE:
        return Route(gate, "multi_object_hint")
    if num_boxes and (single_confidence < LOW_CONFIDENCE or is_refused):
        return Route(gate, "low_confidence")
    return Route(gate, None)
