"""Letting tasks train for a while and putting them back exactly as they were.

Steps done in between are real ones: they move weights, BatchNorm's statistics, optimizer state, the average and every
random generator. Afterwards not one bit tells of them. What a bare `optimizer_step` does not touch (clock, schedule,
learning rates, loaders) needs no copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pillsnap.training.reproducibility import rng_state, set_rng_state
from pillsnap.training.task import Task


@contextmanager
def left_as_found(tasks: Sequence[Task]) -> Iterator[None]:
    """Undo all that steps in the block do to the tasks and to the global random generators, whatever ends the block.

    The copies are in host memory, so nothing is allocated on the device, and putting back needs no memory at all. In
    the block the tasks scale gradients with scalers of their own and run their models plainly: torch.compile would
    compile anew for every shape that is tried.
    """
    before = [_Snapshot(task) for task in tasks]
    generators = rng_state()
    try:
        for snapshot in before:
            snapshot.lend()
        yield
    finally:
        for snapshot in before:
            snapshot.put_back()
        set_rng_state(generators)


class _Snapshot:
    def __init__(self, task: Task) -> None:
        parts = task.parts
        self._parts = parts
        self._precision, self._scaler = parts.precision, parts.scaler
        self._compiled_call = parts.model._compiled_call_impl
        self._modes = [(module, module.training) for module in parts.model.modules()]
        state: dict[Any, dict[str, Any]] = parts.optimizer.state
        self._optimizer_state = {parameter: dict(values) for parameter, values in state.items()}
        tensors = [*module_tensors(parts.model), *optimizer_tensors(parts.optimizer)]
        if parts.ema is not None:
            tensors += module_tensors(parts.ema.module)
        self._tensors = [(live, live.detach().to("cpu", copy=True)) for live in tensors]

    def lend(self) -> None:
        self._parts.scaler = self._precision.build_scaler()
        if self._compiled_call is not None:
            self._parts.model._compiled_call_impl = None

    def put_back(self) -> None:
        parts = self._parts
        parts.precision, parts.scaler = self._precision, self._scaler
        if self._compiled_call is not None:
            parts.model._compiled_call_impl = self._compiled_call
        for module, is_training in self._modes:
            module.training = is_training
        parts.optimizer.zero_grad(set_to_none=True)
        # In place, because the scheduler and torch's own hooks hold on to the optimizer's dictionary.
        parts.optimizer.state.clear()
        parts.optimizer.state.update(self._optimizer_state)
        with torch.no_grad():
            for live, saved in self._tensors:
                live.copy_(saved)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the tensors of an optimizer's state; there are none before the first step."""
    return [
        value for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)
    ]


def module_tensors(module: nn.Module) -> list[torch.Tensor]:
    """Return parameters and buffers, those left out of a state dict included."""
    return [*module.parameters(), *module.buffers()]
