"""metrics.json has the specification's shape and nothing but finite figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pillsnap.evaluation.metrics_file import dump_metrics_json

pytestmark = pytest.mark.req("EVA-4", "SUC-1")


def classified(epoch: int, acc: float) -> dict[str, Any]:
    return {"epoch": epoch, "val_loss": 0.7, "acc": acc, "macro_f1": acc - 0.1, "top5": 0.99, "n": 40}


def detected(epoch: int, value: float) -> dict[str, Any]:
    return {"epoch": epoch, "mAP@0.5": value, "mAP@0.5:0.95": value / 2, "precision": 0.8, "recall": 0.9}


def dumped(path: Path, **metrics: Any) -> dict[str, Any]:
    content = json.loads(dump_metrics_json(metrics, path / "reports" / "metrics.json").read_text())
    assert isinstance(content, dict)
    return content


def test_the_flat_figures_are_those_of_the_last_epoch(tmp_path: Path) -> None:
    history = {"classification": [classified(1, 0.5), classified(2, 0.8)], "detection": [detected(1, 0.6)]}
    content = dumped(tmp_path, history=history)
    assert content["classification"] == {"acc": 0.8, "macro_f1": pytest.approx(0.7), "top5": 0.99, "loss": 0.7}
    assert content["detection"] == {"mAP@0.5": 0.6, "mAP@0.5:0.95": 0.3}


def test_the_latest_figures_have_the_loss_under_both_names(tmp_path: Path) -> None:
    latest = dumped(tmp_path, history={"classification": [classified(3, 0.5)]})["latest"]
    assert latest["classification"] == {**classified(3, 0.5), "loss": 0.7}
    assert latest["classification"]["val_loss"] == latest["classification"]["loss"]


def test_the_history_is_kept_as_it_was(tmp_path: Path) -> None:
    history = {"classification": [classified(1, 0.5), classified(2, 0.8)], "detection": [detected(1, 0.6)]}
    assert dumped(tmp_path, history=history)["history"] == history


def test_a_task_that_was_not_trained_is_null_not_zero(tmp_path: Path) -> None:
    content = dumped(tmp_path, history={"detection": [detected(1, 0.6)]})
    assert content["classification"] is None
    assert content["history"]["classification"] == []
    assert "classification" not in content["latest"]


@pytest.mark.req("FIN-1")
def test_the_best_models_figures_are_kept_by_split(tmp_path: Path) -> None:
    val, test = {"split": "val", "detection": {"mAP@0.5": 0.6}}, {"split": "test", "detection": {"mAP@0.5": 0.5}}
    content = dumped(tmp_path, history={"detection": [detected(1, 0.6)]}, val=val, test=test)
    assert (content["val"], content["test"]) == (val, test)


def test_test_and_run_appear_only_when_given(tmp_path: Path) -> None:
    history = {"detection": [detected(1, 0.6)]}
    assert not {"val", "test", "run"} & set(dumped(tmp_path, history=history))
    content = dumped(tmp_path, history=history, test={"detection": {"mAP@0.5": 0.5}}, run={"seed": 42})
    assert (content["test"], content["run"]) == ({"detection": {"mAP@0.5": 0.5}}, {"seed": 42})


@pytest.mark.req("DAT-2")
def test_files_left_out_are_told_by_kind(tmp_path: Path) -> None:
    history = {"detection": [detected(1, 0.6)]}
    details = {"share": 0.01, "examples": {"empty_image": ["a.png"]}}
    content = dumped(tmp_path, history=history, skipped={"empty_image": 1}, skipped_details=details)
    assert (content["skipped"], content["skipped_details"]) == ({"empty_image": 1}, details)


def test_what_was_passed_in_is_not_changed(tmp_path: Path) -> None:
    entry = classified(1, 0.5)
    dumped(tmp_path, history={"classification": [entry]})
    assert entry == classified(1, 0.5)


def test_a_figure_that_is_not_finite_is_refused_and_nothing_written(tmp_path: Path) -> None:
    entry = classified(1, 0.5) | {"val_loss": float("nan")}
    with pytest.raises(ValueError, match=r"classification\.loss is nan; every number must be finite"):
        dump_metrics_json({"history": {"classification": [entry]}}, tmp_path / "metrics.json")
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_without_a_figure_is_refused(tmp_path: Path) -> None:
    entry = {key: value for key, value in classified(1, 0.5).items() if key != "top5"}
    with pytest.raises(ValueError, match=r"entry 0 of the classification history has no top5"):
        dump_metrics_json({"history": {"classification": [entry]}}, tmp_path / "metrics.json")


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"history has the task 'segmentation'; wanted one of"):
        dump_metrics_json({"history": {"segmentation": []}}, tmp_path / "metrics.json")


@pytest.mark.parametrize("metrics", [{}, {"history": {}, "acc": 1.0}], ids=["no history", "stray figure"])
def test_unknown_or_missing_keys_are_refused(tmp_path: Path, metrics: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"metrics have the keys .*; wanted `history`"):
        dump_metrics_json(metrics, tmp_path / "metrics.json")
