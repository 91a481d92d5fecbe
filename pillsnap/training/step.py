"""One optimizer step over G samples, as a transaction.

Either the whole step happens or nothing of it does: if anything interrupts it (an error, Ctrl-C, memory running out),
gradients and the scaler's marks are dropped and BatchNorm's buffers put back, so the same samples can be done again.
The micro-batch is only how the G samples are cut. Each slice's loss is weighted by its share of the step, so a ragged
last slice is exact. BatchNorm's statistics do see micro-batches, not G samples; that is part of the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pillsnap.data.batches import Batch
from pillsnap.training.average import WeightAverage
from pillsnap.training.precision import Precision
from pillsnap.training.reproducibility import seed_step


@dataclass
class TrainingParts:
    """Everything a step changes or reads, for one task."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    precision: Precision
    loss: Callable[[Any], torch.Tensor]
    """Mean loss of a slice, a scalar on the device, computed in the forward pass."""
    weight: Callable[[Any], float]
    """What a slice counts for in its step; the mean loss of a slice times its weight adds up over slices."""
    ema: WeightAverage | None = None


class Remembered:
    """Copies of tensors that a block of work changes in place."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        """Copy them; on a GPU in a few kernels rather than one a tensor."""
        self._live = tensors
        self._saved = [torch.empty_like(tensor) for tensor in tensors]
        _copy_all(self._saved, tensors)

    def put_back(self) -> None:
        """Restore the contents; the tensors stay the same objects."""
        _copy_all(self._live, self._saved)


def _copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    # One kernel copies many tensors only where all have one type and place; BatchNorm's counters are of another.
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        group = groups.setdefault((target.dtype, target.device), ([], []))
        group[0].append(target)
        group[1].append(source)
    with torch.no_grad():
        for group_targets, group_sources in groups.values():
            torch._foreach_copy_(group_targets, group_sources)


@contextmanager
def transaction(parts: TrainingParts) -> Iterator[None]:
    """Undo what the block did to BatchNorm's buffers and the gradients when it does not reach its end, for any reason.

    The scaler needs no copy: its scale changes in the last call of a step, and reading it would wait for the device.
    """
    before = Remembered([buffer for buffer in parts.model.buffers() if buffer.numel()])
    with ExitStack() as undo:
        undo.callback(_forget_gradients, parts)
        undo.callback(before.put_back)
        yield
        undo.pop_all()


def _forget_gradients(parts: TrainingParts) -> None:
    # The "already unscaled" marks of the interrupted step would make the next unscale_ refuse; GradScaler has no public
    # way to clear them without also changing the scale.
    if parts.scaler.is_enabled():
        parts.scaler._per_optimizer_states.clear()
    # The scaler hands these to a fused optimizer and takes them away after its step; left behind, they would make the
    # next step divide by an old scale.
    for name in ("grad_scale", "found_inf"):
        vars(parts.optimizer).pop(name, None)
    parts.optimizer.zero_grad(set_to_none=True)


@contextmanager
def update_transaction(parts: TrainingParts) -> Iterator[None]:
    """Undo what the block did to weights, optimizer state and average when it does not reach its end.

    AdamW allocates as it goes (its moments in the first step, temporaries in all of them unless it is fused), so memory
    can run out with half of the weights updated. The copies live only when the activations are gone, so they do not
    raise the peak of a step.
    """
    state = parts.optimizer.state
    known = set(state)
    tensors = [parameter for group in parts.optimizer.param_groups for parameter in group["params"]]
    tensors += [value for values in state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    if parts.ema is not None:
        tensors += parts.ema.tensors
    with ExitStack() as undo:
        undo.callback(_keep_only, state, known)
        undo.callback(Remembered(tensors).put_back)
        yield
        undo.pop_all()


def _keep_only(state: dict[Any, Any], known: set[Any]) -> None:
    for parameter in set(state) - known:
        del state[parameter]


def optimizer_step(
    parts: TrainingParts,
    batch: Batch,
    *,
    micro_batch: int,
    grad_clip: float | None,
    zero_grad_set_to_none: bool,
    seeds: tuple[int, str, int],
) -> torch.Tensor:
    """Do one step over all samples of `batch`: accumulate over micro-batches, clip, step, average (LOP-3).

    The schedule is the caller's: how far it moves depends on the place of the step in its epoch.

    Args:
        parts: Model, optimizer and the rest of one task.
        batch: The G samples of the step, at least one.
        micro_batch: Samples in a slice.
        grad_clip: Largest gradient norm, or None / 0 for no clipping.
        zero_grad_set_to_none: Passed to the optimizer.
        seeds: (seed, task, step) that own this step's random numbers.

    Returns:
        The mean loss over the G samples, a detached scalar on the device (reading it waits for the device).
    """
    if not parts.model.training:  # walking through all modules in every step takes its time
        parts.model.train()
    with transaction(parts):
        seed_step(*seeds)
        loss = _accumulate(parts, batch, micro_batch)
        with update_transaction(parts):
            if grad_clip:
                parts.scaler.unscale_(parts.optimizer)
                nn.utils.clip_grad_norm_(parts.model.parameters(), grad_clip)
            parts.scaler.step(parts.optimizer)
            if parts.ema is not None:
                parts.ema.update(parts.model, step=seeds[2])
            parts.scaler.update()
    parts.optimizer.zero_grad(set_to_none=zero_grad_set_to_none)
    return loss


def _accumulate(parts: TrainingParts, batch: Batch, micro_batch: int) -> torch.Tensor:
    total = torch.zeros((), device=parts.precision.device)
    whole = parts.weight(batch)
    for part in batch.slices(micro_batch):
        share = parts.weight(part) / whole
        with parts.precision.autocast():
            loss = parts.loss(part) * share
        parts.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total
