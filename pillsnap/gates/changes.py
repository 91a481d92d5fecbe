"""What to set a configuration key to, computed from the value the run had.

A change is None where there is nothing left to change in that direction, or the run's configuration is not known.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pillsnap.config.loading import OVERRIDABLE
from pillsnap.cores import usable_cores

LARGEST_SMOOTHING = 0.2
LARGEST_MIXUP = 0.3
LARGEST_SCALE = 0.9
LARGEST_VAL_FRACTION = 0.3
SMALLEST_IMAGE_PX = 96
CELL_PX = 32
"""Sides of inputs stay multiples of this: the networks halve their input five times."""
COMPILE_MODES = ("none", "reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class Settings:
    """The configuration of a run, looked up by dotted key."""

    config: DictConfig
    cores: int = field(default_factory=usable_cores)

    def get(self, key: str) -> Any:
        """Return a value; None where it is null or not there. A task's null is the common `train.*` value."""
        value = OmegaConf.select(self.config, key)
        section, _, name = key.rpartition(".")
        if value is None and section in ("train.classification", "train.detection") and name in OVERRIDABLE:
            return self.get(f"train.{name}")
        return value


@dataclass(frozen=True)
class Change:
    """A key's new value, and what must change with it."""

    key: str
    new_value: Any
    with_it: Mapping[str, Any] = field(default_factory=dict)
    """Other keys that would contradict the new value as they are."""

    @property
    def override(self) -> str:
        """The words for a command line, ready to paste."""
        values = {self.key: self.new_value, **self.with_it}
        return " ".join(shlex.quote(f"{key}={_yaml(value)}") for key, value in values.items())


Changer = Callable[[Settings], Change | None]


def _yaml(value: Any) -> str:
    """Return a value as the command line takes it, without spaces."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":")).replace('"', "")


def factor(key: str, by: float) -> Changer:
    """Multiply a number, to four digits."""

    def change(settings: Settings) -> Change | None:
        value = settings.get(key)
        return Change(key, float(f"{value * by:.4g}")) if isinstance(value, int | float) and value > 0 else None

    return change


def more_epochs(task: str) -> Changer:
    """Train half as long again."""
    key = f"train.{task}.epochs"

    def change(settings: Settings) -> Change | None:
        value = settings.get(key)
        return Change(key, math.ceil(value * 1.5)) if isinstance(value, int) else None

    return change


def step_towards(key: str, step: float, limit: float) -> Changer:
    """Add `step` (or take it away where it is negative), up to `limit`, to two digits."""

    def change(settings: Settings) -> Change | None:
        value = settings.get(key)
        if not isinstance(value, int | float):
            return None
        new_value = round(min(value + step, limit) if step > 0 else max(value + step, limit), 2)
        return Change(key, new_value) if (new_value - value) * step > 0 else None

    return change


def resized(key: str, by: float) -> Changer:
    """Make a square input larger or smaller, by whole cells of the network."""

    def change(settings: Settings) -> Change | None:
        value = settings.get(key)
        if not isinstance(value, int):
            return None
        new_value = max(SMALLEST_IMAGE_PX, int(value * by) // CELL_PX * CELL_PX)
        return Change(key, new_value) if (new_value - value) * (by - 1) > 0 else None

    return change


def smaller_batch(settings: Settings) -> Change | None:
    """Halve the classifier's micro-batch; G stays as it is."""
    key = "train.classification.auto_batch_max"
    batch, most = settings.get("train.classification.batch_size"), settings.get(key)
    if not isinstance(batch, int) or not isinstance(most, int):
        return None
    if settings.get("train.classification.auto_batch_tune"):
        largest = min(batch * settings.get("train.classification.grad_accum_steps"), most)
        return Change(key, largest // 2) if largest > 1 else None
    accumulation = "train.classification.grad_accum_steps"
    doubled = {accumulation: settings.get(accumulation) * 2}
    return Change("train.classification.batch_size", batch // 2, doubled) if batch > 1 and batch % 2 == 0 else None


def balanced_sampling(settings: Settings) -> Change | None:
    """Show every class equally often, in place of weighing classes in the loss."""
    if settings.get("data.classification.sampling") != "natural":
        return None
    weights = "loss.use_class_weights"
    with_it = {weights: False} if settings.get(weights) else {}
    return Change("data.classification.sampling", "balanced", with_it)


def more_workers(settings: Settings) -> Change | None:
    """Double the worker processes, up to the cores at hand."""
    key = "dataloader.num_workers"
    value = settings.get(key)
    if not isinstance(value, int):
        return None
    new_value = min(max(2 * value, 1), settings.cores)
    return Change(key, new_value) if new_value > value else None


def more_prefetching(settings: Settings) -> Change | None:
    """Double the batches each worker prepares ahead."""
    value = settings.get("dataloader.prefetch_factor")
    return Change("dataloader.prefetch_factor", 2 * value) if isinstance(value, int) else None


def lmdb(settings: Settings) -> Change | None:
    """Keep decoded pictures packed on the disk."""
    section = "dataloader.ram_optimization"
    if settings.get(f"{section}.use_lmdb") is not False:
        return None
    policy = f"{section}.cache_policy"
    with_it = {policy: "hotset"} if settings.get(policy) in ("mmap", "auto") else {}
    return Change(f"{section}.use_lmdb", True, with_it)


def sixteen_bit(settings: Settings) -> Change | None:
    """Compute in 16 bit."""
    key = "train.classification.amp"
    return Change(key, True) if settings.get(key) is False else None


def faster_compilation(settings: Settings) -> Change | None:
    """Take the next mode of torch.compile."""
    key = "optimization.torch_compile"
    mode = settings.get(key)
    if mode not in COMPILE_MODES[:-1]:
        return None
    return Change(key, COMPILE_MODES[COMPILE_MODES.index(mode) + 1])


def both_tasks(settings: Settings) -> Change | None:
    """Train the detector too, or the classifier."""
    tasks = settings.get("train.tasks")
    return Change("train.tasks", ["classification", "detection"]) if tasks is not None and len(tasks) == 1 else None


def larger_val(times: float) -> Changer:
    """Put `times` as many pictures on the val side."""
    key = "data.split.val_fraction"

    def change(settings: Settings) -> Change | None:
        value = settings.get(key)
        if not isinstance(value, int | float) or settings.get("data.split.policy") != "groups":
            return None
        new_value = math.ceil(value * times * 100) / 100
        most = min(LARGEST_VAL_FRACTION, 0.9 - (settings.get("data.split.test_fraction") or 0))
        return Change(key, new_value) if value < new_value <= most else None

    return change


def first_of(*changers: Changer) -> Changer:
    """Take the first change that can be made."""

    def change(settings: Settings) -> Change | None:
        return next((found for changer in changers if (found := changer(settings)) is not None), None)

    return change
