"""Right box and right drug, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pillsnap.errors import DataError
from pillsnap.evaluation.end_to_end import Answer, end_to_end_intervals, evaluate_end_to_end

pytestmark = pytest.mark.req("VAL-2")

LEFT = [0.0, 0.0, 10.0, 10.0]
RIGHT = [20.0, 0.0, 30.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def answer(*rows: tuple[list[float], str]) -> Answer:
    return np.array([box for box, _ in rows]).reshape(-1, 4), np.full(len(rows), 0.9), [code for _, code in rows]


def test_place_and_drug_must_both_be_right() -> None:
    answers = [answer((LEFT, "K-1"), (RIGHT, "K-9"), (FAR, "K-3"))]
    targets = [([LEFT, RIGHT], ["K-1", "K-2"])]
    figures = evaluate_end_to_end(answers, targets)
    assert figures == {
        "recall": 1 / 2,
        "precision": 1 / 3,
        "f1": pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
        "box_recall": 1.0,
        "drug_accuracy_on_found": 1 / 2,
        "n_images": 1,
        "n_boxes": 2,
        "n_answered": 3,
        "n_found": 2,
        "n_right": 1,
    }


def test_boxes_are_counted_over_pictures_not_averaged() -> None:
    answers = [answer((LEFT, "K-1")), answer()]
    targets = [([LEFT], ["K-1"]), ([LEFT, RIGHT, FAR], ["K-1", "K-2", "K-3"])]
    assert evaluate_end_to_end(answers, targets)["recall"] == 1 / 4


def test_a_box_found_twice_is_right_once() -> None:
    figures = evaluate_end_to_end([answer((LEFT, "K-1"), (LEFT, "K-1"))], [([LEFT], ["K-1"])])
    assert (figures["recall"], figures["precision"]) == (1.0, 0.5)


def test_a_picture_without_pills_and_without_answer_changes_nothing() -> None:
    with_empty = evaluate_end_to_end([answer((LEFT, "K-1")), answer()], [([LEFT], ["K-1"]), ([], [])])
    assert (with_empty["recall"], with_empty["precision"], with_empty["n_images"]) == (1.0, 1.0, 2)


def test_no_answer_at_all_is_zero_with_counts_that_say_so() -> None:
    figures = evaluate_end_to_end([answer()], [([LEFT], ["K-1"])])
    assert (figures["precision"], figures["f1"], figures["drug_accuracy_on_found"]) == (0, 0, 0)
    assert (figures["n_answered"], figures["n_found"]) == (0, 0)


def test_no_labelled_box_is_an_error() -> None:
    with pytest.raises(DataError, match=r"the 1 pictures of this split have no labelled box"):
        evaluate_end_to_end([answer((LEFT, "K-1"))], [([], [])])


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got answers for 0 pictures and targets for 1"):
        evaluate_end_to_end([], [([LEFT], ["K-1"])])


@pytest.mark.parametrize(
    ("one_answer", "target"),
    [(([LEFT], [0.9], []), ([LEFT], ["K-1"])), (([LEFT], [0.9], ["K-1"]), ([LEFT], []))],
    ids=["answer without code", "label without code"],
)
def test_a_box_without_a_code_is_refused(one_answer: Answer, target: tuple[list[list[float]], list[str]]) -> None:
    with pytest.raises(ValueError, match=r"picture 0 has 1 boxes, 1 scores and .*; wanted one score and one code a b"):
        evaluate_end_to_end([one_answer], [target])


def test_intervals_are_over_pictures_and_hold_the_figures() -> None:
    answers = [answer((LEFT, "K-1")), answer((LEFT, "K-9")), answer((LEFT, "K-1"), (FAR, "K-1"))] * 10
    targets = [([LEFT], ["K-1"])] * 30
    intervals = end_to_end_intervals(answers, targets)
    figures = evaluate_end_to_end(answers, targets)
    assert intervals["box_recall"] == [0.025 ** (1 / 30), 1.0]
    for name in ("recall", "precision", "f1", "drug_accuracy_on_found"):
        interval = intervals[name]
        assert interval is not None
        assert interval[0] < figures[name] < interval[1]


def test_intervals_of_one_shot_say_nothing() -> None:
    assert end_to_end_intervals([answer((LEFT, "K-1"))] * 2, [([LEFT], ["K-1"])] * 2, ["s", "s"])["recall"] is None
