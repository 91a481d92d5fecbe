"""The run's own tasks over batches that lie ready in memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.rounds import Stopwatch
from benchmarks.snapshots import without_snapshots
from pillsnap.config.loading import for_task, load_config
from pillsnap.data.batches import Batch
from pillsnap.data.classes import ClassMap
from pillsnap.data.datasets import Key
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.loaders import DataMeta, Loader, TwoStageLoaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.samplers import StepSampler
from pillsnap.data.stores import Stores
from pillsnap.data.twostage import TwoStageData
from pillsnap.training.build import build_tasks
from pillsnap.training.context import RunContext
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.schedule import CLASSIFICATION, TaskName
from pillsnap.training.task import Task
from pillsnap.training.telemetry import TBWriter

PRODUCTION = Path(__file__).parents[1] / "config.yaml"


LoaderTriple = tuple[Loader | None, Loader | None, Loader | None]  # train, val, test


def benchmark_config(exp_dir: Path, *overrides: str) -> DictConfig:
    """Return the production configuration with what a benchmark cannot have taken out: weights, workers, compiling.

    Args:
        exp_dir: Where the run's files go.
        overrides: Command line words, which win.
    """
    words = (
        f"paths.exp_dir={exp_dir}",
        "model.pretrained=false",
        "detection.pretrained=false",
        "dataloader.num_workers=0",
        "optimization.torch_compile=none",
        *overrides,
    )
    return load_config(PRODUCTION, words)


class ReadyBatches(Dataset[Batch]):
    """Hands out batches in the order they were put in; which samples a sampler asks for does not matter."""

    def __init__(self) -> None:
        """Start empty."""
        self._batches: deque[Batch] = deque()

    def put(self, batches: Iterable[Batch]) -> None:
        """Add batches at the end."""
        self._batches.extend(batches)

    def __getitems__(self, keys: list[Key]) -> Batch:
        """Return the next batch (PyTorch's fetcher asks for all samples of a step at once)."""
        return self._batches.popleft()


def ready_loader(cfg: DictConfig, task: TaskName, num_steps: int) -> Loader:
    """Return a training loader over `ReadyBatches`, whose one epoch has `num_steps` steps."""
    train = for_task(cfg, task).train
    sampler = StepSampler(
        num_steps * train.batch_size * train.grad_accum_steps,
        batch_size=train.batch_size,
        grad_accum_steps=train.grad_accum_steps,
        drop_last=True,
        seed=train.seed,
        task=task,
    )
    return DataLoader(ReadyBatches(), batch_sampler=sampler, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


class SteppedTask:
    """One task of a run, stepped and timed."""

    def __init__(self, task: Task, stopwatch: Stopwatch, *, has_snapshots: bool = True) -> None:
        """Time the steps of `task`, whose loader is a `ready_loader`; without snapshots when told so."""
        self.task = task
        self._stopwatch = stopwatch
        self._has_snapshots = has_snapshots
        dataset = task.train_loader.dataset
        assert isinstance(dataset, ReadyBatches)
        self._ready = dataset
        self.first_loss: float | None = None
        """Mean loss of the first turn: the other side's must be the same, or the two do different work."""

    def turn(self, batches: Sequence[Batch]) -> float:
        """Train on `batches` and return the seconds it took, taking them from the loader included."""
        self._ready.put(batches)
        with nullcontext() if self._has_snapshots else without_snapshots():
            seconds = self._stopwatch.timed([self._step] * len(batches))
        if self.first_loss is None:
            self.task.log.flush(checkpoint=self.task.context.last_checkpoint)
            self.first_loss = self.task.log.epoch_loss.mean()
        return seconds

    def _step(self) -> None:
        batch = self.task.next_samples()
        assert batch is not None
        assert self.task.step(batch), "a step ran out of memory; its time means nothing"


def build_task(
    cfg: DictConfig,
    name: TaskName,
    model: nn.Module,
    context: RunContext,
    *,
    train_loader: Loader,
    val_loader: Loader | None = None,
    spec: ClassifierInput | None = None,
    device: torch.device,
) -> Task:
    """Build a task exactly as a run does, but for the data set behind the loaders.

    Args:
        cfg: From `benchmark_config`.
        name: Which task.
        model: Its model, on the CPU.
        context: Log and TensorBoard.
        train_loader: What it trains on.
        val_loader: What it is validated on; None when it never is.
        spec: The classifier's input.
        device: Where to train.
    """
    mine: LoaderTriple = (train_loader, val_loader, None)
    nothing: LoaderTriple = (None, None, None)
    classification, detection = (mine, nothing) if name == CLASSIFICATION else (nothing, mine)
    loaders = TwoStageLoaders(*classification, *detection, meta=_meta(cfg.model.num_classes, spec))
    (task,) = build_tasks(cfg, {name: model}, loaders, context, device)
    return task


def run_context(exp_dir: Path, tb: TBWriter, logger: logging.Logger) -> RunContext:
    """Return what a task shares with a run, for one in `exp_dir`."""
    return RunContext(logger, tb, StopRequest(), str(exp_dir / "checkpoints" / "manifest.json"))


def _meta(num_classes: int, spec: ClassifierInput | None) -> DataMeta:
    classes = np.arange(num_classes)
    labels = np.repeat(classes, 1 + classes % 10)  # unequal, so that class weights have something to do
    items = ClassificationItems(np.arange(len(labels)), np.full(len(labels), NO_BOX), labels)
    # There is no data set behind the batches; a task asks it for its digest only.
    data = cast(TwoStageData, SimpleNamespace(digest=lambda: "benchmark"))
    return DataMeta(data, ClassMap(tuple(f"K-{index:06d}" for index in range(num_classes))), spec, items, Stores.none())
