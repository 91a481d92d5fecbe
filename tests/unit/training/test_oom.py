"""The decision after an out-of-memory error."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pillsnap.training.oom import oom_recovery_state_machine

pytestmark = pytest.mark.req("OOM-3")


def _cfg(**changes: object) -> DictConfig:
    oom = {"max_retries": 4, "max_grad_accum": 8, "min_batch": 1, "cooldown_sec": 2, "escalate_to_fp16": True}
    return OmegaConf.create({"train": {"oom": {**oom, **changes}}})


def _state(batch_size: int, grad_accum: int, *, escalated: bool = True) -> dict[str, Any]:
    return {"batch_size": batch_size, "grad_accum": grad_accum, "did_amp_escalate": escalated}


def test_the_first_answer_is_float16_once() -> None:
    decision = oom_recovery_state_machine(0, _state(64, 1, escalated=False), _cfg())
    assert decision["action"] == "amp_fp16"
    assert decision["preserve_schedules"]
    assert decision["replay_batch"]
    assert decision["next_state"] == _state(64, 1, escalated=True)
    assert oom_recovery_state_machine(1, decision["next_state"], _cfg())["action"] == "microbatching"


@pytest.mark.parametrize(
    ("state", "changes"),
    [({"is_16bit": True}, {}), ({}, {"escalate_to_fp16": False})],
    ids=["already 16 bit", "not allowed"],
)
def test_float16_is_passed_over(state: dict[str, bool], changes: dict[str, bool]) -> None:
    decision = oom_recovery_state_machine(0, {**_state(64, 1, escalated=False), **state}, _cfg(**changes))
    assert decision["action"] == "microbatching"


@pytest.mark.parametrize(
    ("batch_size", "grad_accum", "expected"), [(64, 1, (32, 2)), (32, 2, (16, 4)), (16, 4, (8, 8)), (3, 1, (1, 3))]
)
def test_the_same_samples_are_cut_smaller_while_they_can(
    batch_size: int, grad_accum: int, expected: tuple[int, int]
) -> None:
    decision = oom_recovery_state_machine(0, _state(batch_size, grad_accum), _cfg())
    assert decision["action"] == "microbatching"
    assert (decision["batch_size"], decision["grad_accum"]) == expected
    assert expected[0] * expected[1] == batch_size * grad_accum
    assert decision["preserve_schedules"]
    assert decision["next_state"] == _state(*expected)


def test_then_the_step_itself_gets_smaller_with_its_learning_rate() -> None:
    decision = oom_recovery_state_machine(0, _state(8, 8), _cfg())
    assert decision == {
        "action": "global_batch_change",
        "batch_size": 4,
        "grad_accum": 8,
        "lr_scale": 0.5,
        "wd_scale": 2.0,
        "scheduler_mode": "by_samples",
        "replay_batch": True,
        "audit_log": {"G_old": 64, "G_new": 32, "lr_scale": 0.5},
        "next_state": _state(4, 8),
    }


def test_a_batch_that_cannot_be_halved_evenly_changes_the_step() -> None:
    decision = oom_recovery_state_machine(0, _state(7, 1), _cfg())
    assert decision["action"] == "global_batch_change"
    assert (decision["batch_size"], decision["grad_accum"]) == (3, 3)
    assert decision["lr_scale"] == pytest.approx(9 / 7)


@pytest.mark.parametrize(("batch_size", "min_batch"), [(1, 1), (4, 4), (2, 4)])
def test_at_the_smallest_batch_it_fails(batch_size: int, min_batch: int) -> None:
    decision = oom_recovery_state_machine(0, _state(batch_size, 8), _cfg(min_batch=min_batch))
    assert decision["action"] == "fail"
    assert decision["save_checkpoint"]
    assert f"micro-batch of {batch_size} does not fit" in decision["reason"]


@pytest.mark.parametrize(("retries", "action"), [(3, "microbatching"), (4, "emergency_exit"), (9, "emergency_exit")])
def test_too_many_failures_in_a_row_end_the_run(retries: int, action: str) -> None:
    decision = oom_recovery_state_machine(retries, _state(64, 1), _cfg())
    assert decision["action"] == action
    assert decision.get("save_checkpoint", False) == (action == "emergency_exit")


def test_the_smallest_batch_is_respected() -> None:
    decision = oom_recovery_state_machine(0, _state(6, 1), _cfg(min_batch=4))
    assert decision["batch_size"] == 4


def test_the_state_handed_in_is_left_alone() -> None:
    state = _state(64, 1)
    oom_recovery_state_machine(0, state, _cfg())
    assert state == _state(64, 1)
