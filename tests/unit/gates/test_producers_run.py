from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillsnap.errors import PillError
from pillsnap.gates.producers_run import (
    auto_batch_tuning_success,
    memory_optimization_working,
    pipeline_complete,
    read_scalars,
    tensorboard_logging,
)
from pillsnap.jsonfile import save_json
from pillsnap.manifest import read_manifest, seal
from pillsnap.training.telemetry import TBWriter
from tests.unit.gates.checked import EPOCHS, change, produced, replace

Facts = dict[str, Any]


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    "producer",
    [pipeline_complete, auto_batch_tuning_success, tensorboard_logging, memory_optimization_working],
    ids=lambda producer: str(producer.__name__),
)
def test_a_sound_run_passes(sound_experiment: Path, producer: Callable[..., Any]) -> None:
    found = produced(producer, sound_experiment)
    assert (found.status, found.file is None) == ("passed", False), found.message


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda run: run["evaluation"].pop("detection"), "detection was not judged on the val split"),
        (lambda run: run["tasks"]["classification"].update(steps=0), "classification was trained for no step"),
        (lambda run: run["tasks"].pop("detection"), "detection was trained for no step"),
    ],
    ids=["not judged", "not trained", "no task"],
)
def test_a_task_left_out_is_no_complete_pipeline(
    experiment: Path, edit: Callable[[Facts], object], reason: str
) -> None:
    change(experiment, edit)
    found = produced(pipeline_complete, experiment)
    assert (found.status, found.value) == ("failed", 1)
    assert reason in found.message


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: replace(path, b"cut o")], ids=["gone", "cut off"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("reports/index.html", "index.html is missing or cut off"),
        ("checkpoints/best.pt", "checkpoints/best.pt is missing or damaged"),
        ("checkpoints/detection_last.pt", "detection_last.pt is not the file"),
        ("checkpoints/moments/000001-classification.pt", "000001-classification.pt is not the file"),
    ],
)
def test_a_damaged_file_is_no_complete_pipeline(
    experiment: Path, name: str, reason: str, damage: Callable[[Path], object]
) -> None:
    damage(experiment / name)
    found = produced(pipeline_complete, experiment)
    assert found.status == "failed"
    assert reason in found.message


