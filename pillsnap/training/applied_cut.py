"""What a cut changes beside the size of a slice: precision, learning rate and weight decay follow it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from pillsnap.training.optim import scale_learning_rate
from pillsnap.training.recovery import Cut
from pillsnap.training.step import TrainingParts


class AppliedCut:
    """The cut that the parts of one task were brought to last."""

    def __init__(self, parts: TrainingParts, cut: Cut) -> None:
        """Take `parts` as they are for the ones of `cut`, as configured."""
        self.cut = cut
        self._parts = parts
        self._scale = parts.scaler.get_scale()
        self._weight_decays = [group["weight_decay"] for group in parts.optimizer.param_groups]

    def follow(self, cut: Cut) -> bool:
        """Bring the parts to `cut`; tell whether steps have another size now."""
        before = self.cut
        if cut.is_fp16 and not before.is_fp16:
            self._switch_to_fp16()
        scale_learning_rate(self._parts.scheduler, cut.lr_scale / before.lr_scale)
        for group, configured in zip(self._parts.optimizer.param_groups, self._weight_decays, strict=True):
            group["weight_decay"] = configured * cut.wd_scale
        self.cut = cut
        return cut.step_size != before.step_size

    def take_over(self, cut: Cut) -> None:
        """Note the cut of a checkpoint, whose learning rate and weight decay the optimizer brings along."""
        self.cut = cut
        if cut.is_fp16:
            self._switch_to_fp16()

    def note_scale(self) -> None:
        """Remember the scaler's scale as it is now; waits for the device."""
        self._scale = self._parts.scaler.get_scale()

    def count_skips(self) -> int:
        """Return how many steps float16's scaler has skipped since the last call; waits for the device.

        The scaler halves its scale with every step it skips.
        """
        if not self._parts.scaler.is_enabled():
            return 0
        before = self._scale
        self.note_scale()
        return round(math.log2(before / self._scale)) if self._scale < before else 0

    @property
    def scale(self) -> float:
        """The scaler's scale when it was last read."""
        return self._scale

    def _switch_to_fp16(self) -> None:
        self._parts.precision = replace(self._parts.precision, is_amp=True, dtype=torch.float16)
        self._parts.scaler = self._parts.precision.build_scaler()
        self.note_scale()
