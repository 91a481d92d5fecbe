import json
from pathlib import Path
from typing import Any

import pytest

from pillsnap.errors import ConfigError
from pillsnap.evaluation.prediction_table import write_predictions
from pillsnap.gates.accepted import accepted_path, read_accepted
from pillsnap.gates.targets import STAGES, get_stage_config
from pillsnap.gates.verdict import evaluate_gate
from pillsnap.jsonfile import read_json
from tests.unit.gates.experiment_case import ExperimentCase, predictions

SAMPLES = {1: 2000, 2: 5000, 3: 10000, 4: 10000}


@pytest.fixture
def case(tmp_path: Path) -> ExperimentCase:
    return ExperimentCase(tmp_path / "exp")


@pytest.mark.req("GNG-1", "CRT-2")
@pytest.mark.parametrize("stage", STAGES)
def test_an_experiment_with_all_evidence_is_a_go(tmp_path: Path, stage: int) -> None:
    case = ExperimentCase(tmp_path / "exp", stage)
    case.change("metrics", val__classification__n=SAMPLES[stage])
    verdict = evaluate_gate(case.dir, stage)
    assert (verdict.go, verdict.reasons) == (True, [])
    assert list(verdict.checks) == list(get_stage_config(stage).mandatory_checks)


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("name", get_stage_config(1).mandatory_checks)
@pytest.mark.parametrize(
    ("status", "code"), [("failed", "CHECK_FAILED"), ("not run", "CHECK_NOT_RUN"), ("?", "CHECK_NOT_RUN")]
)
def test_one_check_that_did_not_pass_is_no_go(case: ExperimentCase, name: str, status: str, code: str) -> None:
    case.pass_checks(name, status=status)
    verdict = evaluate_gate(case.dir, 1)
    assert (verdict.go, verdict.reasons) == (False, [f"{code}:{name}"])


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("name", get_stage_config(1).mandatory_checks)
def test_one_piece_of_evidence_removed_is_no_go(case: ExperimentCase, name: str) -> None:
    checks = read_json(case.dir / "reports" / "checks.json")["checks"]
    del checks[name]
    assert evaluate_gate(case.dir, 1, checks).reasons == [f"CHECK_NOT_RUN:{name}"]


@pytest.mark.req("CRT-2", "GNG-1")
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("reports/checks.json", "CHECK_NOT_RUN:pipeline_complete"),
        ("reports/metrics.json", "ACC_BELOW_TARGET"),
        ("reports/latency.json", "LATENCY_P95_TOO_HIGH"),
        ("reports/predictions_val.arrow", "COVERAGE_TOO_LOW"),
        ("reports/run.json", "CRASH_DETECTED"),
        ("class_map.json", "COVERAGE_TOO_LOW"),
        ("checkpoints/best.pt", "CHECK_NOT_RUN:pipeline_complete"),
        ("checkpoints/detection_best.pt", "CHECK_NOT_RUN:pipeline_complete"),
    ],
)
def test_one_file_removed_is_no_go(case: ExperimentCase, file: str, reason: str) -> None:
    (case.dir / file).unlink()
    verdict = evaluate_gate(case.dir, 1)
    assert not verdict.go
    assert reason in verdict.reasons


@pytest.mark.req("CRT-2")
def test_a_check_of_other_checkpoints_counts_as_not_run(case: ExperimentCase) -> None:
    checks = read_json(case.dir / "reports" / "checks.json")["checks"]
    (case.dir / "checkpoints" / "best.pt").write_bytes(b"trained on")
    verdict = evaluate_gate(case.dir, 1, checks)
    assert not verdict.go
    assert "other checkpoints" in verdict.checks["pipeline_complete"]["message"]


@pytest.mark.req("CRT-2")
def test_a_check_whose_evidence_is_gone_counts_as_not_run(case: ExperimentCase) -> None:
    case.pass_checks("onnx_conversion_success", file="export/export_report.json")
    checks = read_json(case.dir / "reports" / "checks.json")["checks"]
    verdict = evaluate_gate(case.dir, 1, checks)
    assert verdict.reasons == ["CHECK_NOT_RUN:onnx_conversion_success"]
    assert "export/export_report.json is gone" in verdict.checks["onnx_conversion_success"]["message"]


