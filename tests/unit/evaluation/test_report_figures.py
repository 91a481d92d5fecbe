"""The headline names its split and never shows a figure that was not measured."""

from __future__ import annotations

from typing import Any

import pytest

from pillsnap.evaluation.report_figures import Group, absence_of, headline, latency_group, milliseconds_text
from tests.unit.evaluation.report_case import files_of
from tests.unit.evaluation.report_findings import EVALUATION, FINAL_TEST, LATENCY

pytestmark = pytest.mark.req("RPT-1")

BOTH = ["classification", "detection"]
VAL = {"split": "val", "classification": {"acc": 0.5, "macro_f1": 0.4, "top5": 0.9, "loss": 1.2, "n": 40}}


def values(group: Group) -> dict[str, str]:
    return {figure.label: figure.value for figure in group.figures}


def test_test_figures_come_before_validation_ones() -> None:
    metrics = {"test": {"classification": {"accuracy": 0.9617, "macro_f1": 0.957}}, "latest": {}}
    split, groups = headline(files_of(metrics=metrics, run={"evaluation": VAL}, tasks=BOTH))
    assert split.startswith("Test split")
    assert values(groups[0]) == {"Accuracy": "96.2%", "Macro F1": "0.957"}


def test_without_a_test_the_validation_of_the_best_models_is_shown_and_named() -> None:
    split, groups = headline(
        files_of(metrics={"latest": {"classification": {"epoch": 9, "acc": 0.1}}}, run={"evaluation": VAL}, tasks=BOTH)
    )
    assert split.startswith("Validation split, best models")
    assert values(groups[0]) == {"Accuracy": "50.0%", "Macro F1": "0.400", "Top-5": "90.0%", "Loss": "1.200"}
    assert groups[0].note == "40 pictures"


def test_the_last_epoch_is_shown_when_nothing_else_is_there() -> None:
    split, groups = headline(
        files_of(
            metrics={"latest": {"detection": {"epoch": 7, "mAP@0.5": 0.9}}}, run={"evaluation": {}}, tasks=["detection"]
        )
    )
    assert split == "Validation split, last epoch of each task (detection: epoch 7)."
    assert values(groups[1]) == {"mAP@0.5": "0.900"}


def test_nothing_recorded_is_said() -> None:
    split, groups = headline(files_of(metrics={}, run={"evaluation": {}}, tasks=[]))
    assert split == "No figures were recorded: reports/metrics.json is missing or has no epoch."
    assert all(not group.figures for group in groups)
    assert groups[0].note == "Nothing was measured, and no file tells which tasks this run had."


def test_a_zero_is_a_figure() -> None:
    _, groups = headline(
        files_of(metrics={"test": {"detection": {"mAP@0.5": 0.0}}}, run={"evaluation": {}}, tasks=BOTH)
    )
    assert values(groups[1]) == {"mAP@0.5": "0.000"}


def test_counts_unreadable_pictures_and_the_tool_are_named() -> None:
    detection: dict[str, Any] = {"mAP@0.5": 0.9, "n_images": 40, "n_boxes": 1131, "n_broken": 2, "tool": "T 1.0"}
    _, groups = headline(files_of(metrics={"test": {"detection": detection}}, run={"evaluation": {}}, tasks=BOTH))
    assert groups[1].note == "40 pictures; 1,131 labelled pills; unreadable pictures left out: 2; mAP by T 1.0"


def test_another_split_is_named_as_it_is() -> None:
    assert (
        headline(
            files_of(metrics={}, run={"evaluation": {"split": "unknown", "classification": {"acc": 1.0}}}, tasks=BOTH)
        )[0]
        == "unknown split, best models."
    )


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


def test_an_interval_stands_beside_its_figure() -> None:
    _, groups = headline(files_of(run={"evaluation": EVALUATION}))
    intervals = {figure.label: figure.interval for figure in groups[0].figures}
    assert intervals == {
        "Accuracy": "66.2% to 85.0%",
        "Macro F1": "0.641 to 0.829",
        "Top-5": ">99.9% to 100.0%",
        "Loss": "",
    }


def test_the_final_test_is_shown_where_metrics_do_not_hold_it_yet() -> None:
    split, groups = headline(files_of(run={"evaluation": EVALUATION}, final_test=FINAL_TEST))
    assert split.startswith("Test split")
    assert values(groups[0]) == {"Accuracy": "92.1%", "Macro F1": "0.889"}
    assert values(groups[1]) == {"mAP@0.5": "0.847"}


def test_the_time_of_an_answer_is_that_of_the_slow_ones() -> None:
    group = latency_group(LATENCY)
    assert values(group) == {"One pill": "30 ms", "Several pills": "232 ms"}
    assert group.figures[0].meaning == (
        "95 of 100 answers are faster; half of them take at most 21 ms; 99 of 100 at most 41 ms"
    )
    assert group.note == "measured on cpu; 200 answers each, one at a time"


def test_times_that_were_not_measured_are_said_to_be_missing() -> None:
    group = latency_group({"single": {"p95_ms": None}})
    assert (group.figures, group.note) == ([], "No times were measured: pillsnap latency does it.")


def test_short_times_keep_a_decimal() -> None:
    assert [milliseconds_text(value) for value in (0.42, 9.94, 1234.5)] == ["0.4 ms", "9.9 ms", "1,234 ms"]
