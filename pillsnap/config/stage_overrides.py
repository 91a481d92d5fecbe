"""What a stage of the roll-out changes in the configuration before it trains (STG-2, STG-3).

`apply_stage_settings` does it for a run. The keys in `train.stage_overrides.keep` are left alone by everything here;
loading puts those into it that were set in a later place than the stage's own (`stage_precedence`). Every function
returns a new, read-only configuration and logs each change.
"""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig

from pillsnap.config.loading import config_snapshot, freeze
from pillsnap.config.stage_precedence import (
    AUTO_BATCH_MAX,
    CHANNELS_LAST,
    HEADROOM,
    KEEP,
    STAGE,
    TARGETS,
    TORCH_COMPILE,
)
from pillsnap.errors import ConfigError

logger = logging.getLogger("pillsnap")

STAGES = (1, 2, 3, 4)
SMALL_STAGES = (1, 2)
SMALL_AUTO_BATCH_MAX = {"detection": 64, "classification": 96}
LOW_HEADROOM, LARGE_HEADROOM = 0.90, 0.92


def apply_stage_settings(cfg: DictConfig) -> DictConfig:
    """Return `cfg` as its current stage trains with it: the general rules of its size, then the stage's own overrides.

    What is written for one stage wins over the general rules. Doing it again changes nothing.
    """
    stage = _stage_number(_get(config_snapshot(cfg), STAGE))
    enable = enable_small_dataset_optimizations if stage in SMALL_STAGES else enable_large_dataset_optimizations
    return apply_stage_overrides(enable(cfg), stage)


def apply_stage_overrides(cfg: DictConfig, stage: int | str) -> DictConfig:
    """Return `cfg` with the overrides of `train.stage_overrides` for a stage; null overrides nothing.

    Args:
        cfg: A configuration; a hand-made one may have the stages under `1` as well as under `stage_1`.
        stage: 1 to 4, or "stage_1" to "stage_4".

    Raises:
        ConfigError: There is no such stage.
    """
    number = _stage_number(stage)
    plain = config_snapshot(cfg)
    stages = _get(plain, "train.stage_overrides") or {}
    overrides: dict[str, Any] = next(
        (stages[key] for key in (f"stage_{number}", number, str(number)) if stages.get(key)), {}
    )
    changes = {
        key: (overrides[name] == "channels_last" if name == "memory_format" else overrides[name])
        for name, keys in TARGETS.items()
        for key in keys
        if overrides.get(name) is not None
    }
    if not changes:
        logger.info("stage %d: no overrides configured", number)
    return _changed(plain, changes, f"stage {number}")


def enable_small_dataset_optimizations(cfg: DictConfig) -> DictConfig:
    """Return `cfg` for stages 1 and 2: little time spent on finding large batches and on compiling."""
    plain = config_snapshot(cfg)
    changes: dict[str, Any] = {}
    for task, most in SMALL_AUTO_BATCH_MAX.items():
        if (_get(plain, AUTO_BATCH_MAX[task]) or 0) > most:
            changes[AUTO_BATCH_MAX[task]] = most
    if _get(plain, TORCH_COMPILE) == "max-autotune":
        changes[TORCH_COMPILE] = "reduce-overhead"
    return _changed(plain, changes, "small data set")


def enable_large_dataset_optimizations(cfg: DictConfig) -> DictConfig:
    """Return `cfg` for stages 3 and 4: hours of training make up for the time that speed takes to prepare."""
    plain = config_snapshot(cfg)
    changes: dict[str, Any] = {TORCH_COMPILE: "max-autotune", **dict.fromkeys(CHANNELS_LAST, True)}
    if (_get(plain, HEADROOM) or LARGE_HEADROOM) < LOW_HEADROOM:
        changes[HEADROOM] = LARGE_HEADROOM
    return _changed(plain, changes, "large data set")


def _stage_number(stage: int | str) -> int:
    text = str(stage).removeprefix("stage_")
    if text not in map(str, STAGES):
        raise ConfigError(f"the stage is {stage!r}; there are 1 to 4, or stage_1 to stage_4. Give one of them.")
    return int(text)


def _changed(plain: dict[str, Any], changes: dict[str, Any], why: str) -> DictConfig:
    """Make the changes to keys that are not kept, log each, and freeze the result."""
    kept = _get(plain, KEEP) or []
    for key, value in changes.items():
        before = _get(plain, key)
        if before == value:
            continue
        if key in kept:
            logger.info("%s: %s stays %s (set by the user; %s otherwise)", why, key, before, value)
            continue
        logger.info("%s: %s %s -> %s", why, key, before, value)
        _set(plain, key, value)
    return freeze(plain)


def _get(plain: dict[str, Any], key: str) -> Any:
    node: Any = plain
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _set(plain: dict[str, Any], key: str, value: object) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        plain = plain.setdefault(parent, {})
    plain[name] = value
