"""Detection figures against cases worked out by hand, and the matching against every possible pairing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pillsnap.errors import DataError
from pillsnap.evaluation.detection import evaluate_detection_metrics, match_boxes

pytestmark = pytest.mark.req("VAL-2", "TRN-1")

Boxes = NDArray[np.float32]
Box = Sequence[float]
SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 with SQUARE
FAR = [50.0, 50.0, 60.0, 60.0]


def boxes(*rows: Box) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def found(*rows: tuple[Box, float]) -> dict[str, Boxes]:
    return {"boxes_xyxy": boxes(*(box for box, _ in rows)), "scores": np.array([score for _, score in rows], "f4")}


def labelled(*rows: Box) -> dict[str, Boxes]:
    return {"boxes_xyxy": boxes(*rows)}


def test_perfect_boxes_give_one_everywhere() -> None:
    figures = evaluate_detection_metrics([found((SQUARE, 0.9), (FAR, 0.8))], [labelled(SQUARE, FAR)])
    assert [figures[key] for key in ("mAP@0.5", "mAP@0.5:0.95", "precision", "recall")] == [1, 1, 1, 1]
    assert (figures["n_images"], figures["n_boxes"], figures["n_found"]) == (1, 2, 2)


def test_a_half_overlapping_box_counts_at_iou_half_only() -> None:
    figures = evaluate_detection_metrics([found((HALF, 0.9))], [labelled(SQUARE)])
    assert figures["mAP@0.5"] == 1.0
    assert figures["mAP@0.5:0.95"] == pytest.approx(0.1)  # one of the ten thresholds
    assert (figures["precision"], figures["recall"]) == (1.0, 1.0)


def test_a_false_alarm_above_the_right_box_halves_the_map() -> None:
    # Precision at every recall is 1/2: the right box comes second.
    figures = evaluate_detection_metrics([found((FAR, 0.9), (SQUARE, 0.8))], [labelled(SQUARE)])
    assert figures["mAP@0.5"] == pytest.approx(0.5)
    assert (figures["precision"], figures["recall"]) == (0.5, 1.0)


def test_a_missed_pill_leaves_the_recall_points_found() -> None:
    # Recall stops at 1/2: 51 of COCO's 101 recall points (0.00 to 0.50) have precision 1.
    figures = evaluate_detection_metrics([found((SQUARE, 0.9))], [labelled(SQUARE, FAR)])
    assert figures["mAP@0.5"] == pytest.approx(51 / 101)
    assert (figures["precision"], figures["recall"]) == (1.0, 0.5)


def test_a_second_box_on_one_pill_is_a_false_alarm() -> None:
    figures = evaluate_detection_metrics([found((SQUARE, 0.9), (SQUARE, 0.8))], [labelled(SQUARE)])
    assert (figures["precision"], figures["recall"], figures["mAP@0.5"]) == (0.5, 1.0, 1.0)


def test_boxes_below_the_confidence_count_for_map_but_not_for_recall() -> None:
    predictions = [found((SQUARE, 0.29))]
    figures = evaluate_detection_metrics(predictions, [labelled(SQUARE)])
    assert (figures["mAP@0.5"], figures["precision"], figures["recall"]) == (1.0, 0.0, 0.0)
    assert evaluate_detection_metrics(predictions, [labelled(SQUARE)], conf_threshold=0.2)["recall"] == 1.0


def test_empty_pictures_and_missed_pictures_are_counted() -> None:
    predictions = [found(), found((SQUARE, 0.9)), found((SQUARE, 0.9)), found()]
    targets = [labelled(), labelled(), labelled(SQUARE), labelled(SQUARE)]
    figures = evaluate_detection_metrics(predictions, targets)
    assert (figures["n_images"], figures["n_boxes"], figures["n_found"]) == (4, 2, 2)
    assert (figures["precision"], figures["recall"]) == (0.5, 0.5)


def test_nothing_found_is_a_true_zero() -> None:
    figures = evaluate_detection_metrics([found()], [labelled(SQUARE)])
    assert (figures["mAP@0.5"], figures["precision"], figures["recall"], figures["n_found"]) == (0, 0, 0, 0)


def test_the_result_names_its_tool() -> None:
    tool = evaluate_detection_metrics([found()], [labelled(SQUARE)])["tool"]
    assert str(tool).startswith("torchmetrics ")
    assert "faster-coco-eval" in str(tool)


def test_more_than_a_hundred_boxes_are_cut_without_a_warning() -> None:
    noise = [(FAR, 0.9)] * 100
    figures = evaluate_detection_metrics([found(*noise, (SQUARE, 0.5))], [labelled(SQUARE)])
    assert figures["mAP@0.5"] == 0.0  # the right box is number 101


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_labelled_box_is_an_error_not_map_zero(num_images: int) -> None:
    with pytest.raises(DataError, match=rf"the {num_images} pictures of this split have no labelled box; wanted at"):
        evaluate_detection_metrics([found((SQUARE, 0.9))] * num_images, [labelled()] * num_images)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got predictions for 1 pictures and targets for 2; wanted one of each"):
        evaluate_detection_metrics([found()], [labelled(SQUARE), labelled()])


def test_boxes_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes of picture 0 have shape \(1, 5\); wanted \(N, 4\)"):
        evaluate_detection_metrics([found()], [{"boxes_xyxy": np.ones((1, 5))}])


@pytest.mark.parametrize("box", [[5, 5, 2, 8], [0, 0, float("nan"), 8]], ids=["centre format", "nan"])
def test_boxes_that_are_no_corners_are_refused(box: Box) -> None:
    with pytest.raises(ValueError, match=r"picture 0 has the box .*; wanted finite x_min <= x_max"):
        evaluate_detection_metrics([found((box, 0.9))], [labelled(SQUARE)])


def test_a_box_without_a_score_is_refused() -> None:
    prediction = {"boxes_xyxy": boxes(SQUARE, FAR), "scores": np.array([0.5], "f4")}
    with pytest.raises(ValueError, match=r"picture 0 has 2 predicted boxes and 1 scores"):
        evaluate_detection_metrics([prediction], [labelled(SQUARE)])


def test_the_confident_prediction_chooses_first() -> None:
    pairs = match_boxes(boxes(HALF, SQUARE), np.array([0.9, 0.8], "f4"), boxes(SQUARE))
    assert pairs == [(0, 0)]


def test_each_prediction_takes_the_box_it_overlaps_most() -> None:
    near, exact = [1.0, 0.0, 11.0, 10.0], SQUARE
    assert match_boxes(boxes(SQUARE), np.array([0.9], "f4"), boxes(near, exact)) == [(0, 1)]


def by_the_definition(pred: Boxes, scores: Boxes, target: Boxes, threshold: float) -> list[tuple[int, int]]:
    """Greedy matching written out pixel by pixel on a grid: no shared code with the module."""

    def cells(box: Boxes) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = (int(value) for value in box)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    free = list(range(len(target)))
    pairs = []
    for p in sorted(range(len(pred)), key=lambda index: (-scores[index], index)):
        overlap = {t: len(cells(pred[p]) & cells(target[t])) / len(cells(pred[p]) | cells(target[t])) for t in free}
        best = max(overlap, key=lambda t: (overlap[t], -t), default=-1)
        if best >= 0 and overlap[best] >= threshold:
            pairs.append((p, best))
            free.remove(best)
    return pairs


grid_box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], *[st.integers(0, 5)] * 2, *[st.integers(1, 6)] * 2)


@given(st.lists(grid_box, max_size=5), st.lists(grid_box, max_size=5), st.data())
def test_matching_equals_its_definition_counted_in_pixels(
    pred: list[Box], target: list[Box], data: st.DataObject
) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=len(pred), max_size=len(pred)))
    score_array = np.array(scores, np.float32)
    threshold = data.draw(st.sampled_from([0.3, 0.5, 0.75]))
    got = match_boxes(boxes(*pred), score_array, boxes(*target), iou_threshold=threshold)
    assert got == by_the_definition(boxes(*pred), score_array, boxes(*target), threshold)
