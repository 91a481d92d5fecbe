"""Optimizer groups and learning-rate curves."""

from __future__ import annotations

import math

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from pillsnap.training.optim import build_optimizer, build_scheduler, cosine_factor

pytestmark = pytest.mark.req("PRC-5")


def _cfg(scheduler: str = "cosine", warmup_steps: int = 4) -> DictConfig:
    train = {"lr": 0.1, "weight_decay": 0.05, "scheduler": scheduler, "warmup_steps": warmup_steps, "epochs": 4}
    return OmegaConf.create({"train": train})


def test_weight_decay_spares_biases_and_normalisation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = build_optimizer(_cfg(), model.parameters())
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight), id(model[2].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_frozen_parameters_are_left_out_and_fused_is_off_on_a_cpu() -> None:
    model = nn.Linear(4, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(_cfg(), model.parameters())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.defaults["fused"] is False


def test_the_cosine_rises_to_the_peak_and_falls_to_a_hundredth() -> None:
    assert cosine_factor(0, 4, 40) == pytest.approx(0.25)
    assert cosine_factor(3, 4, 40) == pytest.approx(1.0)
    assert cosine_factor(22, 4, 40) == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2)
    assert cosine_factor(40, 4, 40) == pytest.approx(0.01)


def test_the_schedule_spans_epochs_times_steps() -> None:
    optimizer = build_optimizer(_cfg(), nn.Linear(2, 2).parameters())
    scheduler = build_scheduler(_cfg(), optimizer, steps_per_epoch=10)
    rates = []
    for _ in range(40):
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0])
        scheduler.step()
    assert max(rates) == pytest.approx(0.1)
    assert scheduler.get_last_lr()[0] == pytest.approx(0.001)


def test_onecycle_ends_lower_than_it_began_and_does_not_run_out_of_steps() -> None:
    optimizer = build_optimizer(_cfg("onecycle"), nn.Linear(2, 2).parameters())
    scheduler = build_scheduler(_cfg("onecycle"), optimizer, steps_per_epoch=5)
    assert isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR)
    first = scheduler.get_last_lr()[0]
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] < first < 0.1


def test_a_warm_up_longer_than_the_run_is_cut_to_half_of_it() -> None:
    optimizer = build_optimizer(_cfg(), nn.Linear(2, 2).parameters())
    scheduler = build_scheduler(_cfg(warmup_steps=1000), optimizer, steps_per_epoch=2)
    rates = []
    for _ in range(8):
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0])
        scheduler.step()
    assert rates.index(max(rates)) in (3, 4)
