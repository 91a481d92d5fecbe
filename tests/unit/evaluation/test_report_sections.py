"""Confidence, unknown pills, advice, the final test, mix-ups, hard cases and decisions, each from its file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pillsnap.evaluation.report_advice import advice_of
from pillsnap.evaluation.report_classes import class_tables
from pillsnap.evaluation.report_final_test import final_test_of
from pillsnap.evaluation.report_hard_cases import hard_cases_of
from pillsnap.evaluation.report_refusal import Part, calibration_of, unknown_of
from pillsnap.evaluation.report_training import decision_tables, training_tables
from tests.unit.evaluation.report_case import files_of
from tests.unit.evaluation.report_findings import (
    ADVICE,
    CALIBRATION,
    EVALUATION,
    FINAL_TEST,
    HARD_CASES,
    PER_CLASS,
    UNKNOWN,
)

pytestmark = pytest.mark.req("RPT-1")


def values(part: Part) -> dict[str, str]:
    return {figure.label: figure.value for figure in part.figures}


def test_calibration_is_shown_before_and_after() -> None:
    part = calibration_of(files_of(run={"evaluation": EVALUATION}, calibration=CALIBRATION))
    assert values(part) == {
        "Calibration error after": "3.1%",
        "Calibration error before": "8.1%",
        "Temperature": "1.370",
        "Negative log likelihood": "0.655",
    }
    assert part.notes == ["Fitted on the val split of 80 pills, 2026-01-02 04:05 UTC."]
    assert [table.title for table in part.tables] == ["reliability before", "reliability after"]


def test_without_a_calibration_the_models_own_error_is_shown() -> None:
    part = calibration_of(files_of(run={"evaluation": {"classification": {"ece": 0.05}}}))
    assert values(part) == {"Calibration error": "5.0%"}
    assert part.missing.startswith("No calibration was fitted")


def test_refusal_is_shown_with_what_it_was_measured_on() -> None:
    part = unknown_of(files_of(unknown=UNKNOWN, calibration=CALIBRATION))
    assert values(part) == {
        "AUROC": "0.957",
        "Coverage": "71.0%",
        "Wrong among accepted": "1.2%",
        "Wrong among accepted, known drugs": "0.4%",
        "False accepts": "4.2%",
    }
    assert part.figures[0].interval == "0.931 to 0.978"
    assert part.notes == [
        "A pill gets a name where its max logit is at least 6.25; any other is called unknown. The threshold was "
        "chosen for at most 1.0% wrong answers.",
        "Measured on 144 pills of 4 drugs the model never saw in training, against 80 of known drugs.",
    ]


@pytest.mark.parametrize(
    ("calibration", "said"),
    [(CALIBRATION, "was not measured"), ({}, "every pill gets the name of a drug")],
    ids=["fitted", "not fitted"],
)
def test_unmeasured_refusal_is_said(calibration: dict[str, Any], said: str) -> None:
    assert said in unknown_of(files_of(calibration=calibration)).missing


def test_without_unknown_pills_nothing_is_said_about_them() -> None:
    unknown = {"coverage": 0.8, "error_accepted": 0.01, "error_accepted_known": 0.01, "n_known": 80, "n_unknown": 0}
    part = unknown_of(files_of(unknown=unknown))
    assert values(part) == {"Coverage": "80.0%", "Wrong among accepted, known drugs": "1.0%"}
    assert part.notes == ["No pill of an unknown drug was at hand: how well those are refused nobody knows."]


def test_a_missing_threshold_is_said() -> None:
    part = unknown_of(files_of(calibration={"threshold": None, "score": "energy"}))
    assert part.notes == ["No threshold was found that holds the wanted error: see calibration.json."]


def test_advice_is_in_english_with_its_figure_and_overrides_to_paste() -> None:
    advice = advice_of(files_of(Path("runs", "a"), advice=ADVICE))
    first = advice.suggestions[0]
    assert first.text == "Make the picture for the detector smaller."
    assert (first.figure, first.override) == (
        "detection.inference_time_ms 201.5 (wanted <=50)",
        "detection.image_size=160",
    )
    assert advice.command == (
        "pillsnap train --cfg runs/a/config.yaml paths.exp_dir=runs/a_next detection.image_size=160"
    )
    assert (advice.title, advice.score) == ("Improve this run before going on", "0.550")
    assert advice.choice == "Nobody has chosen yet."


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("mandatory_checks_failed", "Get the mandatory checks to pass"),
        ("performance_too_low", "Stop here and look at data and model"),
        ("a new reason", "Stop here and look at data and model"),
    ],
)
def test_a_stop_says_what_for(reason: str, title: str) -> None:
    assert advice_of(files_of(advice={"recommendation": "WARN_STOP", "reason": reason})).title == title


def test_a_choice_is_shown_and_advice_without_overrides_has_no_command() -> None:
    advice = advice_of(files_of(advice={"recommendation": "WARN_STOP", "user_choice": "2"}))
    assert (advice.choice, advice.command) == ("Chosen: 2.", "")


def test_goals_that_are_missed_are_shown_with_how_far() -> None:
    shown = final_test_of(files_of(final_test=FINAL_TEST))
    assert (shown.title, shown.is_ready) == ("Needs improvement", False)
    assert [(goal.name, goal.wanted, goal.value, goal.state, goal.percent) for goal in shown.goals] == [
        ("one pill: macro F1", "≥ 0.92", "0.889", "missed", 96),
        ("several pills: mAP@0.5", "≥ 0.85", "0.847", "missed", 99),
    ]


def test_val_stands_against_test_with_what_chance_explains() -> None:
    shown = final_test_of(files_of(final_test=FINAL_TEST))
    assert shown.comparison is not None
    assert shown.comparison.rows == [
        ["classification: accuracy", "0.9310", "0.9210", "+0.0100", "-0.0200 to +0.0400"],
        ["classification: macro F1", "0.9510", "0.8890", "+0.0620", "+0.0110 to +0.1030"],
        ["detection: mAP@0.5", "0.8520", "0.8470", "+0.0050", "–"],
    ]
    assert "The classification figure fell from val to test by more than chance explains" in shown.warnings[-1]


def test_a_forced_use_and_uses_of_other_trainings_are_said() -> None:
    result = {"uses": [{"forced": True}], "other_uses": [{"forced": False}, {}]}
    assert final_test_of(files_of(final_test=result)).warnings == [
        "The test split was opened again by force, 1 time: its figures are no longer those of a first look.",
        "The same test pictures were opened for other trainings before (2 uses).",
    ]


@pytest.mark.req("FIN-1")
@pytest.mark.parametrize(
    "result",
    [
        {"recommendation": "READY_FOR_PRODUCTION"},
        {"recommendation": "READY_FOR_PRODUCTION", "ready_for_production": "yes"},
        {"recommendation": "NEEDS_IMPROVEMENT", "ready_for_production": True},
    ],
    ids=["one says so", "no truth", "they differ"],
)
def test_ready_is_said_only_where_the_file_says_so_twice(result: dict[str, Any]) -> None:
    assert final_test_of(files_of(final_test=result)).title == "Needs improvement"
    ready = {"recommendation": "READY_FOR_PRODUCTION", "ready_for_production": True}
    assert final_test_of(files_of(final_test=ready)).title == "Ready for production"


def test_a_use_that_was_cut_short_is_listed_without_figures() -> None:
    shown = final_test_of(files_of(test_uses={"uses": [{"time": "x", "completed": False, "training": "hash"}]}))
    assert not shown.is_done
    assert shown.uses is not None
    assert shown.uses.rows == [["x", "no"]]


def test_the_worst_drugs_and_their_mix_ups_are_listed(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    never_seen = "K-000003,없음,0,,,,,,0\n"
    (tmp_path / "reports" / "per_class_val.csv").write_text(PER_CLASS + never_seen, encoding="utf-8-sig")
    tables, name = class_tables(files_of(tmp_path, class_map={"names": {"K-000001": "타이레놀정"}}))
    assert name == "per_class_val.csv"
    assert tables[0].title == "worst drugs, val split; 2 of 2 were not always named correctly"
    assert tables[0].rows[0] == ["K-000002 <script>alert(1)</script>", "4", "75.0%", "100.0%", "0.857", "72.0%"]
    assert tables[1].rows == [["K-000002 <script>alert(1)</script>", "K-000001 타이레놀정", "1 of 4"]]


def test_a_split_without_a_mistake_has_no_tables(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "per_class_val.csv").write_text("code,n,f1\nK-1,3,1.0\n")
    assert class_tables(files_of(tmp_path)) == ([], "per_class_val.csv")
    assert class_tables(files_of(tmp_path / "empty")) == ([], "")


@pytest.mark.req("DAT-6")
def test_hard_cases_are_counted_by_reason_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "hard_cases").mkdir()
    lines = [json.dumps(case) for case in HARD_CASES]
    (tmp_path / "hard_cases" / "val.jsonl").write_text("\n".join([*lines, '{"reasons": ["wro']))
    shown = hard_cases_of(files_of(tmp_path))
    assert (shown.count, shown.href) == (2, "")
    assert [(row[0], row[2]) for row in shown.table.rows] == [("wrong", "2"), ("low confidence", "1")]
    (tmp_path / "hard_cases" / "index.html").write_text("")
    assert hard_cases_of(files_of(tmp_path)).href == "../hard_cases/index.html"


def test_decisions_are_grouped_by_what_they_are_about() -> None:
    names = ["train: cut", "dataloader.num_workers", "detection: data wait", "resume", "something else"]
    tables = decision_tables(files_of(run={"decisions": [{"what": name} for name in names]}))
    assert [(table.title, len(table.rows)) for table in tables] == [
        ("Batch size and memory", 1),
        ("Workers, loading and waiting for data", 2),
        ("Start, resume and end", 1),
        ("Other", 1),
    ]


def test_throughput_waiting_cache_and_memory_have_a_table_each() -> None:
    run = {
        "tasks": {
            "detection": {"throughput": 60.5, "data_wait_share": 0.021, "data_wait_reasons": {"bursts": {"n": 1}}}
        },
        "pixel_stores": {"train": {"entries": 132, "ram_bytes": 2**20, "hits_ram": 3, "hits_disk": 0, "misses": 1}},
        "memory_plan": {"total": 2**30},
        "peak_memory_mb": {"main": 1512.2},
    }
    tables = training_tables(files_of(run=run))
    assert [table.rows for table in tables] == [
        [["detection", "60.5", "2.1%"]],
        [["train", "132", "1", "75.0%", "–"]],
        [["plan: total", "1,024 MiB"], ["peak: main", "1,512 MB"]],
        [["bursts", "1"]],
    ]


def test_a_store_nobody_asked_has_no_share() -> None:
    tables = training_tables(files_of(run={"pixel_stores": {"val": {"misses": 0}}}))
    assert tables[0].rows == [["val", "–", "–", "–", "–"]]
