"""Precision, learning rate and weight decay follow the cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from pillsnap.training.applied_cut import AppliedCut
from pillsnap.training.precision import Precision
from pillsnap.training.recovery import Cut
from pillsnap.training.step import TrainingParts

pytestmark = pytest.mark.req("OOM-3", "LOP-4")
CUT = Cut(8, 2)


@pytest.fixture
def parts() -> TrainingParts:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.2)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    precision = Precision(torch.device("cpu"), is_amp=False, dtype=torch.float32, tf32=False)
    return TrainingParts(
        model, optimizer, scheduler, precision.build_scaler(), precision, lambda part: torch.zeros(()), lambda part: 1.0
    )


def test_rates_follow_a_smaller_step_and_come_back(parts: TrainingParts) -> None:
    applied = AppliedCut(parts, CUT)
    assert applied.follow(Cut(8, 1, lr_scale=0.5, wd_scale=2.0))
    [group] = parts.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == pytest.approx((0.05, 0.4))
    assert applied.follow(CUT)
    assert (group["lr"], group["weight_decay"]) == pytest.approx((0.1, 0.2))


def test_a_finer_cut_of_the_same_step_changes_nothing(parts: TrainingParts) -> None:
    applied = AppliedCut(parts, CUT)
    assert not applied.follow(Cut(4, 4))
    assert parts.optimizer.param_groups[0]["lr"] == 0.1
    assert applied.cut == Cut(4, 4)


@pytest.mark.parametrize("verb", ["follow", "take_over"])
def test_float16_brings_its_scaler(parts: TrainingParts, verb: str) -> None:
    before = parts.scaler
    getattr(AppliedCut(parts, CUT), verb)(replace(CUT, is_fp16=True))
    assert parts.scaler is not before
    assert (parts.precision.is_amp, parts.precision.dtype) == (True, torch.float16)


class Halving:
    """A scaler whose scale falls."""

    def __init__(self, *scales: float) -> None:
        self.scales = list(scales)

    def get_scale(self) -> float:
        return self.scales.pop(0)

    def is_enabled(self) -> bool:
        return True


def test_skipped_steps_are_counted_by_how_far_the_scale_fell(parts: TrainingParts) -> None:
    parts.scaler = Halving(1024.0, 256.0, 256.0, 512.0)  # type: ignore[assignment]
    applied = AppliedCut(parts, CUT)
    assert [applied.count_skips() for _ in range(3)] == [2, 0, 0]
    assert applied.scale == 512.0
