"""The same seed gives the same weights, whatever the workers, and wherever the run was interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.errors import InterruptedRunError
from pillsnap.training import loop, task
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from tests.run.conftest import FinishedRun
from tests.run.tiny import tiny_config

LAST = ("last.pt", "detection_last.pt")


def _weights(exp_dir: Path) -> dict[str, torch.Tensor]:
    states = {name: load_ckpt(exp_dir / "checkpoints" / name) for name in LAST}
    return {
        f"{name}:{kind}:{key}": value
        for name, state in states.items()
        for kind in ("model_state", "ema_state")
        for key, value in state[kind].items()
    }


def _assert_same_weights(found: Path, expected: Path) -> None:
    a, b = _weights(found), _weights(expected)
    different = [key for key in b if not torch.equal(a[key], b[key])]
    assert a.keys() == b.keys()
    assert not different, f"{len(different)} of {len(b)} tensors differ, first: {different[0]}"


@pytest.mark.req("DAT-2", "WRK-1")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, num_workers: int
) -> None:
    run_training(tiny_config(tmp_path / "exp", data_root, f"dataloader.num_workers={num_workers}"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)


def test_another_seed_gives_other_weights(finished_run: FinishedRun, data_root: Path, tmp_path: Path) -> None:
    run_training(tiny_config(tmp_path / "exp", data_root, "train.seed=7"))
    with pytest.raises(AssertionError, match="tensors differ"):
        _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)


def _interrupting(function: Callable[..., Any], at_call: int, number: signal.Signals) -> Callable[..., Any]:
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at_call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.req("CKP-2", "CKP-3")
@pytest.mark.parametrize("at_step", [1, 5, 12])
def test_a_run_stopped_in_a_step_goes_on_as_if_it_never_was(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", _interrupting(loop.train_step, at_step, signal.SIGINT))
        with pytest.raises(InterruptedRunError, match="stopped by SIGINT.*train.resume=last"):
            run_training(tiny_config(tmp_path / "exp", data_root))
    assert (tmp_path / "exp" / "checkpoints" / "last.pt").is_file()
    run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)


@pytest.mark.req("CKP-2", "CKP-3")
@pytest.mark.parametrize(("at_validation", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_run_stopped_in_validation_goes_on_with_that_validation(
    finished_run: FinishedRun,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_validation: int,
    number: signal.Signals,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(task.Task, "validate", _interrupting(task.Task.validate, at_validation, number))
        with pytest.raises(InterruptedRunError, match=f"stopped by {number.name}"):
            run_training(tiny_config(tmp_path / "exp", data_root))
    result = run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)
    assert result.figures == finished_run.result.figures
