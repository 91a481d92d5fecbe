"""Optimizer and schedule out of a checkpoint, under today's configuration."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from pillsnap.training.optim import advance_schedule, build_optimizer, build_scheduler, scale_learning_rate
from pillsnap.training.optimstate import restore_optimization, scheduler_state
from pillsnap.training.precision import Precision
from pillsnap.training.step import TrainingParts

pytestmark = pytest.mark.req("CKP-3", "PRC-5")

SCHEDULES = ("cosine", "onecycle")


def _parts(schedule: str, *, lr: float = 0.1, epochs: int = 4) -> TrainingParts:
    train = {"lr": lr, "weight_decay": 0.05, "scheduler": schedule, "warmup_steps": 4, "epochs": epochs}
    cfg: DictConfig = OmegaConf.create({"train": train})
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(cfg, model.parameters())
    scheduler = build_scheduler(cfg, optimizer, steps_per_epoch=5)
    precision = Precision(torch.device("cpu"), is_amp=False, dtype=torch.float32, tf32=False)
    return TrainingParts(
        model, optimizer, scheduler, precision.build_scaler(), precision, lambda _: torch.zeros(()), lambda _: 1.0
    )


def _advance(parts: TrainingParts, steps: int, *, size: float = 1.0, lr_scale: float = 1.0) -> None:
    for _ in range(steps):
        parts.optimizer.zero_grad()
        parts.model(torch.ones(4, 3)).square().sum().backward()
        parts.optimizer.step()
        advance_schedule(parts.scheduler, size, lr_scale)


def _state(parts: TrainingParts) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "optimizer_state": parts.optimizer.state_dict(),
            "scheduler_state": scheduler_state(parts),
            "scaler_state": parts.scaler.state_dict(),
        }
    )


def _groups(parts: TrainingParts) -> list[dict[str, Any]]:
    return [{key: group[key] for key in group if key != "params"} for group in parts.optimizer.param_groups]


def _continued(first: TrainingParts, second: TrainingParts, **scales: float) -> TrainingParts:
    second.model.load_state_dict(first.model.state_dict())
    restore_optimization(second, _state(first), **scales)
    return second


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [0, 1, 3, 7, 16, 20])
def test_a_resume_under_the_same_configuration_is_bit_identical(schedule: str, steps: int) -> None:
    first = _parts(schedule)
    _advance(first, steps)
    second = _continued(first, _parts(schedule))
    for _ in range(20 - steps + 1):
        assert _groups(second) == _groups(first)
        assert second.scheduler.get_last_lr() == first.scheduler.get_last_lr()
        if first.scheduler.last_epoch < 20:
            _advance(first, 1)
            _advance(second, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resume_of_a_smaller_step_is_bit_identical(schedule: str) -> None:
    first = _parts(schedule)
    scale_learning_rate(first.scheduler, 0.3)
    _advance(first, 9, size=0.5, lr_scale=0.3)
    second = _continued(first, _parts(schedule), lr_scale=0.3)
    for _ in range(5):
        assert _groups(second) == _groups(first)
        _advance(first, 1, size=0.5, lr_scale=0.3)
        _advance(second, 1, size=0.5, lr_scale=0.3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resume_takes_todays_learning_rate(schedule: str) -> None:
    first, today = _parts(schedule), _parts(schedule, lr=0.01)
    _advance(first, 7)
    _advance(today, 7)
    second = _continued(first, _parts(schedule, lr=0.01))
    assert _groups(second) == _groups(today)
    _advance(second, 5)
    _advance(today, 5)
    assert _groups(second) == _groups(today)


@pytest.mark.parametrize(("stored", "configured"), [SCHEDULES, SCHEDULES[::-1]])
def test_a_resume_takes_todays_schedule(stored: str, configured: str) -> None:
    first, today = _parts(stored), _parts(configured)
    _advance(first, 7)
    _advance(today, 7)
    second = _continued(first, _parts(configured))
    for now, wanted in zip(_groups(second), _groups(today), strict=True):
        assert {key: now[key] for key in wanted} == wanted


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_checkpoint_beyond_the_end_of_todays_schedule_is_read(schedule: str) -> None:
    first = _parts(schedule)
    _advance(first, 20)
    second = _continued(first, _parts(schedule, epochs=2))
    assert second.scheduler.last_epoch == 20
    assert second.scheduler.get_last_lr()[0] < 0.002


@pytest.mark.filterwarnings("error")
def test_a_resume_is_silent() -> None:
    _continued(_parts("onecycle"), _parts("onecycle"))
