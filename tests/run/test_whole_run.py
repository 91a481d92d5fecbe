"""What a whole run leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pillsnap.data.classes import ClassMap
from pillsnap.evaluation.prediction_table import read_predictions
from pillsnap.inference.answers import UNKNOWN_CODE
from pillsnap.inference.calibration import Calibration
from pillsnap.inference.pipeline import predict_pipeline
from tests.run.conftest import FinishedRun

CHECKPOINTS = {
    "best.pt",
    "classification_best.pt",
    "detection_best.pt",
    "last.pt",
    "detection_last.pt",
    "manifest.json",
}


@pytest.mark.req("SUC-1", "RPT-1", "EVA-1", "EVA-2", "EVA-3")
def test_every_file_the_specification_names_is_there(finished_run: FinishedRun) -> None:
    exp_dir = finished_run.exp_dir
    assert {path.name for path in (exp_dir / "checkpoints").iterdir() if path.is_file()} >= CHECKPOINTS
    reports = {path.name for path in (exp_dir / "reports").iterdir()}
    assert reports >= {"index.html", "metrics.json", "run.json", "confusion_matrix.png", "history.png", "detections"}
    assert any(name.startswith("roc") for name in reports)
    assert list((exp_dir / "reports" / "detections").glob("*.png"))
    assert (exp_dir / "config.yaml").is_file()


@pytest.mark.req("FIN-3", "VAL-1", "DAT-6")
def test_a_run_ends_with_its_refusal_fitted_and_measured(finished_run: FinishedRun) -> None:
    exp_dir = finished_run.exp_dir
    calibration = Calibration.load(exp_dir)
    assert calibration is not None
    known, strangers = (
        read_predictions(exp_dir / "reports" / f"predictions_{name}.arrow") for name in ("val", "unknown")
    )
    assert known.is_known.all()
    assert not strangers.is_known.any()
    assert (known.accepted == (known.score >= np.float32(calibration.threshold))).all()
    figures = json.loads((exp_dir / "reports" / "unknown.json").read_text())
    assert (figures["n_known"], figures["n_unknown"]) == (len(known), len(strangers))
    assert finished_run.result.figures["unknown"]["auroc"] == figures["auroc"]
    assert (exp_dir / "hard_cases" / "val.jsonl").is_file()


@pytest.mark.req("CRT-2", "ADV-1", "ADV-2", "GNG-1", "DAT-6")
def test_a_run_ends_with_evidence_verdict_and_advice(finished_run: FinishedRun) -> None:
    exp_dir = finished_run.exp_dir
    checks = json.loads((exp_dir / "reports" / "checks.json").read_text())["checks"]
    assert checks["pipeline_complete"]["status"] == "passed"
    assert checks["classification_model_loading"]["status"] == "passed"
    assert checks["onnx_conversion_success"]["status"] == "not run"
    assert json.loads((exp_dir / "reports" / "verdict.json").read_text())["go"] is False
    assert json.loads((exp_dir / "reports" / "advice.json").read_text())["user_choice"] == "no choice"
    events = EventAccumulator(str(exp_dir / "tb")).Reload()
    assert "gate/gating_score" in events.Tags()["scalars"]


@pytest.mark.req("EVA-4", "SUC-1", "VAL-1", "VAL-2")
def test_metrics_json_has_the_history_and_the_latest_figures(finished_run: FinishedRun) -> None:
    metrics = json.loads((finished_run.exp_dir / "reports" / "metrics.json").read_text())
    assert {"acc", "macro_f1", "top5", "loss"} <= set(metrics["classification"])
    assert {"mAP@0.5", "mAP@0.5:0.95"} <= set(metrics["detection"])
    assert [epoch["epoch"] for epoch in metrics["history"]["classification"]] == [1, 2]
    assert [epoch["epoch"] for epoch in metrics["history"]["detection"]] == [1, 2]
    assert (metrics["val"]["split"], metrics["test"]["split"]) == ("val", "test")
    assert 0 <= metrics["test"]["end_to_end"]["recall"] <= metrics["test"]["end_to_end"]["box_recall"] <= 1


@pytest.mark.req("CKP-1", "DAT-5")
@pytest.mark.parametrize("name", ["last.pt", "detection_last.pt", "best.pt"])
def test_a_checkpoint_holds_all_that_is_specified(finished_run: FinishedRun, name: str) -> None:
    content = torch.load(finished_run.exp_dir / "checkpoints" / name, weights_only=True)
    specified = {"model_state", "optimizer_state", "scheduler_state", "scaler_state", "epoch", "best_metric"}
    assert specified | {"config_snapshot", "ema_state", "rng", "clock", "class_map", "versions"} <= set(content)
    assert not any(key.startswith("_orig_mod") for key in content["model_state"])
    stored = ClassMap.load(finished_run.exp_dir / "class_map.json")
    assert ClassMap.from_dict(content["class_map"]).codes == stored.codes
    assert len(stored) == 5


@pytest.mark.req("LOP-1", "VAL-1", "VAL-2")
def test_tensorboard_has_the_specified_tags_of_both_tasks(finished_run: FinishedRun) -> None:
    events = EventAccumulator(str(finished_run.exp_dir / "tb"))
    events.Reload()
    step_tags = {"train/loss", "train/lr"} | {
        f"perf/{name}" for name in ("data_time", "compute_time", "throughput", "cuda_mem")
    }
    val_tags = {f"val/{name}" for name in ("loss", "accuracy", "macro_f1", "top5")}
    found = set(events.Tags()["scalars"])
    assert step_tags | val_tags <= found
    assert {f"detection/{tag}" for tag in step_tags} | {"detection/val/mAP@0.5", "detection/val/mAP@0.5:0.95"} <= found


@pytest.mark.req("OOM-1")
@pytest.mark.parametrize("prefix", ["", "detection/"])
def test_memory_and_micro_batch_are_recorded_before_every_epoch(finished_run: FinishedRun, prefix: str) -> None:
    events = EventAccumulator(str(finished_run.exp_dir / "tb"))
    events.Reload()
    for tag in ("perf/memory_use", "perf/batch_size"):
        assert [event.step for event in events.Scalars(prefix + tag)] == [0, 1]


@pytest.mark.req("LOP-2", "INT-1")
def test_steps_of_both_tasks_alternate_in_the_log(finished_run: FinishedRun) -> None:
    lines = re.findall(r"\[(train(?:/detection)?)\] e=1/2 s=\d+/\d+ loss=", finished_run.log)
    assert {"train", "train/detection"} == set(lines)
    assert lines[:4] != ["train"] * 4, "the tasks ran one after the other"


@pytest.mark.req("DAT-2")
def test_the_detectors_data_lie_beside_as_links_for_other_tools(finished_run: FinishedRun) -> None:
    images = list((finished_run.exp_dir / "detection_data" / "images" / "train").iterdir())
    assert images
    assert all(path.is_symlink() for path in images)
    assert (finished_run.exp_dir / "detection_data" / "data.yaml").is_file()


@pytest.mark.req("TRN-1")
@pytest.mark.parametrize(("mode", "kind"), [("single", "single"), ("combo", "combination")])
def test_the_trained_models_answer_a_photograph(
    finished_run: FinishedRun, data_root: Path, mode: str, kind: str
) -> None:
    photo = min(data_root.glob(f"train/images/{kind}/*/*/K-*.png"))
    answer = predict_pipeline(photo, mode, 0.01, exp_dir=finished_run.exp_dir)
    assert answer["mode_used"] == mode
    codes = set(ClassMap.load(finished_run.exp_dir / "class_map.json").codes)
    assert {pill["code"] for pill in answer["pills"]} <= codes | {UNKNOWN_CODE}
    assert {one["code"] for pill in answer["pills"] for one in pill["top5"]} <= codes
    assert mode == "combo" or len(answer["pills"]) == 1


def test_the_result_names_its_split_and_files(finished_run: FinishedRun) -> None:
    result = finished_run.result
    assert result.figures["split"] == "val"
    assert result.final_test is not None
    assert result.final_test["test_results"]["classification"]["n"] == 5
    assert result.metrics_path.is_file()
    assert result.report_path.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_the_record_of_the_run_tells_speed_and_data(finished_run: FinishedRun) -> None:
    facts = json.loads((finished_run.exp_dir / "reports" / "run.json").read_text())
    assert facts["data"]["classes"] == 5
    assert facts["tasks"]["classification"]["throughput"] > 0
    assert 0 <= facts["tasks"]["detection"]["data_wait_share"] <= 1
    assert facts["seconds"] > 0
