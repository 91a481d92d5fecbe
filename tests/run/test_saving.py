"""What a run saves between its validations, and on its way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.training import loop
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from tests.run.conftest import FinishedRun
from tests.run.test_repeatability import _assert_same_weights
from tests.run.tiny import tiny_config


def _failing(function: Callable[..., Any], at_call: int, error: Exception) -> Callable[..., Any]:
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at_call:
            raise error
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.req("CKP-1", "CKP-3")
@pytest.mark.usefixtures("an_hour_a_step")
@pytest.mark.parametrize(("minutes", "saves"), [(0, []), (120, [2, 4, 6, 8]), (180, [3, 6, 9]), (601, [])])
def test_a_checkpoint_is_written_when_so_many_minutes_have_passed_since_the_last_one(
    data_root: Path, tmp_path: Path, minutes: int, saves: list[int]
) -> None:
    words = ("train.tasks=[classification]", "train.classification.epochs=1", f"train.checkpoint_minutes={minutes}")
    run_training(tiny_config(tmp_path / "exp", data_root, *words))
    log = (tmp_path / "exp" / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "saved inside the epoch" in line]
    found = [int(line.rsplit(" ", 1)[1]) for line in lines]
    assert found == saves


@pytest.mark.req("CKP-2", "CKP-3")
@pytest.mark.usefixtures("an_hour_a_step")
def test_a_run_that_died_goes_on_from_the_checkpoint_inside_the_epoch(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = "train.checkpoint_minutes=240"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", _failing(loop.train_step, 6, RuntimeError("the power failed")))
        with pytest.raises(RuntimeError, match="the power failed"):
            run_training(tiny_config(tmp_path / "exp", data_root, minutes))
    assert load_ckpt(tmp_path / "exp" / "checkpoints" / "last.pt")["clock"]["step"] == 2
    run_training(tiny_config(tmp_path / "exp", data_root, minutes, "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)


@pytest.mark.req("OOM-2", "CKP-2", "CKP-3")
def test_a_run_out_of_memory_saves_and_can_go_on(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = OutOfMemoryFloorError("Nothing smaller is left to try.")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", _failing(loop.train_step, 6, floor))
        with pytest.raises(OutOfMemoryFloorError, match="left to try. The state was saved in .*train.resume=last"):
            run_training(tiny_config(tmp_path / "exp", data_root))
    assert load_ckpt(tmp_path / "exp" / "checkpoints" / "last.pt")["clock"]["step"] == 2
    run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", finished_run.exp_dir)
