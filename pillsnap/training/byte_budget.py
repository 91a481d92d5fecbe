"""What a task keeps in memory between its steps, counted from its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from pillsnap.memory import GB
from pillsnap.training.snapshot import module_tensors, optimizer_tensors
from pillsnap.training.step import TrainingParts


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """Bytes of one task that do not depend on how its steps are cut."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """There from the first backward pass of a step to its end."""
    optimizer: int
    average: int

    @classmethod
    def of(cls, parts: TrainingParts) -> ByteBudget:
        """Count the tensors of `parts`, whose optimizer has done a step."""
        return cls(
            weights=_bytes(module_tensors(parts.model)),
            gradients=_bytes(parameter for parameter in parts.model.parameters() if parameter.requires_grad),
            optimizer=_bytes(optimizer_tensors(parts.optimizer)),
            average=0 if parts.ema is None else _bytes(module_tensors(parts.ema.module)),
        )

    @property
    def resident(self) -> int:
        """What stays between steps."""
        return self.weights + self.optimizer + self.average

    def __str__(self) -> str:
        """Return a line's worth of all of them, in GB."""
        return (
            f"weights {self.weights / GB:.3f} GB, optimizer state {self.optimizer / GB:.3f} GB, average "
            f"{self.average / GB:.3f} GB; gradients {self.gradients / GB:.3f} GB in a step"
        )


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