@pytest.mark.req("GNG-1")
def test_reasons_of_the_simple_evaluation_are_no_go(case: ExperimentCase) -> None:
    case.change("metrics", val__classification__acc=0.5)
    verdict = evaluate_gate(case.dir, 1)
    assert (verdict.go, verdict.reasons, verdict.simple["reasons"]) == (
        False,
        ["ACC_BELOW_TARGET"],
        ["ACC_BELOW_TARGET"],
    )


@pytest.mark.req("GNG-1")
def test_a_run_of_a_lower_stage_passes_no_higher_gate(case: ExperimentCase) -> None:
    case.pass_checks(*get_stage_config(2).mandatory_checks)
    case.change("metrics", val__classification__n=5000)
    assert evaluate_gate(case.dir, 2).reasons == ["TRAINED_FOR_STAGE:1"]


def cap(case: ExperimentCase, *, is_success: bool = True) -> None:
    """Let the run have been ended by its time limit, with figures that pass no gate."""
    case.change("run", time_cap={"is_success": is_success, "checks": []})
    case.change("metrics", val__classification__acc=0.2)
    case.pass_checks("onnx_conversion_success", "detection_model_loading", status="not run")


@pytest.mark.req("STG-4")
def test_a_capped_run_of_stage_1_is_a_go_with_its_figures_recorded(case: ExperimentCase) -> None:
    cap(case)
    verdict = evaluate_gate(case.dir, 1)
    assert (verdict.go, verdict.is_time_cap, verdict.reasons) == (True, True, [])
    assert verdict.simple["reasons"] == ["ACC_BELOW_TARGET"]
    assert verdict.simple["results"]["accuracy"] == 0.2


@pytest.mark.req("STG-4")
def test_a_capped_run_that_was_never_judged_is_no_later_baseline(case: ExperimentCase) -> None:
    cap(case)
    case.change("metrics", val=None)
    assert evaluate_gate(case.dir, 1).go
    assert not accepted_path(case.dir).exists()


@pytest.mark.req("STG-4")
@pytest.mark.parametrize("name", ["pipeline_complete", "classification_model_loading"])
def test_a_capped_run_needs_its_two_checks(case: ExperimentCase, name: str) -> None:
    cap(case)
    case.pass_checks(name, status="failed")
    verdict = evaluate_gate(case.dir, 1)
    assert (verdict.go, verdict.is_time_cap) == (False, False)


@pytest.mark.req("STG-4")
def test_a_capped_run_that_judged_itself_no_success_is_no_go(case: ExperimentCase) -> None:
    cap(case, is_success=False)
    assert not evaluate_gate(case.dir, 1).go


@pytest.mark.req("STG-4")
def test_only_stage_1_forgives_a_capped_run(tmp_path: Path) -> None:
    case = ExperimentCase(tmp_path / "exp", 2)
    case.pass_checks("pipeline_complete", "classification_model_loading")
    cap(case)
    assert not evaluate_gate(case.dir, 2).go


@pytest.mark.req("CRT-1")
def test_the_verdict_is_written_with_every_target_and_its_file(case: ExperimentCase) -> None:
    evaluate_gate(case.dir, 1)
    content = read_json(case.dir / "reports" / "verdict.json")
    assert [target["name"] for target in content["targets"]] == [
        target.name for target in get_stage_config(1).performance_targets
    ]
    expected = {"wanted": ">=0.40", "value": 0.9, "met": True, "ratio": 1.0, "file": "reports/metrics.json"}
    assert content["targets"][2] == {"name": "classification.accuracy", **expected}
    assert content["go"] is True
    assert content["score"] == pytest.approx(4 / 6)  # no TensorBoard: GPU memory and data loading were not measured


