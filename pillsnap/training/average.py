"""The moving average of a model's weights."""

from __future__ import annotations

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn


class WeightAverage(ModelEmaV3):
    """timm's average, with the tensors of both models looked up once instead of twice a step.

    Looking them up took 3.5 ms of a 0.5 s step of YOLO11n on a CPU. Neither model may get other tensors afterwards;
    `load_state_dict` fills the ones that are there.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from a copy of `model`, on its device.

        Args:
            model: The model that trains.
            decay: Share of the old average that a step keeps; it rises from 0, since a fixed 0.9998 would remember the
                random start for thousands of steps.
        """
        super().__init__(model, decay=decay, use_warmup=True, warmup_power=2 / 3)
        self.tensors = [value for value in self.module.state_dict().values() if value.numel()]
        """All tensors of the average, as they are changed by an update."""
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = _columns([pair for pair in pairs if pair[0].is_floating_point()])
        self._copied = _columns([pair for pair in pairs if not pair[0].is_floating_point()])

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Move the average towards the model's weights; whole numbers (BatchNorm's counters) are copied."""
        torch._foreach_lerp_(*self._averaged, weight=1 - decay)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)


def _columns(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
