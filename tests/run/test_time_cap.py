"""What happens to a run when its stage has no more time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pillsnap.cli.train import main
from pillsnap.data.loaders import build_dataloaders_twostage
from pillsnap.errors import GateError, InterruptedRunError
from pillsnap.evaluation.test_ledger import LEDGER_NAME
from pillsnap.jsonfile import read_json
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.classification import ClassificationTask
from pillsnap.training.run import run_training
from tests.run.conftest import HOUR, FinishedRun
from tests.run.test_repeatability import _assert_same_weights
from tests.run.tiny import REPOSITORY, tiny_config, tiny_words

STAGE_1 = "data.progressive_validation.stage_1"


def _stage_1(hours: float, *, samples: int | None = 1, classes: int | None = 1) -> tuple[str, ...]:
    minima = {"min_samples_required": samples, "min_class_coverage": classes}
    words = [f"{STAGE_1}.{key}={'null' if value is None else value}" for key, value in minima.items()]
    return ("data.progressive_validation.current_stage=1", f"{STAGE_1}.time_limit_hours={hours}", *words)


def _checks(exp_dir: Path) -> dict[str, Any]:
    verdict = read_json(exp_dir / "reports" / "run.json")["time_cap"]
    return {check["name"]: (check["value"], check["wanted"], check["holds"]) for check in verdict["checks"]}


def _log(tmp_path: Path) -> str:
    return (tmp_path / "exp" / "logs" / "pillsnap.log").read_text(encoding="utf-8")


@pytest.mark.req("STG-4")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_run_ended_by_the_time_limit_of_stage_1_is_a_success(data_root: Path, tmp_path: Path) -> None:
    words = _stage_1(5, samples=16, classes=2)
    result = run_training(tiny_config(tmp_path / "exp", data_root, *words))
    assert result.figures["split"] == "val"
    assert {"classification", "detection", "end_to_end"} <= set(result.figures)
    checks = _checks(tmp_path / "exp")
    assert {name: holds for name, (_, _, holds) in checks.items()} == dict.fromkeys(
        [
            "allow_success_on_time_cap",
            "time_limit_hours",
            "min_samples_required",
            "min_class_coverage",
            "pipeline_complete",
            "classification_model_loading",
        ],
        True,
    )
    assert checks["time_limit_hours"] == (5.0, 5, True)
    assert checks["min_samples_required"] == (16, 16, True), "detection begins: of five steps it has three"
    facts = read_json(tmp_path / "exp" / "reports" / "run.json")
    assert ("time cap", "success") in [(entry["what"], entry["to"]) for entry in facts["decisions"]]
    assert facts["evaluation"]["classification"]["acc"] >= 0, "figures are recorded, whatever they are"
    best, last = (load_ckpt(tmp_path / "exp" / "checkpoints" / name) for name in ("best.pt", "last.pt"))
    assert best["clock"] == last["clock"]
    assert (last["clock"]["step"], last["epoch"], last["history"]) == (2, 0, []), "being judged is no epoch"
    assert "min class coverage" in result.report_path.read_text(encoding="utf-8").replace("_", " ")


@pytest.mark.req("STG-4", "SUC-1")
@pytest.mark.usefixtures("an_hour_a_step")
def test_too_few_classes_at_the_time_limit_end_with_exit_code_5_after_the_report(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words(tmp_path / "exp", data_root, *_stage_1(4, classes=6), "train.tasks=[classification]")
    assert main(["--cfg", str(REPOSITORY / "configs" / "demo.yaml"), *words]) == 5
    said = capsys.readouterr().err
    assert "min_class_coverage is 5, wanted 6 or more" in said
    assert "min_samples_required" not in said, "what holds is not complained of"
    assert "data.progressive_validation.stage_1.time_limit_hours" in said
    assert "train.resume=last" in said
    assert (tmp_path / "exp" / "reports" / "index.html").is_file()
    assert _checks(tmp_path / "exp")["min_class_coverage"] == (5, 6, False)


@pytest.mark.req("STG-4")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_task_without_a_step_cannot_be_judged(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="pipeline_complete is False, wanted True; classification_model_loading is"):
        run_training(tiny_config(tmp_path / "exp", data_root, *_stage_1(1, samples=None, classes=None)))
    assert "[train] took no step before the time limit" in _log(tmp_path)
    assert (tmp_path / "exp" / "checkpoints" / "detection_best.pt").is_file()
    assert not (tmp_path / "exp" / "checkpoints" / "best.pt").exists()
    assert (tmp_path / "exp" / "reports" / "index.html").is_file()


@pytest.mark.req("STG-4")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_classifier_that_does_not_load_is_no_success(data_root: Path, tmp_path: Path) -> None:
    words = (*_stage_1(10), "train.tasks=[classification]")
    run_training(tiny_config(tmp_path / "exp", data_root, *words))
    best = tmp_path / "exp" / "checkpoints" / "best.pt"
    best.unlink()
    best.write_bytes(b"damaged")
    with pytest.raises(GateError, match="classification_model_loading is False, wanted True"):
        run_training(tiny_config(tmp_path / "exp", data_root, *words, "train.resume=last"))
    assert "best.pt (7 bytes) is not a readable checkpoint" in _log(tmp_path)


@pytest.mark.req("STG-4", "CKP-2", "CKP-3")
@pytest.mark.usefixtures("an_hour_a_step")
def test_with_a_longer_limit_a_capped_run_goes_on_as_if_it_never_was(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    limit = "data.progressive_validation.stage_4.time_limit_hours="
    with pytest.raises(GateError, match="allow_success_on_time_cap is False, wanted True"):
        run_training(tiny_config(tmp_path / "exp", data_root, f"{limit}5"))
    assert read_json(tmp_path / "exp" / "checkpoints" / "manifest.json")["completed"] is False
    sealed = build_dataloaders_twostage(tiny_config(tmp_path / "exp", data_root))
    assert sealed.cls_test is None, "training at stage 4 is not over"
    assert not (tmp_path / "exp" / LEDGER_NAME).exists()
    result = run_training(tiny_config(tmp_path / "exp", data_root, f"{limit}120", "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)
    assert result.figures == finished_run.result.figures
    assert result.final_test is not None
    manifest = read_json(tmp_path / "exp" / "checkpoints" / "manifest.json")
    assert manifest["moments"][0]["loop_seconds"] == manifest["moments"][0]["loop_step"] * HOUR
    assert "time_cap" not in read_json(tmp_path / "exp" / "reports" / "run.json")


@pytest.mark.req("STG-4", "CKP-2")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_run_resumed_without_time_left_stops_at_once_in_the_same_way(data_root: Path, tmp_path: Path) -> None:
    words = (*_stage_1(3), "train.tasks=[classification]")
    run_training(tiny_config(tmp_path / "exp", data_root, *words))
    run_training(tiny_config(tmp_path / "exp", data_root, *words, "train.resume=last"))
    assert _checks(tmp_path / "exp")["min_samples_required"] == (24, 1, True), "three steps of eight, none added"


@pytest.mark.req("STG-4", "CKP-2")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_run_stopped_while_it_is_judged_can_be_resumed(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*_stage_1(3), "train.tasks=[classification]")
    with monkeypatch.context() as patch:
        evaluate = ClassificationTask.evaluate

        def interrupted(self: ClassificationTask) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(self)

        patch.setattr(ClassificationTask, "evaluate", interrupted)
        with pytest.raises(InterruptedRunError, match="stopped by SIGTERM.*train.resume=last"):
            run_training(tiny_config(tmp_path / "exp", data_root, *words))
    assert run_training(tiny_config(tmp_path / "exp", data_root, *words, "train.resume=last")).figures["classification"]


@pytest.mark.req("STG-4")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_limit_that_comes_with_the_last_step_changes_nothing(data_root: Path, tmp_path: Path) -> None:
    words = (*_stage_1(9), "train.tasks=[classification]", "train.classification.epochs=1")
    run_training(tiny_config(tmp_path / "exp", data_root, *words))
    assert read_json(tmp_path / "exp" / "checkpoints" / "manifest.json")["completed"] is True
    assert "time_cap" not in read_json(tmp_path / "exp" / "reports" / "run.json")