@pytest.mark.req("CRT-1")
def test_advanced_metrics_stand_beside_the_score(tmp_path: Path) -> None:
    case = ExperimentCase(tmp_path / "exp", 2)
    advanced = {each["name"]: each for each in evaluate_gate(case.dir, 2).advanced}
    assert (advanced["class_imbalance_ratio"]["met"], advanced["class_imbalance_ratio"]["wanted"]) == (True, "<=10:1")
    assert (advanced["convergence_stability"]["met"], advanced["memory_efficiency"]["value"]) == (False, None)


def accept(tmp_path: Path, name: str = "before") -> ExperimentCase:
    case = ExperimentCase(tmp_path / name)
    (case.dir / "checkpoints" / "best.pt").write_bytes(name.encode())
    case.prove()
    assert evaluate_gate(case.dir, 1).go
    return case


@pytest.mark.req("GNG-1")
def test_the_last_accepted_run_is_the_baseline(tmp_path: Path) -> None:
    before = accept(tmp_path)
    after = ExperimentCase(tmp_path / "after")
    after.change("metrics", val__classification__acc=0.8799)
    write_predictions(after.predictions_path, predictions(1760))
    verdict = evaluate_gate(after.dir, 1)
    assert verdict.reasons == ["REGRESSION_TOO_LARGE"]
    assert (verdict.simple["baseline"]["exp_dir"], verdict.simple["baseline"]["accuracy"]) == (str(before.dir), 0.9)
    assert verdict.comparison is not None
    assert (verdict.comparison["kind"], verdict.comparison["pairs"]["only_a_right"]) == ("paired", 40)


@pytest.mark.req("GNG-1")
def test_a_named_baseline_wins_over_the_last_accepted_run(tmp_path: Path) -> None:
    accept(tmp_path)
    other, after = (ExperimentCase(tmp_path / name) for name in ("other", "after"))
    other.change("metrics", val__classification__acc=0.95)
    verdict = evaluate_gate(after.dir, 1, baseline=other.dir)
    assert (verdict.go, verdict.simple["baseline"]["accuracy"]) == (False, 0.95)


@pytest.mark.req("GNG-1")
def test_a_named_baseline_without_accuracy_is_refused(case: ExperimentCase, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no accuracy on val"):
        evaluate_gate(case.dir, 1, baseline=tmp_path / "nowhere")


def test_a_run_judged_again_is_not_its_own_baseline(case: ExperimentCase) -> None:
    verdicts = [evaluate_gate(case.dir, 1) for _ in range(2)]
    assert [verdict.simple["baseline"] for verdict in verdicts] == [None, None]
    assert len(list(read_accepted(accepted_path(case.dir)))) == 1


def test_a_no_go_is_not_noted_as_accepted(case: ExperimentCase) -> None:
    case.change("metrics", val__classification__acc=0.5)
    evaluate_gate(case.dir, 1)
    assert not accepted_path(case.dir).exists()


def test_an_accepted_run_whose_answers_are_gone_is_said(tmp_path: Path) -> None:
    before = accept(tmp_path)
    before.predictions_path.unlink()
    verdict = evaluate_gate(ExperimentCase(tmp_path / "after").dir, 1)
    assert verdict.go
    assert verdict.comparison is not None
    assert "cannot be read" in verdict.comparison["reason"]


def test_a_folder_that_was_trained_anew_is_not_compared_with_itself(case: ExperimentCase) -> None:
    evaluate_gate(case.dir, 1)
    (case.dir / "checkpoints" / "best.pt").write_bytes(b"trained anew")
    case.prove()
    verdict = evaluate_gate(case.dir, 1)
    assert verdict.simple["baseline"]["accuracy"] == 0.9
    assert verdict.comparison is not None
    assert "lay in this folder" in verdict.comparison["reason"]


@pytest.mark.req("GNG-1")
def test_an_accepted_run_is_one_line(case: ExperimentCase) -> None:
    verdict = evaluate_gate(case.dir, 1)
    line: dict[str, Any] = json.loads(accepted_path(case.dir).read_text())
    assert (line["stage"], line["exp_dir"], line["accuracy"], line["time"]) == (1, str(case.dir), 0.9, verdict.time)
    assert len(line["checkpoint"]) == 64
