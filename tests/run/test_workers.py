"""The number of workers of a whole run: measured on its own loaders, without a trace in what it learns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pillsnap.config.loading import load_config
from pillsnap.data.batches import ClassificationBatch
from pillsnap.data.loaders import TwoStageLoaders, build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.twostage import load_data
from pillsnap.jsonfile import read_json
from pillsnap.training import worker_tuning
from pillsnap.training.build import build_classifier
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from pillsnap.training.worker_tuning import (
    TrainingTurns,
    candidates_of,
    training_loaders,
    why_not_to_tune,
    with_workers,
)
from tests.run.conftest import FinishedRun
from tests.run.tiny import REPOSITORY, tiny_config

pytestmark = pytest.mark.req("WRK-1", "UTL-12")
TUNED = (
    "dataloader.num_workers=1",
    "dataloader.autotune_workers=true",
    "dataloader.autotune_candidates=[1, 2]",
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a measurement take few steps, on any machine."""
    monkeypatch.setattr(worker_tuning, "WARMUP", 2)
    monkeypatch.setattr(worker_tuning, "STEPS", 6)
    monkeypatch.setattr(worker_tuning, "usable_cores", lambda: 2)
    monkeypatch.setattr("pillsnap.training.workers.usable_cores", lambda: 2)


@pytest.mark.usefixtures("short")
def test_a_measured_number_of_workers_changes_no_bit_of_the_weights(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    exp_dir = tmp_path / "exp"
    run_training(tiny_config(exp_dir, data_root, *TUNED))
    for name in ("last.pt", "detection_last.pt"):
        found, expected = (load_ckpt(each / "checkpoints" / name) for each in (exp_dir, finished_run.exp_dir))
        assert all(torch.equal(found["model_state"][key], value) for key, value in expected["model_state"].items())
    log = (exp_dir / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    assert len(re.findall(r"\[workers\] [12]: \d+\.\d ms a step, mean of 6", log)) == 2
    [decision] = [each for each in _decisions(exp_dir) if each["what"] == "dataloader.num_workers"]
    assert decision["from"] == "1"
    assert f"[workers] {decision['to']} workers: " in log
    assert load_ckpt(exp_dir / "checkpoints" / "last.pt")["config_snapshot"]["dataloader"]["num_workers"] == int(
        decision["to"]
    )
    assert _tensorboard(exp_dir) == [float(decision["to"])]


def _decisions(exp_dir: Path) -> list[dict[str, str]]:
    decisions: list[dict[str, str]] = read_json(exp_dir / "reports" / "run.json")["decisions"]
    return decisions


def _tensorboard(exp_dir: Path) -> list[float]:
    events = EventAccumulator(str(exp_dir / "tb"))
    events.Reload()
    return [event.value for event in events.Scalars("perf/num_workers")]


def test_a_number_that_is_not_measured_is_told_too(finished_run: FinishedRun) -> None:
    assert "[workers] 0 workers a loader: pictures are decoded in the training process" in finished_run.log
    assert _tensorboard(finished_run.exp_dir) == [0.0]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (TUNED, None),
        ((*TUNED, "dataloader.num_workers=0"), "decoded in the training process"),
        ((*TUNED, "dataloader.autotune_workers=false"), "dataloader.autotune_workers is off"),
        ((*TUNED, "train.stage_overrides.stage_4.num_workers_override=3"), "stage_4.num_workers_override sets"),
        ((*TUNED, "train.stage_overrides.stage_3.num_workers_override=3"), None),
    ],
    ids=["asked for", "no workers", "switched off", "set by the stage", "set by another stage"],
)
def test_when_the_number_is_measured(
    overrides: tuple[str, ...], reason: str | None, data_root: Path, tmp_path: Path
) -> None:
    found = why_not_to_tune(tiny_config(tmp_path, data_root, *overrides))
    assert (found is None) if reason is None else (reason in str(found))


def test_another_number_of_workers_leaves_the_configuration_it_came_from(data_root: Path, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, data_root)
    changed = with_workers(cfg, 7)
    assert (changed.dataloader.num_workers, cfg.dataloader.num_workers) == (7, 0)
    assert changed.train == cfg.train


def _loaders(cfg: DictConfig) -> TwoStageLoaders:
    data = load_data(cfg)
    spec: ClassifierInput = build_classifier(cfg, len(data.class_map))[1]
    return build_loaders(data, cfg, spec)


def test_loaders_are_measured_in_the_turns_of_the_run_from_the_place_asked_for(data_root: Path, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, data_root, "train.interleave_ratio=[2, 1]")
    expected = [batch.sample_ids for batch in _loaders(cfg).cls_train or ()]
    half = int(len(expected) * 0.5)
    batches = iter(TrainingTurns(training_loaders(_loaders(cfg)), cfg, 0.5))
    taken = [next(batches) for _ in range(3 * (len(expected) + 1))]
    assert [isinstance(batch, ClassificationBatch) for batch in taken] == [False, False, True] * (len(expected) + 1)
    found = [batch.sample_ids for batch in taken if isinstance(batch, ClassificationBatch)]
    assert found[: len(expected) - half] == expected[half:], "from the middle of the first epoch"
    assert found[len(expected) - half] != expected[0], "then on with the second"


@pytest.mark.req("UTL-4", "LOP-2")
def test_a_run_tells_why_its_steps_wait_for_data(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillsnap.training.data_wait.TOLERATED_SHARE", 0.0)
    monkeypatch.setattr("pillsnap.training.data_wait.WARMUP_STEPS", 1)
    exp_dir = tmp_path / "exp"
    run_training(
        tiny_config(
            exp_dir, data_root, "train.tasks=[classification]", "logging.profile_interval=4", "train.batch_size=4"
        )
    )
    facts = read_json(exp_dir / "reports" / "run.json")
    reasons = facts["tasks"]["classification"]["data_wait_reasons"]
    assert set(reasons) <= {"decode", "disk", "cores", "view"}
    assert sum(each["windows"] for each in reasons.values()) > 0
    assert [each["why"] for each in _decisions(exp_dir) if each["what"] == "train: data wait"]
    events = EventAccumulator(str(exp_dir / "tb"))
    events.Reload()
    assert all(0 < event.value < 1 for event in events.Scalars("perf/data_wait_share"))


@pytest.mark.req("WRK-1", "CLI-1")
def test_a_number_of_workers_on_the_command_line_is_not_measured_away() -> None:
    asked = load_config(REPOSITORY / "config.yaml", ["dataloader.num_workers=12"])
    assert candidates_of(asked) == []
    assert "was set in a later place" in (why_not_to_tune(asked) or "")
    both = load_config(REPOSITORY / "config.yaml", ["dataloader.num_workers=12", "dataloader.autotune_workers=true"])
    assert candidates_of(both)
    assert candidates_of(load_config(REPOSITORY / "config.yaml", []))
