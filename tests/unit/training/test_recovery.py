"""How a task's cut changes after failures and after clean steps."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytest
from omegaconf import OmegaConf

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.training.recovery import Cut, Recovery
from pillsnap.training.telemetry import TBWriter

FAILURE = "OutOfMemoryError: CUDA out of memory"


class _Scalars(TBWriter):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.values.append((tag, value, step))


class _Bench:
    """A recovery and everything it tells."""

    def __init__(self, cut: Cut, **oom: object) -> None:
        keys = {"max_retries": 4, "max_grad_accum": 8, "min_batch": 1, "cooldown_sec": 0, "escalate_to_fp16": True}
        cfg = OmegaConf.create({"train": {"oom": {**keys, "regrow_after_steps": 0, **oom}}})
        self.tb = _Scalars()
        self.decisions: list[tuple[Any, ...]] = []
        self.recovery = Recovery(
            cfg,
            cut=cut,
            is_16bit=True,
            label="train",
            prefix="",
            logger=logging.getLogger("pillsnap"),
            tb=self.tb,
            decide=lambda *words: self.decisions.append(words),
        )

    def clean_steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.recovery.after_success(step)


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    logging.getLogger("pillsnap").setLevel(logging.INFO)


@pytest.mark.req("OOM-3", "OOM-5")
def test_entry_and_success_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    bench = _Bench(Cut(16, 1))
    bench.recovery.after_failure(FAILURE, 12)
    assert bench.recovery.cut == Cut(8, 2)
    assert f"step 12 ran out of memory ({FAILURE}). microbatching, attempt 1 of 4: " in caplog.text
    assert "micro-batches 16 x 1 -> 8 x 2, G 16 -> 16" in caplog.text
    bench.recovery.after_success(12)
    assert "step 12 went through with micro-batches 8 x 2 after 1 failure(s); freeing and deciding took" in caplog.text
    assert bench.tb.values == [("oom/retries", 1, 12), ("oom/retries", 0, 12)]
    assert bench.decisions == [("train: cut", Cut(16, 1), Cut(8, 2), f"microbatching at step 12: {FAILURE}")]


@pytest.mark.req("OOM-3")
def test_a_completed_step_clears_the_count_of_failures_in_a_row() -> None:
    bench = _Bench(Cut(16, 1), max_retries=1)
    bench.recovery.after_failure(FAILURE, 1)
    bench.recovery.after_success(1)
    bench.recovery.after_failure(FAILURE, 2)
    assert bench.recovery.cut == Cut(4, 4)
    assert (bench.recovery.retries, bench.recovery.total) == (1, 2)


@pytest.mark.req("OOM-3", "OOM-5")
@pytest.mark.parametrize(
    ("cut", "max_retries", "reason"),
    [(Cut(1, 8), 4, "train.oom.min_batch is 1"), (Cut(16, 1), 0, "train.oom.max_retries is 0 failures in a row")],
    ids=["floor", "retries"],
)
def test_with_nothing_left_to_try_it_says_so(
    cut: Cut, max_retries: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = _Bench(cut, max_retries=max_retries)
    with pytest.raises(OutOfMemoryFloorError, match="step 3 ran out of memory") as raised:
        bench.recovery.after_failure(FAILURE, 3)
    assert reason in str(raised.value)
    assert raised.value.exit_code == 4
    assert reason in caplog.text


@pytest.mark.req("OOM-3")
def test_a_smaller_step_scales_learning_rate_and_decay_and_leaves_an_audit() -> None:
    bench = _Bench(Cut(8, 8))
    bench.recovery.after_failure(FAILURE, 5)
    bench.recovery.after_failure(FAILURE, 5)
    assert bench.recovery.cut == Cut(2, 8, lr_scale=0.25, wd_scale=4.0)
    assert "{'G_old': 64, 'G_new': 32, 'lr_scale': 0.5}" in bench.decisions[0][3]


@pytest.mark.req("OOM-3")
def test_the_caller_waits_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    _Bench(Cut(16, 1), cooldown_sec=2).recovery.after_failure(FAILURE, 1)
    assert waits == [2]


def test_clean_steps_grow_the_cut_back_but_not_beyond_its_start() -> None:
    bench = _Bench(Cut(8, 1), regrow_after_steps=3)
    bench.recovery.after_failure(FAILURE, 1)
    bench.recovery.after_failure(FAILURE, 1)
    bench.clean_steps(1, 2)
    assert bench.recovery.cut == Cut(2, 4)
    bench.clean_steps(3, 3)
    assert bench.recovery.cut == Cut(4, 2)
    bench.clean_steps(4, 12)
    assert bench.recovery.cut == Cut(8, 1)


def test_a_size_that_held_for_a_while_after_growing_is_tried_as_often_again() -> None:
    bench = _Bench(Cut(8, 1), regrow_after_steps=2)
    bench.recovery.after_failure(FAILURE, 1)
    bench.clean_steps(1, 4)
    bench.recovery.after_failure(FAILURE, 5)
    bench.clean_steps(5, 6)
    assert bench.recovery.cut == Cut(8, 1)


def test_a_size_that_fails_soon_after_growing_is_tried_half_as_often() -> None:
    bench = _Bench(Cut(8, 1), regrow_after_steps=2)
    bench.recovery.after_failure(FAILURE, 1)
    bench.clean_steps(1, 2)
    bench.recovery.after_failure(FAILURE, 3)
    bench.clean_steps(3, 5)
    assert bench.recovery.cut == Cut(4, 2)
    bench.clean_steps(6, 6)
    assert bench.recovery.cut == Cut(8, 1)


def test_without_the_key_nothing_grows() -> None:
    bench = _Bench(Cut(8, 1))
    bench.recovery.after_failure(FAILURE, 1)
    bench.clean_steps(1, 1000)
    assert bench.recovery.cut == Cut(4, 2)


@pytest.mark.req("OOM-3", "CKP-1")
def test_a_checkpoint_keeps_the_cut_and_where_growing_stands() -> None:
    bench, other = _Bench(Cut(8, 1), regrow_after_steps=3), _Bench(Cut(8, 1), regrow_after_steps=3)
    bench.recovery.after_failure(FAILURE, 1)
    bench.clean_steps(1, 2)
    assert other.recovery.load_state(bench.recovery.state())
    assert other.recovery.cut == Cut(4, 2)
    other.clean_steps(3, 3)
    assert other.recovery.cut == Cut(8, 1)
    assert other.recovery.total == 1


def test_another_configuration_does_not_take_over_the_stored_cut() -> None:
    bench, other = _Bench(Cut(8, 1)), _Bench(Cut(4, 1))
    bench.recovery.after_failure(FAILURE, 1)
    assert not other.recovery.load_state(bench.recovery.state())
    assert other.recovery.cut == Cut(4, 1)


def test_loading_that_runs_out_is_tried_again_with_the_same_cut(caplog: pytest.LogCaptureFixture) -> None:
    bench = _Bench(Cut(8, 1), max_retries=2)
    bench.recovery.after_fetch_failure(FAILURE, 1, 1)
    bench.recovery.after_fetch_failure(FAILURE, 1, 2)
    assert bench.recovery.retries == 0
    assert bench.recovery.cut == Cut(8, 1)
    assert "loading the samples of step 1 ran out of memory" in caplog.text
    with pytest.raises(OutOfMemoryFloorError, match="ran out of memory 3 times"):
        bench.recovery.after_fetch_failure(FAILURE, 1, 3)


def test_a_cut_says_what_it_is() -> None:
    assert str(Cut(16, 4)) == "16 x 4"
    assert str(Cut(16, 4, is_fp16=True)) == "16 x 4 fp16"
    assert Cut(16, 4).step_size == math.prod((16, 4))
