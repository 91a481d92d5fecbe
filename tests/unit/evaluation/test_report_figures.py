"""The headline names its split and never shows a figure that was not measured."""

from __future__ import annotations

from typing import Any

import pytest

from pillsnap.evaluation.report_figures import Group, absence_of, headline

pytestmark = pytest.mark.req("RPT-1")

BOTH = ["classification", "detection"]
VAL = {"split": "val", "classification": {"acc": 0.5, "macro_f1": 0.4, "top5": 0.9, "loss": 1.2, "n": 40}}


def values(group: Group) -> dict[str, str]:
    return {figure.label: figure.value for figure in group.figures}


def test_test_figures_come_before_validation_ones() -> None:
    metrics = {"test": {"classification": {"accuracy": 0.9617, "macro_f1": 0.957}}, "latest": {}}
    split, groups = headline(metrics, VAL, BOTH)
    assert split.startswith("Test split")
    assert values(groups[0]) == {"Accuracy": "96.2%", "Macro F1": "0.957"}


def test_without_a_test_the_validation_of_the_best_models_is_shown_and_named() -> None:
    split, groups = headline({"latest": {"classification": {"epoch": 9, "acc": 0.1}}}, VAL, BOTH)
    assert split.startswith("Validation split, best models")
    assert values(groups[0]) == {"Accuracy": "50.0%", "Macro F1": "0.400", "Top-5": "90.0%", "Loss": "1.200"}
    assert groups[0].note == "40 pictures"


def test_the_last_epoch_is_shown_when_nothing_else_is_there() -> None:
    split, groups = headline({"latest": {"detection": {"epoch": 7, "mAP@0.5": 0.9}}}, {}, ["detection"])
    assert split == "Validation split, last epoch of each task (detection: epoch 7)."
    assert values(groups[1]) == {"mAP@0.5": "0.900"}


def test_nothing_recorded_is_said() -> None:
    split, groups = headline({}, {}, None)
    assert split == "No figures were recorded: reports/metrics.json is missing or has no epoch."
    assert all(not group.figures for group in groups)
    assert groups[0].note == "Nothing was measured, and no file tells which tasks this run had."


def test_a_zero_is_a_figure() -> None:
    _, groups = headline({"test": {"detection": {"mAP@0.5": 0.0}}}, {}, BOTH)
    assert values(groups[1]) == {"mAP@0.5": "0.000"}


def test_counts_unreadable_pictures_and_the_tool_are_named() -> None:
    detection: dict[str, Any] = {"mAP@0.5": 0.9, "n_images": 40, "n_boxes": 1131, "n_broken": 2, "tool": "T 1.0"}
    _, groups = headline({"test": {"detection": detection}}, {}, BOTH)
    assert groups[1].note == "40 pictures; 1,131 labelled pills; unreadable pictures left out: 2; mAP by T 1.0"


def test_another_split_is_named_as_it_is() -> None:
    assert headline({}, {"split": "unknown", "classification": {"acc": 1.0}}, BOTH)[0] == "unknown split, best models."


@pytest.mark.parametrize(
    ("name", "tasks", "sentence"),
    [
        ("classification", ["detection"], "The classification task was not trained in this run."),
        ("end_to_end", ["classification"], "The detection task was not trained in this run."),
        ("detection", BOTH, "Nothing was drawn in this run."),
    ],
)
def test_what_is_missing_says_why(name: str, tasks: list[str], sentence: str) -> None:
    assert absence_of(name, tasks, "drawn") == sentence
