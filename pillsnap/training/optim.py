"""Optimizer and learning-rate schedule, both built from a task's own `cfg.train` values."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

FINAL_LR_SHARE = 0.01  # of the peak, where the cosine ends


def build_optimizer(cfg: DictConfig, params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW over `params` (PRC-5).

    Weight decay acts on matrices and kernels only: decaying biases and normalisation scales costs accuracy and
    regularises nothing (He et al. 2019, "Bag of Tricks", section 3.1).

    Args:
        cfg: Reads `train.lr` and `train.weight_decay`.
        params: Trainable parameters of one model.
    """
    trainable = [parameter for parameter in params if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": cfg.train.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = bool(trainable) and all(p.is_cuda and torch.is_floating_point(p) for p in trainable)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=cfg.train.lr, fused=fused)


def build_scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LRScheduler:
    """Return the schedule over `train.epochs * steps_per_epoch` optimizer steps (PRC-5).

    Args:
        cfg: Reads `train.scheduler` (`cosine`: linear warm-up over `train.warmup_steps`, then half a cosine down to
            one hundredth; `onecycle`: PyTorch's) and the task's epochs.
        optimizer: Its `lr` is the peak.
        steps_per_epoch: Optimizer steps an epoch.
    """
    total_steps = max(cfg.train.epochs * steps_per_epoch, 1)
    if cfg.train.scheduler == "onecycle":
        return OneCycleLR(optimizer, max_lr=cfg.train.lr, total_steps=total_steps + 1)
    warmup_steps = min(cfg.train.warmup_steps, total_steps // 2)

    def factor(step: int) -> float:
        return cosine_factor(step, warmup_steps, total_steps)

    return LambdaLR(optimizer, factor)


def cosine_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate at `step` as a share of its peak.

    Rises linearly to 1 at `warmup_steps`, then follows half a cosine to `FINAL_LR_SHARE` at `total_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * (1 + math.cos(math.pi * progress)) / 2


def advance_schedule(scheduler: LRScheduler, steps: float, lr_scale: float) -> None:
    """Move a schedule on and set the learning rate.

    Args:
        scheduler: From `build_scheduler`; its position counts configured steps.
        steps: How far to move: the samples of the step over the configured samples of one, so 1 as long as steps have
            the configured size, whatever their last one in an epoch.
        lr_scale: Factor on the schedule's learning rate.
    """
    if steps != 1:
        scheduler.last_epoch += steps - 1  # type: ignore[assignment]  # both schedules have a closed form in it
    scheduler.step()
    scale_learning_rate(scheduler, lr_scale)


def scale_learning_rate(scheduler: LRScheduler, factor: float) -> None:
    """Multiply the current learning rate; the schedule sets it anew with its next step."""
    if factor == 1:
        return
    for group in scheduler.optimizer.param_groups:
        group["lr"] *= factor
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def scale_weight_decay(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the weight decay of every group."""
    for group in optimizer.param_groups:
        group["weight_decay"] *= factor
