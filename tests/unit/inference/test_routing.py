import numpy as np
import pytest

from pillsnap.inference.routing import Route, choose_route, gating_score

MIDDLE, CORNER, EDGE = [40, 90, 60, 110], [0, 0, 20, 20], [40, 40, 60, 60]  # of a picture of 100 x 200


@pytest.mark.req("DAT-6")
@pytest.mark.parametrize(
    ("boxes", "scores", "frame_fit", "expected"),
    [
        ([], [], "center", 0.0),
        ([MIDDLE], [0.9], "center", 0.0),
        ([MIDDLE, CORNER], [0.9, 0.7], "center", 0.7),
        ([MIDDLE, CORNER], [0.9, 0.7], "letterbox", 0.7),
        ([CORNER], [0.8], "center", 0.8),
        ([EDGE], [0.8], "center", 0.4),
        ([CORNER], [0.8], "letterbox", 0.0),
    ],
    ids=["nothing", "one", "two", "two, letterbox", "one not seen", "one half seen", "one in a letterbox"],
)
def test_the_gate_says_what_speaks_against_one_well_framed_pill(
    boxes: list[list[float]], scores: list[float], frame_fit: str, expected: float
) -> None:
    found = np.array(boxes, np.float32).reshape(-1, 4)
    assert gating_score(found, np.array(scores), (100, 200), frame_fit) == pytest.approx(expected)


@pytest.mark.req("DAT-6")
@pytest.mark.parametrize(
    ("gate", "num_boxes", "confidence", "is_refused", "reason"),
    [
        (0.5, 2, 0.99, False, "multi_object_hint"),
        (0.49, 2, 0.99, False, None),
        (0.0, 1, 0.29, False, "low_confidence"),
        (0.0, 1, 0.30, False, None),
        (0.0, 1, 0.99, True, "low_confidence"),
        (0.0, 0, 0.10, True, None),
        (0.9, 3, 0.10, True, "multi_object_hint"),
    ],
)
def test_the_route_follows_the_gate_then_the_confidence(
    gate: float, num_boxes: int, confidence: float, is_refused: bool, reason: str | None
) -> None:
    found = choose_route(gate, num_boxes, confidence, is_refused=is_refused)
    assert found == Route(gate, reason)  # type: ignore[arg-type]
