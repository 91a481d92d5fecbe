"""Optimizer, schedule and scaler out of a checkpoint, under today's configuration, when it belongs to this run at all.

What training has learnt (moments, position, scale) comes from the checkpoint; what the configuration says (learning
rate, weight decay, length of the schedule, fused or not) is the configuration's, so that a resume with a lower learning
rate has one, and a checkpoint of a CPU goes on on a GPU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from pillsnap.errors import CheckpointError
from pillsnap.training.optim import scale_weight_decay
from pillsnap.training.step import TrainingParts

POSITION = ("last_epoch", "_step_count")
CONFIGURED = (
    *("weight_decay", "initial_lr", "fused", "foreach", "capturable"),
    *("max_lr", "min_lr", "betas", "max_momentum", "base_momentum"),  # OneCycleLR's shape; it moves the first beta too
)


def require_same_identity(task: str, stored: dict[str, Any], mine: dict[str, Any]) -> None:
    """Refuse to resume a checkpoint of something else.

    Args:
        task: Named in the message.
        stored: What the checkpoint's run was (model, classes, seed, data).
        mine: What this run is.

    Raises:
        CheckpointError: They differ in a value of `mine`.
    """
    for key, value in mine.items():
        if stored.get(key) != value:
            raise CheckpointError(
                f"The checkpoint of {task} has {key} = {stored.get(key)}, this run has {key} = {value}. They must "
                "agree to resume. Use the configuration and data of the first run, or another paths.exp_dir."
            )


def scheduler_state(parts: TrainingParts) -> dict[str, Any]:
    """Return the schedule's position; its shape is rebuilt from the configuration."""
    state = parts.scheduler.state_dict()
    return {key: state[key] for key in POSITION}


def restore_optimization(
    parts: TrainingParts,
    state: dict[str, Any],
    *,
    lr_scale: float = 1.0,
    wd_scale: float = 1.0,
    position: float | None = None,
) -> None:
    """Put optimizer, schedule and scaler back to where a checkpoint stood.

    Args:
        parts: As built from today's configuration.
        state: With `optimizer_state`, `scheduler_state` and `scaler_state`.
        lr_scale: Factor on the configured learning rate.
        wd_scale: Factor on the configured weight decay.
        position: Where the schedule stands, in today's configured steps; None: where the checkpoint says.
    """
    optimizer, scheduler = parts.optimizer, parts.scheduler
    configured = [{key: group[key] for key in CONFIGURED if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer_state"])
    for group, own in zip(optimizer.param_groups, configured, strict=True):
        group.update(own)
    scale_weight_decay(optimizer, wd_scale)
    _place_step_counts(optimizer)
    for key in POSITION:
        setattr(scheduler, key, state["scheduler_state"][key])
    if position is not None:
        scheduler.last_epoch = position  # type: ignore[assignment]
    for group, rate in zip(optimizer.param_groups, _rates_at_position(scheduler), strict=True):
        group["lr"] = rate * lr_scale
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    # A run without float16 has an empty scaler state, which an enabled scaler refuses.
    if state["scaler_state"] and parts.scaler.is_enabled():
        parts.scaler.load_state_dict(state["scaler_state"])


def _rates_at_position(scheduler: LRScheduler) -> list[float | torch.Tensor]:
    """Return the groups' rates where the schedule stands; both schedules have a closed form in their position.

    OneCycleLR sets the first beta of its groups on the way.
    """
    position = scheduler.last_epoch
    try:
        if isinstance(scheduler, OneCycleLR):  # it has no rates beyond its end, as after train.epochs was lowered
            scheduler.last_epoch = min(position, scheduler.total_steps - 1)
        with warnings.catch_warnings():
            # Asked for outside its own step(), a schedule warns that most callers want the last rate instead.
            warnings.filterwarnings("ignore", "To get the last learning rate", UserWarning)
            return scheduler.get_lr()
    finally:
        scheduler.last_epoch = position


def _place_step_counts(optimizer: torch.optim.Optimizer) -> None:
    """Move AdamW's step counts to where this run's implementation reads them: fused on the device, else on the host."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            values = optimizer.state.get(parameter, {})
            if "step" in values and isinstance(values["step"], torch.Tensor):
                values["step"] = values["step"].to(parameter.device if group.get("fused") else "cpu")
