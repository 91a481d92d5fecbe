"""Out-of-memory errors where and when a test wants them, and the record of what was trained meanwhile.

The errors are raised inside real steps of real runs: in the forward pass of a slice, in the backward pass, after the
optimizer has already changed weights, after the average was updated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch

from pillsnap.training import task as task_module
from pillsnap.training.step import TrainingParts, optimizer_step

Place = Literal["forward", "backward", "optimizer", "ema"]
PLACES: tuple[Place, ...] = ("forward", "backward", "optimizer", "ema")
StepKey = tuple[str, int]
"""(task, its step from 0)"""


@dataclass
class Journal:
    """What a run did, step by step."""

    cuts: dict[StepKey, int] = field(default_factory=dict)
    """Samples of a micro-batch in each completed step."""
    samples: dict[str, list[int]] = field(default_factory=dict)
    """Ids of the samples each task was trained on, in order."""
    injected: list[tuple[StepKey, Place]] = field(default_factory=list)

    def note(self, key: StepKey, micro_batch: int, sample_ids: list[int]) -> None:
        """Note a completed step."""
        self.cuts[key] = micro_batch
        self.samples.setdefault(key[0], []).extend(sample_ids)


def inject(monkeypatch: pytest.MonkeyPatch, faults: Mapping[StepKey, Place]) -> Journal:
    """Make each of the steps run out of memory once at its place; return the journal of the run to come."""
    journal, left = Journal(), dict(faults)

    def step(parts: TrainingParts, batch: Any, *, micro_batch: int, seeds: tuple[int, str, int], **rest: Any) -> Any:
        key = (seeds[1], seeds[2])
        place = left.pop(key, None)
        if place is not None:
            journal.injected.append((key, place))
            with failing(parts, place):
                optimizer_step(parts, batch, micro_batch=micro_batch, seeds=seeds, **rest)
        loss = optimizer_step(parts, batch, micro_batch=micro_batch, seeds=seeds, **rest)
        journal.note(key, micro_batch, batch.sample_ids)
        return loss

    monkeypatch.setattr(task_module, "optimizer_step", step)
    return journal


def follow(monkeypatch: pytest.MonkeyPatch, cuts: Mapping[StepKey, int]) -> Journal:
    """Make every step use the micro-batch given for it: the run that never failed but was cut the same."""
    journal = Journal()

    def step(parts: TrainingParts, batch: Any, *, micro_batch: int, seeds: tuple[int, str, int], **rest: Any) -> Any:
        key = (seeds[1], seeds[2])
        loss = optimizer_step(parts, batch, micro_batch=cuts.get(key, micro_batch), seeds=seeds, **rest)
        journal.note(key, cuts.get(key, micro_batch), batch.sample_ids)
        return loss

    monkeypatch.setattr(task_module, "optimizer_step", step)
    return journal


@contextmanager
def failing(parts: TrainingParts, place: Place) -> Iterator[None]:
    """Let memory run out at `place` of any step in the block."""
    plain: tuple[Any, ...] = (parts.loss, parts.optimizer.step, None if parts.ema is None else parts.ema.update)
    error = torch.OutOfMemoryError(f"CUDA out of memory. Injected into the {place} pass")
    if place == "forward":
        parts.loss = _raising_after(parts.loss, error)
    elif place == "backward":
        parts.loss = _raising_backward(parts.loss, error)
    elif place == "optimizer":
        parts.optimizer.step = _raising_after(parts.optimizer.step, error)  # type: ignore[method-assign]
    else:
        assert parts.ema is not None
        parts.ema.update = _raising_after(parts.ema.update, error)  # type: ignore[method-assign]
    try:
        yield
    finally:
        parts.loss, parts.optimizer.step = plain[:2]  # type: ignore[method-assign]
        if parts.ema is not None:
            parts.ema.update = plain[2]  # type: ignore[method-assign]


def _raising_after(function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        raise error

    return wrapped


def _raising_backward(loss: Callable[..., torch.Tensor], error: Exception) -> Callable[..., torch.Tensor]:
    def hook(grad: torch.Tensor) -> torch.Tensor:
        raise error

    def wrapped(*args: Any, **kwargs: Any) -> torch.Tensor:
        result = loss(*args, **kwargs)
        result.register_hook(hook)  # type: ignore[no-untyped-call]
        return result

    return wrapped
