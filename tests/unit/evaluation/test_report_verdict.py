"""The verdict section says go only where the verdict does, and shows what stands against it first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pillsnap.evaluation.report_verdict import GO, NO_GO, UNJUDGED, target_of, verdict_of
from tests.unit.evaluation.report_case import files_of
from tests.unit.evaluation.report_findings import CHECKS, TIME, VERDICT

pytestmark = pytest.mark.req("RPT-1", "GNG-1")


def test_a_run_nobody_judged_is_neither_go_nor_no_go_and_names_the_command() -> None:
    verdict = verdict_of(files_of(Path("runs", "a b"), run={"selection": {"stage": 2}}))
    assert (verdict.state, verdict.title, verdict.is_judged) == (UNJUDGED, "Not judged yet", False)
    assert verdict.command == "pillsnap check --stage 2 --exp 'runs/a b'"


@pytest.mark.parametrize("go", [False, None, "yes", 1], ids=str)
def test_only_true_is_a_go(go: object) -> None:
    assert verdict_of(files_of(verdict={"go": go})).state == NO_GO
    assert verdict_of(files_of(verdict={"go": True})).state == GO


def test_the_reasons_are_said_in_words_beside_their_codes() -> None:
    verdict = verdict_of(files_of(verdict={"reasons": ["CHECK_FAILED:memory_leak_test", "NEW_RULE:x_y"]}))
    assert verdict.reasons == [
        ("CHECK_FAILED:memory_leak_test", "The check of memory leak test failed."),
        ("NEW_RULE:x_y", "New rule: x y"),
    ]


def test_failed_checks_come_first_then_those_not_run() -> None:
    checks = verdict_of(files_of(verdict=VERDICT)).checks
    assert [check.status for check in checks] == ["failed", "not run", "passed", "passed"]
    assert checks[2].result == "2 tasks (wanted 2)"


@pytest.mark.parametrize(
    ("entry", "result"),
    [
        ({"value": 3, "wanted": "", "unit": "pills"}, "3 pills"),
        ({"value": None, "wanted": ">= 1"}, "wanted ≥ 1"),
        ({"value": None, "wanted": ""}, ""),
    ],
    ids=["no limit", "no value", "neither"],
)
def test_a_result_names_what_was_recorded(entry: dict[str, Any], result: str) -> None:
    checks = verdict_of(files_of(verdict={"checks": {"a": {"status": "passed", "what": "ran it", **entry}}})).checks
    assert (checks[0].result, checks[0].what) == (result, "Ran it")


def test_a_status_nobody_knows_counts_as_not_run() -> None:
    checks = verdict_of(files_of(verdict={"checks": {"a": {"status": "ok"}, "b": None}})).checks
    assert [check.status for check in checks] == ["not run", "not run"]


def test_evidence_is_linked_only_where_it_lies_in_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "exp" / "reports").mkdir(parents=True)
    (tmp_path / "exp" / "reports" / "run.json").write_text("{}")
    (tmp_path / "else.json").write_text("{}")
    checks = {
        "here": {"status": "passed", "file": "reports/run.json"},
        "gone": {"status": "passed", "file": "reports/gone.json"},
        "outside": {"status": "passed", "file": "../else.json"},
    }
    shown = verdict_of(files_of(tmp_path / "exp", verdict={"checks": checks})).checks
    assert {check.name: check.href for check in shown} == {"here": "../reports/run.json", "gone": "", "outside": ""}


def test_the_sentence_counts_checks_and_targets() -> None:
    sentence = verdict_of(files_of(verdict=VERDICT)).sentence
    assert sentence == "Stage 1: 2 of 4 mandatory checks passed, 1 of 4 targets met. Judged 2026-01-02 04:05 UTC."


def test_a_go_by_the_time_limit_says_so() -> None:
    sentence = verdict_of(files_of(verdict={"stage": 1, "go": True, "is_time_cap": True})).sentence
    assert "The time limit ended the run in order" in sentence


@pytest.mark.parametrize(
    ("entry", "state", "percent", "value"),
    [
        ({"wanted": ">=0.40", "value": 0.4, "met": True, "ratio": 1.0}, "met", 100, "0.4"),
        ({"wanted": ">=0.40", "value": 0.2, "met": False, "ratio": 0.5}, "missed", 50, "0.2"),
        ({"wanted": ">=0.40", "value": 0.399999, "met": False, "ratio": 0.9999}, "missed", 99, "0.399999"),
        ({"wanted": "<0.1", "value": None, "met": False, "ratio": 0.0}, "not measured", 0, "–"),
        ({"wanted": "<0.1", "value": float("nan"), "met": True, "ratio": 1.0}, "not measured", 0, "–"),
        ({"wanted": "some", "value": 3, "met": False, "ratio": None}, "missed", 0, "3"),
    ],
    ids=["met", "half", "almost", "missing", "nan", "no ratio"],
)
def test_only_a_target_that_is_met_has_a_full_bar(entry: dict[str, Any], state: str, percent: int, value: str) -> None:
    target = target_of({"name": "classification.accuracy", **entry})
    assert (target.state, target.percent, target.value) == (state, percent, value)
    assert target.name == "classification: accuracy"


def test_the_comparison_with_the_accepted_run_is_said_in_words() -> None:
    pairs = {"n": 40, "n_groups": 20, "both_right": 20, "both_wrong": 0, "only_a_right": 15, "only_b_right": 5}
    comparison = {
        "kind": "paired",
        "a": {"accuracy": 0.875, "n": 40},
        "b": {"accuracy": 0.625, "n": 40},
        "difference": -0.25,
        "interval": [-0.45, -0.05],
        "method": "bootstrap",
        "pairs": {**pairs, "difference": -0.25, "interval": [-0.45, -0.05], "p_value": 0.0414},
    }
    shown = verdict_of(files_of(verdict={"comparison": comparison})).comparison
    assert shown is not None
    assert shown.title == "The accepted run names more pills correctly"
    assert shown.sentence == (
        "The accepted run 87.5%, this run 62.5%, on the same 40 pills: a difference of -25.0 points, 95% interval "
        "-45.0 to -5.0."
    )
    assert shown.table is not None
    assert shown.table.rows[2] == ["only the accepted run right", "15"]


def test_why_nothing_was_compared_is_said() -> None:
    shown = verdict_of(files_of(verdict={"comparison": {"kind": "none", "reason": "written over"}})).comparison
    assert shown is not None
    assert (shown.title, shown.sentence) == ("Not compared picture by picture", "written over")


def test_a_verdict_older_than_the_run_is_said_to_be() -> None:
    warnings = verdict_of(files_of(verdict={"time": TIME}, run={"ended": "2026-01-02T04:05:07+00:00"})).warnings
    assert warnings == ["This verdict is older than the end of the run. Judge the run again before you rely on it."]


def test_a_passed_check_whose_evidence_changed_is_said(tmp_path: Path) -> None:
    failed = {"pipeline_complete": {**CHECKS["pipeline_complete"], "status": "failed"}}
    warnings = verdict_of(files_of(verdict=VERDICT, checks={"checks": {**CHECKS, **failed}})).warnings
    assert warnings == [
        "The verdict counts pipeline_complete as passed, reports/checks.json does not. Judge the run again."
    ]


def test_a_check_that_ran_again_is_said() -> None:
    again = {"onnx_conversion_success": {"status": "passed", "time": "2026-01-03T00:00:00+00:00"}}
    warnings = verdict_of(files_of(verdict=VERDICT, checks={"checks": {**CHECKS, **again}})).warnings
    assert warnings == ["Ran again after this verdict: onnx_conversion_success. Judge the run again to count it."]


def test_checks_of_other_stages_are_listed_apart() -> None:
    checks = {**CHECKS, "tensorboard_logging": {"status": "passed"}}
    verdict = verdict_of(files_of(verdict=VERDICT, checks={"checks": checks}))
    assert [check.name for check in verdict.other_checks] == ["tensorboard_logging"]
    assert verdict.warnings == []
