"""The detector's intervals: a draw weighs matches as if the photographs had been listed several times."""

from __future__ import annotations

import numpy as np
import pytest

from pillsnap.errors import DataError
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.detection_intervals import Matches, detection_intervals
from tests.unit.evaluation.detection_case import random_pictures

pytestmark = pytest.mark.req("VAL-2")


@pytest.mark.parametrize("seed", range(30))
def test_a_weighted_draw_equals_the_map_of_the_photographs_listed_as_often(seed: int) -> None:
    predictions, targets = random_pictures(seed, has_ties=False)
    times = np.random.default_rng(seed).integers(0, 3, len(targets))
    times[int(np.argmax([len(target["boxes_xyxy"]) for target in targets]))] = 1
    listed = np.repeat(np.arange(len(targets)), times)
    wanted = evaluate_detection_metrics([predictions[i] for i in listed], [targets[i] for i in listed])["mAP@0.5"]
    assert Matches.of(predictions, targets).average_precision(times) == pytest.approx(wanted, abs=1e-6)


def test_the_intervals_hold_the_figures() -> None:
    cases = [random_pictures(seed, has_ties=False) for seed in range(12)]
    predictions, targets = [sum((case[part] for case in cases), []) for part in (0, 1)]
    figures = evaluate_detection_metrics(predictions, targets)
    intervals = detection_intervals(predictions, targets, num_resamples=300)
    assert list(intervals) == ["mAP@0.5", "precision", "recall"]
    for name, interval in intervals.items():
        assert interval is not None
        assert interval[0] < float(figures[name]) < interval[1]


def test_photographs_of_one_shot_are_drawn_together() -> None:
    predictions, targets = random_pictures(3, has_ties=False)
    groups = ["shot"] * len(targets)
    assert set(detection_intervals(predictions, targets, groups=groups).values()) == {None}


def test_boxes_below_the_confidence_count_for_map_only() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    predictions = [{"boxes_xyxy": box, "scores": np.array([0.1], np.float32)}] * 3
    intervals = detection_intervals(predictions, [{"boxes_xyxy": box}] * 3, num_resamples=20)
    bound = 0.025 ** (1 / 3)  # three photographs, all alike
    assert intervals == {"mAP@0.5": [bound, 1.0], "precision": None, "recall": [0.0, 1.0 - bound]}


def test_a_draw_without_labelled_boxes_has_no_figure() -> None:
    box = {"boxes_xyxy": np.array([[0, 0, 10, 10]], np.float32), "scores": np.array([0.9], np.float32)}
    empty = {"boxes_xyxy": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32)}
    matches = Matches.of([box, empty], [box, empty])
    assert np.isnan(matches.average_precision(np.array([0, 2])))


def test_lists_of_different_length_are_refused() -> None:
    predictions, targets = random_pictures(0, has_ties=False)
    with pytest.raises(ValueError, match=r"detections cannot be matched: got predictions for \d+ pictures and targets"):
        detection_intervals(predictions, targets[:-1])


def test_no_labelled_box_is_an_error() -> None:
    empty = {"boxes_xyxy": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32)}
    with pytest.raises(DataError, match=r"have no labelled box"):
        detection_intervals([empty], [empty])
