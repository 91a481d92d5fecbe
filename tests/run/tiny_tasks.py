"""Both tasks of the tiny configuration, built and ready to train, and a fingerprint of everything about them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig

from pillsnap.data.loaders import build_loaders
from pillsnap.data.twostage import load_data
from pillsnap.memory import DeviceMemory
from pillsnap.training.build import build_classifier, build_detector, build_tasks
from pillsnap.training.context import RunContext
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.reproducibility import rng_state, set_seed
from pillsnap.training.task import Task
from pillsnap.training.telemetry import TBWriter

CPU = torch.device("cpu")


class Scalars(TBWriter):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.values.append((tag, value, step))


@dataclass
class TinyTasks:
    """The tasks and all they tell."""

    tasks: list[Task]
    context: RunContext
    tb: Scalars
    decisions: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def classification(self) -> Task:
        return self.tasks[0]

    @property
    def detection(self) -> Task:
        return self.tasks[1]


def build_tiny_tasks(cfg: DictConfig, limit_gb: float | None = None, device: torch.device = CPU) -> TinyTasks:
    """Build the tasks as a run does; the limit counts from here, the libraries that building loads left out."""
    set_seed(cfg.train.seed, deterministic=False)
    data = load_data(cfg)
    classifier, spec = build_classifier(cfg, len(data.class_map))
    models = {"classification": classifier, "detection": build_detector(cfg)}
    memory = DeviceMemory(device, limit_gb)
    tb, decisions = Scalars(), list[tuple[Any, ...]]()
    context = RunContext(
        logging.getLogger("pillsnap"), tb, StopRequest(), "none", memory, lambda *words: decisions.append(words)
    )
    return TinyTasks(build_tasks(cfg, models, build_loaders(data, cfg, spec), context, device), context, tb, decisions)


def fingerprint(tasks: list[Task]) -> dict[str, str]:
    """Return a digest of everything training reads or changes; equal digests are equal bits."""
    state = {task.name: _state(task) for task in tasks}
    return {path: _digest(value) for path, value in _leaves({"tasks": state, "rng": rng_state()})}


def _state(task: Task) -> dict[str, Any]:
    parts = task.parts
    ema = {} if parts.ema is None else dict([*parts.ema.module.named_parameters(), *parts.ema.module.named_buffers()])
    return {
        "model": dict([*parts.model.named_parameters(), *parts.model.named_buffers()]),
        "modes": {name: module.training for name, module in parts.model.named_modules()},
        "compiled": parts.model._compiled_call_impl,
        "ema": ema,
        "optimizer": parts.optimizer.state_dict(),
        "gradients": {name: parameter.grad for name, parameter in parts.model.named_parameters()},
        "scheduler": {key: parts.scheduler.state_dict()[key] for key in ("last_epoch", "_step_count", "_last_lr")},
        "scaler": (id(parts.scaler), parts.scaler.state_dict()),
        "precision": parts.precision,
        "clock": asdict(task.clock),
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{key}")
    elif isinstance(value, (list, tuple)) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{number}")
    else:
        yield path, value


def _digest(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else value
        text = f"{value.dtype} {tuple(value.shape)} {value.stride()}".encode() + raw.cpu().numpy().tobytes()
    else:
        text = repr(value).encode()
    return hashlib.sha256(text).hexdigest()
