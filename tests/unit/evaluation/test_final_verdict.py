"""What follows from the figures of the final test."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pillsnap.evaluation.final_verdict import (
    NOT_READY,
    READY,
    business_goals,
    differences,
    improvements,
    named_as_specified,
    overfitting,
    recommendation,
)

pytestmark = pytest.mark.req("FIN-1")

BELOW = math.nextafter(0.92, 0), math.nextafter(0.85, 0)


def figures(macro_f1: object, mean_ap: object) -> dict[str, Any]:
    return {"classification": {"macro_f1": macro_f1}, "detection": {"mAP@0.5": mean_ap}}


def improvements_of(test: dict[str, Any], val: dict[str, Any] | None = None) -> list[str]:
    return improvements(test, business_goals(test), overfitting(differences(val or {}, test)))


@pytest.mark.parametrize(
    ("macro_f1", "mean_ap", "expected"),
    [
        (0.92, 0.85, READY),
        (1.0, 1.0, READY),
        (1, 1, READY),
        (BELOW[0], 0.85, NOT_READY),
        (0.92, BELOW[1], NOT_READY),
        (0.0, 1.0, NOT_READY),
        (1.0, 0.0, NOT_READY),
        (math.nan, 1.0, NOT_READY),
        (1.0, math.nan, NOT_READY),
        (math.inf, 1.0, NOT_READY),
        (None, 1.0, NOT_READY),
        (1.0, None, NOT_READY),
        ("0.99", 1.0, NOT_READY),
        (True, 1.0, NOT_READY),
    ],
)
def test_ready_for_production_if_and_only_if_both_goals_are_met(
    macro_f1: object, mean_ap: object, expected: str
) -> None:
    goals = business_goals(figures(macro_f1, mean_ap))
    assert recommendation(goals) == expected
    assert goals["overall_target_met"] is (expected == READY)


@pytest.mark.parametrize("missing", ["classification", "detection", "both"])
@pytest.mark.parametrize("left", [None, {}])
def test_a_task_that_was_not_measured_meets_no_goal(missing: str, left: dict[str, Any] | None) -> None:
    test = figures(1.0, 1.0) | {task: left for task in ("classification", "detection") if missing in (task, "both")}
    assert recommendation(business_goals(test)) == NOT_READY
    assert recommendation(business_goals({})) == NOT_READY


def test_each_goal_has_its_figure_and_whether_it_is_met() -> None:
    goals = business_goals(figures(0.889, 0.9))
    assert goals["single_macro_f1"] == {"goal": 0.92, "value": 0.889, "met": False}
    assert goals["combo_mAP_0.5"] == {"goal": 0.85, "value": 0.9, "met": True}


def test_figures_take_the_specification_s_names_inside_too() -> None:
    ours = {"acc": 0.9, "macro_f1": 0.8, "intervals": {"acc": [0.8, 1.0]}, "mAP@0.5": 0.7, "mAP@0.5:0.95": 0.5}
    expected = {"accuracy": 0.9, "macro_f1": 0.8, "intervals": {"accuracy": [0.8, 1.0]}}
    assert named_as_specified(ours) == expected | {"mAP_0.5": 0.7, "mAP_0.5:0.95": 0.5}


def test_what_both_splits_have_is_compared() -> None:
    found = differences(figures(0.9, 0.5), {"classification": {"macro_f1": 0.75, "acc": 0.8}, "detection": None})
    assert found == {
        "classification": {
            "macro_f1": {"val": 0.9, "test": 0.75, "val_minus_test": pytest.approx(0.15), "interval": None}
        }
    }


def _with_interval(value: float, low: object, high: object) -> dict[str, Any]:
    return {"classification": {"macro_f1": value, "intervals": {"macro_f1": [low, high]}}}


def test_the_interval_of_a_difference_is_that_of_two_normal_figures_where_both_are_symmetric() -> None:
    found = differences(_with_interval(0.9, 0.87, 0.93), _with_interval(0.8, 0.76, 0.84))
    # Two independent normal figures with half widths of 0.03 and 0.04 differ with a half width of 0.05.
    assert found["classification"]["macro_f1"]["interval"] == pytest.approx([0.05, 0.15])


@pytest.mark.parametrize(
    ("test", "suspected"),
    [
        (_with_interval(0.8, 0.76, 0.84), True),
        (_with_interval(0.86, 0.8, 0.9), False),
        (_with_interval(0.95, 0.93, 0.97), False),
        (_with_interval(0.5, None, 0.6), None),
        (_with_interval(0.5, math.nan, 0.6), None),
        (figures(0.5, None), None),
    ],
    ids=["lower", "by chance", "higher", "no bound", "nan", "no interval"],
)
def test_fitting_to_val_is_suspected_when_chance_does_not_explain_it(
    test: dict[str, Any], suspected: bool | None
) -> None:
    found = overfitting(differences(_with_interval(0.9, 0.87, 0.93), test))
    assert found["classification"]["suspected"] is suspected
    assert "detection" not in found


def test_nothing_is_to_improve_when_both_goals_are_met() -> None:
    assert improvements_of(figures(0.92, 0.85)) == []


def test_a_missed_goal_says_by_how_much_and_one_not_measured_why() -> None:
    first, second = improvements_of(figures(0.889, None))
    assert first == "single_macro_f1 is 0.8890, wanted 0.92 or more: 0.0310 short."
    assert second.startswith("combo_mAP_0.5 was not measured, wanted 0.85 or more: the detection task was not trained")


def test_a_goal_inside_the_interval_asks_for_more_pictures() -> None:
    (only, _) = improvements_of(_with_interval(0.9, 0.85, 0.93))
    assert only.endswith("Its 95 % interval reaches 0.9300: more test pictures would tell.")


def test_a_fit_to_val_is_among_the_improvements() -> None:
    found = improvements_of(_with_interval(0.8, 0.76, 0.84), _with_interval(0.9, 0.87, 0.93))
    assert "classification macro_f1 is 0.1000 better on val than on test, more than chance explains" in found[-1]


def test_an_interval_that_does_not_hold_its_figure_does_not_widen_the_difference() -> None:
    found = differences(_with_interval(0.9, 0.91, 0.93), _with_interval(0.8, 0.76, 0.79))
    assert found["classification"]["macro_f1"]["interval"] == pytest.approx([0.1, 0.15])


def test_the_worst_drugs_are_named_with_what_they_are_taken_for() -> None:
    rows = [
        {"code": "K-1", "name": "약", "n": "4", "f1": "0.250000", "most_taken_for": "K-2", "times": "3"},
        {"code": "K-3", "name": "", "n": "2", "f1": "", "most_taken_for": "", "times": "0"},
    ]
    test = figures(0.5, 0.9)
    found = improvements(test, business_goals(test), {}, rows)
    assert found[1] == "Worst recognised: K-1 약 (F1 0.25, taken for K-2 in 3 of 4); K-3 (F1 0.00)."
    assert len(improvements(figures(0.92, 0.5), business_goals(figures(0.92, 0.5)), {}, rows)) == 1


@pytest.mark.parametrize(("boxes", "weaker"), [(0.95, "naming the drug"), (0.5, "finding the pills")])
def test_the_weaker_stage_is_named(boxes: float, weaker: str) -> None:
    test = figures(0.5, 0.5) | {"end_to_end": {"box_recall": boxes, "drug_accuracy_on_found": 0.9}}
    assert weaker in improvements_of(test)[-1]
