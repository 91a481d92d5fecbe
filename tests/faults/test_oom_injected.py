"""Runs hit by out-of-memory errors end with the weights of runs that were cut the same and never hit."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.errors import InterruptedRunError, OutOfMemoryFloorError
from pillsnap.evaluation import predictions
from pillsnap.training import task as task_module
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from pillsnap.training.step import optimizer_step
from pillsnap.training.task import Task
from tests.faults.oom_injection import PLACES, Place, StepKey, follow, inject
from tests.run.tiny import tiny_config

LAST = {"classification": "last.pt", "detection": "detection_last.pt"}
NUM_FAULTS = 20  # of each task
NUM_STEPS = {"classification": 40, "detection": 40}  # of the many more that the runs below have
MANY_STEPS = (
    "train.deterministic=true",
    "train.batch_size=4",
    "train.detection.batch_size=2",
    "train.classification.epochs=3",
    "train.detection.epochs=7",
    "train.oom.cooldown_sec=0",
)


def _states(exp_dir: Path) -> dict[str, dict[str, Any]]:
    return {task: load_ckpt(exp_dir / "checkpoints" / name) for task, name in LAST.items()}


def _tensors(exp_dir: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for task, state in _states(exp_dir).items():
        found |= {f"{task} {kind} {key}": v for kind in ("model_state", "ema_state") for key, v in state[kind].items()}
        found |= {
            f"{task} optimizer {index} {key}": v
            for index, values in state["optimizer_state"]["state"].items()
            for key, v in values.items()
        }
    return found


def _assert_same(found: Path, expected: Path) -> None:
    a, b = _tensors(found), _tensors(expected)
    assert a.keys() == b.keys()
    different = [key for key in b if not torch.equal(a[key], b[key])]
    assert not different, f"{len(different)} of {len(b)} tensors differ, first: {different[0]}"


def _random_faults(num_faults: int) -> dict[StepKey, Place]:
    chosen = random.Random(0)
    return {
        (task, step): chosen.choice(PLACES)
        for task, count in NUM_STEPS.items()
        for step in chosen.sample(range(0, count, 2), num_faults)
    }


@pytest.mark.req("OOM-3", "OOM-4", "INT-4")
@pytest.mark.parametrize("strategy", ["interleaved", "sequential"])
def test_a_run_hit_at_random_steps_ends_with_the_weights_of_one_cut_the_same(
    strategy: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*MANY_STEPS, f"train.strategy={strategy}")
    # The cut grows back after every clean step and a failure comes at most every other step: it never sinks for good.
    hit = inject(monkeypatch, _random_faults(NUM_FAULTS))
    run_training(tiny_config(tmp_path / "hit", data_root, *words, "train.oom.regrow_after_steps=1"))
    assert len(hit.injected) == 2 * NUM_FAULTS
    assert {place for _, place in hit.injected} == set(PLACES)
    whole = {"classification": 4, "detection": 2}
    assert sum(cut < whole[task] for (task, _), cut in hit.cuts.items()) == 2 * NUM_FAULTS

    oracle = follow(monkeypatch, hit.cuts)
    run_training(tiny_config(tmp_path / "oracle", data_root, *words))
    assert oracle.samples == hit.samples
    assert oracle.cuts == hit.cuts
    _assert_same(tmp_path / "hit", tmp_path / "oracle")


@pytest.mark.req("INT-4")
def test_one_tasks_failures_leave_the_other_as_it_would_have_been(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.deterministic=true", "train.oom.cooldown_sec=0")
    follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root, *words))
    inject(monkeypatch, {("detection", 1): "backward", ("detection", 3): "optimizer"})
    run_training(tiny_config(tmp_path / "hit", data_root, *words))
    plain, hit = _tensors(tmp_path / "plain"), _tensors(tmp_path / "hit")
    assert all(torch.equal(hit[key], plain[key]) for key in plain if key.startswith("classification"))
    states = _states(tmp_path / "hit"), _states(tmp_path / "plain")
    assert states[0]["classification"]["clock"] == states[1]["classification"]["clock"]
    assert states[0]["detection"]["clock"] == states[1]["detection"]["clock"]


@pytest.mark.req("OOM-3", "CKP-1")
def test_a_smaller_step_keeps_every_sample_the_schedule_and_the_rate_per_sample(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.tasks=[classification]", "train.oom.cooldown_sec=0", "train.oom.max_grad_accum=1")
    plain = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root, *words))
    hit = inject(monkeypatch, {("classification", 3): "forward"})
    run_training(tiny_config(tmp_path / "hit", data_root, *words))
    assert hit.samples == plain.samples
    assert len(hit.cuts) > len(plain.cuts) + 3
    states = [load_ckpt(tmp_path / name / "checkpoints" / "last.pt") for name in ("plain", "hit")]
    ends = [state["scheduler_state"]["last_epoch"] for state in states]
    assert ends[1] == pytest.approx(ends[0])
    groups = [state["optimizer_state"]["param_groups"][0] for state in states]
    assert groups[1]["lr"] == pytest.approx(groups[0]["lr"] / 2)
    assert groups[1]["weight_decay"] == pytest.approx(groups[0]["weight_decay"] * 2)
    assert states[1]["recovery"]["cut"]["lr_scale"] == 0.5
    log = (tmp_path / "hit" / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    assert "global_batch_change, attempt 1 of 4: micro-batches 8 x 1 -> 4 x 1, G 8 -> 4" in log


@pytest.mark.req("OOM-3", "CKP-2")
def test_a_resume_goes_on_with_the_cut_that_was_found(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.deterministic=true", "train.oom.cooldown_sec=0")
    cut_after = {("classification", 2): "forward", ("detection", 1): "forward"}
    hit = inject(monkeypatch, cut_after)  # type: ignore[arg-type]
    run_training(tiny_config(tmp_path / "whole", data_root, *words))
    inject(monkeypatch, cut_after)  # type: ignore[arg-type]
    run_training(
        tiny_config(tmp_path / "parts", data_root, *words, "train.classification.epochs=1", "train.detection.epochs=1")
    )
    again = inject(monkeypatch, {})
    run_training(tiny_config(tmp_path / "parts", data_root, *words, "train.resume=last"))
    assert set(again.cuts.values()) == {4, 2}
    assert all(hit.cuts[key] == cut for key, cut in again.cuts.items())


@pytest.mark.req("OOM-3", "OOM-5")
def test_a_run_that_cannot_recover_saves_its_state_and_can_be_resumed(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.deterministic=true", "train.oom.cooldown_sec=0")
    plain = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root, *words))
    inject(monkeypatch, {("classification", 4): "forward"})
    with pytest.raises(OutOfMemoryFloorError, match="train.oom.max_retries is 0 .* state was saved") as raised:
        run_training(tiny_config(tmp_path / "hit", data_root, *words, "train.oom.max_retries=0"))
    assert raised.value.exit_code == 4
    rest = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "hit", data_root, *words, "train.resume=last"))
    assert min(step for task, step in rest.cuts if task == "classification") == 4
    assert rest.samples["classification"] == plain.samples["classification"][4 * 8 :]
    _assert_same(tmp_path / "hit", tmp_path / "plain")


@pytest.mark.req("INT-4")
@pytest.mark.parametrize("function", ["normalize", "non_max_suppression"], ids=["classification", "detection"])
def test_running_out_in_validation_lowers_only_the_validation_batch(
    function: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root))
    real, sizes = getattr(predictions, function), []

    def limited(values: torch.Tensor, *args: Any) -> Any:
        sizes.append(len(values))
        if len(values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(values, *args)

    monkeypatch.setattr(predictions, function, limited)
    hit = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "hit", data_root))
    assert max(sizes) > 2
    assert hit.cuts == plain.cuts
    states = _states(tmp_path / "plain"), _states(tmp_path / "hit")
    for task in LAST:
        assert states[1][task]["history"][-1]["train_loss"] == states[0][task]["history"][-1]["train_loss"]
    assert [state["samples_evaluated_at_once"] for state in states[1].values()].count(None) == 1


@pytest.mark.req("OOM-6")
def test_a_bug_is_not_tried_again(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x512 and 256x10)")

    monkeypatch.setattr("pillsnap.training.task.optimizer_step", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_training(tiny_config(tmp_path / "exp", data_root))
    assert len(calls) == 1


@pytest.mark.req("OOM-4", "CKP-3")
def test_a_step_ended_by_something_else_uses_up_no_samples(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.deterministic=true",)
    follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root, *words))

    def stopped(*args: Any, seeds: tuple[int, str, int], **rest: Any) -> Any:
        if seeds[1:] == ("classification", 3):
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")
        return optimizer_step(*args, seeds=seeds, **rest)

    monkeypatch.setattr(task_module, "optimizer_step", stopped)
    with pytest.raises(InterruptedRunError):
        run_training(tiny_config(tmp_path / "hit", data_root, *words))
    rest = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "hit", data_root, *words, "train.resume=last"))
    assert min(step for task, step in rest.cuts if task == "classification") == 3
    _assert_same(tmp_path / "hit", tmp_path / "plain")


@pytest.mark.req("OOM-5", "CKP-3")
def test_memory_that_runs_out_beside_the_steps_saves_too(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.deterministic=true", "train.tasks=[classification]")
    run_training(tiny_config(tmp_path / "plain", data_root, *words))
    monkeypatch.setattr(
        "pillsnap.training.classification.classification_figures", _raising(MemoryError("for the metrics"))
    )
    with pytest.raises(OutOfMemoryFloorError, match="beside the steps: MemoryError: for the metrics.*state was saved"):
        run_training(tiny_config(tmp_path / "hit", data_root, *words))
    monkeypatch.undo()
    run_training(tiny_config(tmp_path / "hit", data_root, *words, "train.resume=last"))
    found, expected = (load_ckpt(tmp_path / name / "checkpoints" / "last.pt") for name in ("hit", "plain"))
    assert all(torch.equal(found["model_state"][key], value) for key, value in expected["model_state"].items())


@pytest.mark.req("OOM-4")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_that_runs_out_of_memory_goes_on_at_the_same_sample(
    num_workers: int, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.tasks=[classification]", "train.oom.cooldown_sec=0", f"dataloader.num_workers={num_workers}")
    plain = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "plain", data_root, *words))
    real, left = Task._next_batch, [3, 4]

    def failing(task: Task) -> Any:
        batch = real(task)
        if left and len(hit.cuts) == left[0]:
            left.pop(0)
            raise RuntimeError("unable to mmap 113246208 bytes from file </torch_1>: Cannot allocate memory (12)")
        return batch

    monkeypatch.setattr(Task, "_next_batch", failing)
    hit = follow(monkeypatch, {})
    run_training(tiny_config(tmp_path / "hit", data_root, *words))
    assert left == []
    assert hit.samples == plain.samples
    assert hit.cuts == plain.cuts


def _raising(error: Exception) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise error

    return function