@pytest.mark.req("CRT-2")
def test_both_manifests_damaged_are_no_complete_pipeline(experiment: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        replace(experiment / "checkpoints" / name, b"{}")
    assert "manifest.json is missing or damaged" in produced(pipeline_complete, experiment).message


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("key", ["ended", "tasks", "evaluation"])
def test_a_run_that_did_not_end_is_an_error_that_says_so(experiment: Path, key: str) -> None:
    change(experiment, lambda run: run.pop(key))
    with pytest.raises(PillError, match=rf"lacks {key}.*go on with train.resume=last"):
        produced(pipeline_complete, experiment)


@pytest.mark.req("CRT-2")
def test_metrics_without_a_task_are_no_complete_pipeline(experiment: Path) -> None:
    change(experiment, lambda metrics: metrics.pop("detection"), "reports/metrics.json")
    assert "no figures of detection" in produced(pipeline_complete, experiment).message


@pytest.mark.req("CRT-2", "BAT-1")
def test_the_batch_size_found_is_the_value(sound_experiment: Path) -> None:
    assert produced(auto_batch_tuning_success, sound_experiment).value == 4


@pytest.mark.req("CRT-2", "BAT-1")
@pytest.mark.parametrize(
    ("edit", "status", "reason"),
    [
        (lambda run: run["decisions"].clear(), "not run", "no size was searched for"),
        (lambda run: run["decisions"].pop(), "failed", "detection: no size was searched for"),
        (lambda run: run["decisions"][0].update(to="?"), "failed", "classification: the size found is '?'"),
        (
            lambda run: run["decisions"].append(
                {"what": "train: cut", "to": "2 x 4", "why": "microbatching at step 9"}
            ),
            "failed",
            "memory ran out after 4 was found: microbatching at step 9",
        ),
        (lambda run: run["tasks"]["detection"].update(steps=0), "failed", "no step was trained with 4"),
    ],
    ids=["none", "one task", "no number", "out of memory", "not trained"],
)
def test_a_batch_size_that_was_not_found_or_not_held_does_not_pass(
    experiment: Path, edit: Callable[[Facts], object], status: str, reason: str
) -> None:
    change(experiment, edit)
    found = produced(auto_batch_tuning_success, experiment)
    assert found.status == status
    assert reason in found.message


def test_regrowing_after_clean_steps_holds_the_batch_size(experiment: Path) -> None:
    regrown = {"what": "train: cut", "to": "4 x 2", "why": "500 clean steps before step 900"}
    change(experiment, lambda run: run["decisions"].append(regrown))
    assert produced(auto_batch_tuning_success, experiment).status == "passed"


@pytest.mark.req("CRT-2", "LOP-1")
def test_events_that_are_gone_fail(experiment: Path) -> None:
    for path in (experiment / "tb").iterdir():
        path.unlink()
    found = produced(tensorboard_logging, experiment)
    assert (found.status, found.value) == ("failed", 0)
    assert "train/loss has 0 points, wanted 2" in found.message


@pytest.mark.req("CRT-2", "LOP-1")
def test_events_that_are_cut_off_fail(experiment: Path) -> None:
    (path,) = (experiment / "tb").iterdir()
    replace(path, path.read_bytes()[: path.stat().st_size // 2])
    assert produced(tensorboard_logging, experiment).status == "failed"


@pytest.mark.req("CRT-2", "LOP-1")
def test_events_of_fewer_epochs_than_trained_fail(experiment: Path) -> None:
    change(experiment, lambda run: run["tasks"]["detection"].update(epochs=EPOCHS + 1))
    assert "detection/val/recall has 2 points, wanted 3" in produced(tensorboard_logging, experiment).message


@pytest.mark.req("CRT-2", "LOP-1")
def test_a_figure_that_is_no_number_fails(experiment: Path) -> None:
    with TBWriter(experiment) as tb:
        tb.add_scalar("train/loss", float("nan"), EPOCHS)
    assert "train/loss holds a value that is no number" in produced(tensorboard_logging, experiment).message


def test_a_missing_folder_of_events_is_an_error(experiment: Path) -> None:
    shutil.rmtree(experiment / "tb")
    with pytest.raises(PillError, match="TensorBoard cannot read"):
        read_scalars(experiment / "tb")


@pytest.mark.req("CRT-2", "DAT-3")
@pytest.mark.parametrize(
    ("edit", "status", "reason"),
    [
        (lambda run: run.update(pixel_stores={}), "not run", "kept no pictures in memory"),
        (lambda run: _ask_nothing(run), "not run", "asked for nothing"),
        (lambda run: run["peak_memory_mb"].update(main=9_900.0), "failed", "the run took 10.00 GB"),
        (lambda run: run["memory_plan"].update(hot_set=500_000), "failed", "the hot set takes 1.0 MB"),
        (lambda run: _store(run).update(hits_ram=0), "failed", "served nothing"),
        (lambda run: _store(run).update(in_ram=3), "failed", "holds 3 of 20 parts"),
        (lambda run: _store(run).update(misses=60), "failed", "60 pictures were decoded for 20 parts"),
        (lambda run: _store(run).update(damaged=1), "failed", "1 parts were found damaged"),
    ],
    ids=[
        "no store",
        "no training",
        "too much memory",
        "hot set too large",
        "no hits",
        "not kept",
        "decoded again",
        "damaged",
    ],
)
def test_memory_that_did_not_hold_to_its_plan_does_not_pass(
    experiment: Path, edit: Callable[[Facts], object], status: str, reason: str
) -> None:
    change(experiment, edit)
    found = produced(memory_optimization_working, experiment)
    assert found.status == status
    assert reason in found.message


def _store(run: Facts) -> Facts:
    store: Facts = run["pixel_stores"]["classification-train"]
    return store


def _ask_nothing(run: Facts) -> None:
    for store in run["pixel_stores"].values():
        store.update(hits_ram=0, hits_disk=0, misses=0)


@pytest.mark.req("CRT-2", "BAT-1")
def test_tuning_that_nobody_asked_for_is_not_run(experiment: Path) -> None:
    text = (experiment / "config.yaml").read_text(encoding="utf-8").replace("tune: true", "tune: false")
    replace(experiment / "config.yaml", text.encode())
    assert produced(auto_batch_tuning_success, experiment).status == "not run"


@pytest.mark.req("CRT-2", "STG-4")
@pytest.mark.parametrize(("is_success", "status"), [(True, "passed"), (False, "failed")])
def test_a_run_its_time_limit_ended_is_complete_where_that_is_a_success(
    experiment: Path, is_success: bool, status: str
) -> None:
    manifest = read_manifest(experiment / "checkpoints") or {}
    for name in ("manifest.json", "manifest.copy.json"):
        save_json(experiment / "checkpoints" / name, seal({**manifest, "completed": False}))
    change(experiment, lambda run: run.update(time_cap={"is_success": is_success}))
    assert produced(pipeline_complete, experiment).status == status


@pytest.mark.req("CRT-2")
def test_a_manifest_without_a_task_is_no_complete_pipeline(experiment: Path) -> None:
    manifest = read_manifest(experiment / "checkpoints") or {}
    del manifest["moments"][0]["files"]["detection"]
    for name in ("manifest.json", "manifest.copy.json"):
        save_json(experiment / "checkpoints" / name, seal(manifest))
    assert "the manifest names no checkpoint of detection" in produced(pipeline_complete, experiment).message


@pytest.mark.req("CRT-2")
def test_a_manifest_that_cannot_be_read_is_no_complete_pipeline(experiment: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        path = experiment / "checkpoints" / name
        path.unlink()
        path.mkdir()
    assert "cannot be read now" in produced(pipeline_complete, experiment).message
