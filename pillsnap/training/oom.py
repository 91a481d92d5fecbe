"""What to do when memory runs out: a decision, and nothing else. `recovery.py` carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig


def oom_recovery_state_machine(retries: int, current_state: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Decide how a task goes on after it ran out of memory (OOM-3). Pure: the caller waits, frees, applies and logs.

    S1 computes in float16, S2 cuts the same G = batch_size x grad_accum samples into smaller micro-batches, S3 makes G
    itself smaller and scales the learning rate along (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1).

    Args:
        retries: Failures in a row before this one.
        current_state: `batch_size` (samples of a micro-batch), `grad_accum` (micro-batches a step), `did_amp_escalate`,
            and `is_16bit` where the task computes in 16 bit anyway, so that S1 would free nothing.
        cfg: Reads `train.oom`.

    Returns:
        `action` and what belongs to it; `next_state` wherever the task goes on.
        `emergency_exit`: `save_checkpoint`. Too many failures in a row.
        `amp_fp16` (S1): `preserve_schedules`, `replay_batch`.
        `microbatching` (S2): `batch_size`, `grad_accum`, `preserve_schedules`, `replay_batch`.
        `global_batch_change` (S3): `batch_size`, `grad_accum`, `lr_scale`, `wd_scale`, `scheduler_mode`,
        `replay_batch`, `audit_log`.
        `fail`: `reason`, `save_checkpoint`. No smaller micro-batch is allowed.
    """
    oom = cfg.train.oom
    if retries + 1 > oom.max_retries:
        return {"action": "emergency_exit", "save_checkpoint": True}
    state = dict(current_state)
    if oom.escalate_to_fp16 and not state.get("did_amp_escalate") and not state.get("is_16bit"):
        return {
            "action": "amp_fp16",
            "preserve_schedules": True,
            "replay_batch": True,
            "next_state": {**state, "did_amp_escalate": True},
        }
    batch_size = int(state["batch_size"])
    global_batch = batch_size * int(state["grad_accum"])
    smaller = max(batch_size // 2, oom.min_batch)
    if smaller >= batch_size:
        reason = f"a micro-batch of {batch_size} does not fit and train.oom.min_batch is {oom.min_batch}"
        return {"action": "fail", "reason": reason, "save_checkpoint": True}
    grad_accum = min(math.ceil(global_batch / smaller), oom.max_grad_accum)
    cut = {"batch_size": smaller, "grad_accum": grad_accum}
    if smaller * grad_accum == global_batch:
        return {
            "action": "microbatching",
            **cut,
            "preserve_schedules": True,
            "replay_batch": True,
            "next_state": {**state, **cut},
        }
    lr_scale = smaller * grad_accum / global_batch
    return {
        "action": "global_batch_change",
        **cut,
        "lr_scale": lr_scale,
        "wd_scale": 1 / lr_scale,
        "scheduler_mode": "by_samples",
        "replay_batch": True,
        "audit_log": {"G_old": global_batch, "G_new": smaller * grad_accum, "lr_scale": lr_scale},
        "next_state": {**state, **cut},
    }
