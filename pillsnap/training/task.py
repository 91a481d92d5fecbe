"""What both tasks have in common: a clock, samples from a loader, transactional steps, validation, and their state.

The loop knows a task by five verbs: `next_samples`, `step`, `validate`, `state`, `load_state`.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from pillsnap.config.loading import for_task
from pillsnap.data.batches import Batch, Broken
from pillsnap.data.loaders import Loader, StepSampler
from pillsnap.errors import CheckpointError, DataError
from pillsnap.training.early_stopping import early_stopping
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.optimstate import restore_optimization, scheduler_state
from pillsnap.training.schedule import TaskName
from pillsnap.training.step import TrainingParts, optimizer_step
from pillsnap.training.steplog import EpochLoss, StepLog, StepReport
from pillsnap.training.telemetry import TBWriter

COMPILE_WARMUP_STEPS = 100  # UTL-9: left out of throughput figures when torch.compile is on


@dataclass
class Clock:
    """Where a task stands. A resume needs nothing else to find its next samples."""

    epoch: int = 0
    """Epochs completed, validation included."""
    step: int = 0
    """Optimizer steps done."""
    step_in_epoch: int = 0
    """Steps of the current epoch whose samples are used up."""
    samples: int = 0
    """Samples trained on."""
    skipped: int = 0
    """Broken pictures left out."""
    scaler_skips: int = 0
    """Steps that float16's scaler skipped (seen at logging steps)."""
    is_stopped: bool = False
    """Early stopping ended the task."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a task shares with the run around it."""

    logger: logging.Logger
    tb: TBWriter
    stop: StopRequest
    last_checkpoint: str
    """Path of the checkpoint to go back to, for messages."""


@dataclass
class ValidationResult:
    """The figures of one validation, and what early stopping made of them."""

    figures: dict[str, float]
    is_best: bool = field(default=False)


class Task(ABC):
    """One model being trained: its parts, its data, its clock."""

    name: TaskName
    log_label: str
    tb_prefix: str
    tie_breaker: tuple[str, float]
    """Figure that decides between validations with the same monitored one, and its sign: +1 more is better, -1 less."""

    def __init__(
        self,
        cfg: DictConfig,
        parts: TrainingParts,
        loaders: tuple[Loader, Loader | None],
        context: RunContext,
        *,
        identity: dict[str, Any],
        extras: dict[str, Any],
    ) -> None:
        """Train `parts` as `cfg` says for this task.

        Args:
            cfg: The resolved configuration.
            parts: Model, optimizer and the rest.
            loaders: Training and validation; a task that is never validated needs no second one.
            context: Shared with the run.
            identity: What a checkpoint must have in common with this task to be resumed (model, classes).
            extras: What whoever uses the model later needs beside its weights; goes into the checkpoint.
        """
        self.cfg = for_task(cfg, self.name)
        self.parts = parts
        self.train_loader, self.val_loader = loaders
        self.context = context
        self.identity = identity
        self.extras = extras
        self.clock = Clock()
        self.history: list[dict[str, Any]] = []
        self.stopping: dict[str, Any] = {}
        self._batches: Iterator[Batch | list[Broken]] | None = None
        self._scale = parts.scaler.get_scale()
        is_compiled = self.cfg.optimization.torch_compile != "none"
        self.log = StepLog(
            label=self.log_label,
            prefix=self.tb_prefix,
            epochs=self.cfg.train.epochs,
            steps_per_epoch=self.steps_per_epoch,
            device=parts.precision.device,
            logger=context.logger,
            tb=context.tb,
            step_log_interval=self.cfg.logging.step_log_interval,
            profile_interval=self.cfg.logging.profile_interval,
            warmup_steps=COMPILE_WARMUP_STEPS if is_compiled else 0,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return len(self._sampler)

    @property
    def is_epoch_done(self) -> bool:
        """Whether every sample of the epoch was used, so that validation is due."""
        return self.clock.step_in_epoch >= self.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        """Whether the task has no steps left."""
        return self.clock.is_stopped or self.clock.epoch >= self.cfg.train.epochs

    @property
    def evaluation_model(self) -> nn.Module:
        """The model that validation judges and that is kept as best: the averaged one where EMA is on."""
        model: nn.Module = self.parts.model if self.parts.ema is None else self.parts.ema.module
        return model

    @property
    def _sampler(self) -> StepSampler:
        sampler = self.train_loader.batch_sampler
        assert isinstance(sampler, StepSampler)
        return sampler

    def next_samples(self) -> Batch | None:
        """Return the samples of the next step; None when not one of them could be decoded."""
        with self.log.timer.data():
            if self._batches is None:
                self._sampler.set_position(self.clock.epoch, self.clock.step_in_epoch)
                self._batches = iter(self.train_loader)
            batch = next(self._batches)
        self.clock.step_in_epoch += 1
        if self.is_epoch_done:
            self._batches = None
        broken = batch if isinstance(batch, list) else batch.broken
        self._report_broken(broken)
        if isinstance(batch, list):
            self.log.timer.forget_last_wait()
            return None
        return batch

    def step(self, batch: Batch) -> None:
        """Do one optimizer step over `batch` and report it."""
        train = self.cfg.train
        lr = float(self.parts.scheduler.get_last_lr()[0])
        with self.log.timer.compute():
            loss = optimizer_step(
                self.parts,
                batch,
                micro_batch=train.batch_size,
                grad_clip=train.grad_clip,
                zero_grad_set_to_none=train.zero_grad_set_to_none,
                seeds=(train.seed, self.name, self.clock.step),
            )
        self.clock.step += 1
        self.clock.samples += len(batch)
        report = StepReport(self.clock.epoch, self.clock.step_in_epoch, self.clock.step, loss, lr, batch.sample_ids)
        self.log.record(report, checkpoint=self.context.last_checkpoint)
        if self.clock.step % self.cfg.logging.step_log_interval == 0:
            self._count_scaler_skips()

    def validate(self) -> ValidationResult:
        """Judge the model on the val split, end the epoch, and decide on best and on stopping (VAL-3)."""
        stopping = self.cfg.train.early_stopping
        self._require_trained()
        figures = self.evaluate()
        self.stopping["metrics"] = figures
        monitor = stopping.monitor[self.name]
        stop, is_best = early_stopping(self.stopping, monitor, stopping.mode, stopping.patience, stopping.min_delta)
        is_best = self._keeps(figures, is_best, is_tie=figures[monitor] == self.stopping["best"])
        train_loss, self.log.epoch_loss = self.log.epoch_loss.mean(), EpochLoss()
        lr = float(self.parts.scheduler.get_last_lr()[0])
        epoch = {"epoch": self.clock.epoch + 1, "train_loss": train_loss, "lr": lr, **figures, "is_best": is_best}
        self.history.append(epoch)
        self.clock.epoch += 1
        self.clock.step_in_epoch = 0
        self.clock.is_stopped = stop
        text = " ".join(f"{key}={value:.4f}" for key, value in figures.items() if isinstance(value, float))
        self.context.logger.info(
            f"[val{self.log_label.removeprefix('train')}] e={self.clock.epoch}/{self.cfg.train.epochs} {text}"
            f"{' best' if is_best else ''}{f' (no gain for {stopping.patience} epochs: stop)' if stop else ''}"
        )
        return ValidationResult(figures, is_best)

    def _count_scaler_skips(self) -> None:
        # The scaler halves its scale with every step it skips; reading it waits for the device, so only while logging.
        if not self.parts.scaler.is_enabled():
            return
        scale = self.parts.scaler.get_scale()
        if scale < self._scale:
            skips = round(math.log2(self._scale / scale))
            self.clock.scaler_skips += skips
            self.context.logger.warning(
                "[%s] float16 overflowed: %d step(s) skipped, scale %g", self.log_label, skips, scale
            )
        self._scale = scale

    def _require_trained(self) -> None:
        self.log.flush(checkpoint=self.context.last_checkpoint)
        if self.log.epoch_loss.samples == 0:
            raise DataError(
                f"[{self.log_label}] none of the {self.clock.skipped} pictures of epoch {self.clock.epoch + 1} could "
                "be decoded; at least one is needed to train. Run `pillsnap data check` on the data set."
            )

    def _keeps(self, figures: dict[str, float], is_best: bool, *, is_tie: bool) -> bool:
        # A monitor that has reached 1.0 says nothing about the epochs after; without this the first of them would win.
        key, sign = self.tie_breaker
        value = sign * figures[key]
        if is_best or (is_tie and value > self.stopping["tie_breaker"]):
            self.stopping["tie_breaker"] = value
            return True
        return False

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Return the figures of the val split, and write them to TensorBoard."""

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on from here, as tensors and plain data."""
        self.log.flush(checkpoint=self.context.last_checkpoint)
        return {
            "task": self.name,
            "model_state": self.parts.model.state_dict(),
            "ema_state": None if self.parts.ema is None else self.parts.ema.module.state_dict(),
            "optimizer_state": self.parts.optimizer.state_dict(),
            "scheduler_state": scheduler_state(self.parts),
            "scaler_state": self.parts.scaler.state_dict(),
            "epoch": self.clock.epoch,
            "best_metric": self.stopping.get("best"),
            "clock": {**asdict(self.clock), "step_size": self._sampler.step_size},
            "history": self.history,
            "epoch_loss": asdict(self.log.epoch_loss),
            "stopping": {
                key: self.stopping[key] for key in ("best", "bad_epochs", "tie_breaker") if key in self.stopping
            },
            "identity": self.identity,
            **self.extras,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            CheckpointError: It belongs to another model or class map, or stands inside an epoch with other steps.
        """
        self._require_same_identity(state["identity"])
        clock = dict(state["clock"])
        step_size = clock.pop("step_size")
        if clock["step_in_epoch"] and step_size != self._sampler.step_size:
            raise CheckpointError(
                f"The checkpoint of {self.name} stands inside epoch {clock['epoch'] + 1} with {step_size} samples a "
                f"step; the configuration gives {self._sampler.step_size}. Resume with the same batch_size x "
                "grad_accum_steps, or start a new experiment in another paths.exp_dir."
            )
        self.parts.model.load_state_dict(state["model_state"])
        if self.parts.ema is not None:
            self.parts.ema.module.load_state_dict(state["ema_state"] or state["model_state"])
        restore_optimization(self.parts, state)
        self.clock = Clock(**clock)
        self.history = list(state["history"])
        self.log.epoch_loss = EpochLoss(**state["epoch_loss"])
        self.stopping = dict(state["stopping"])
        # Asked again of today's configuration: more patience lets a stopped task go on.
        patience = self.cfg.train.early_stopping.patience
        self.clock.is_stopped = self.stopping.get("bad_epochs", 0) >= patience

    def _require_same_identity(self, stored: dict[str, Any]) -> None:
        for key, mine in self.identity.items():
            if stored.get(key) != mine:
                raise CheckpointError(
                    f"The checkpoint of {self.name} has {key} = {stored.get(key)}, this run has {key} = {mine}. They "
                    "must agree to resume. Use the configuration and data of the first run, or another paths.exp_dir."
                )

    def _report_broken(self, broken: list[Broken]) -> None:
        self.clock.skipped += len(broken)
        for sample in broken:
            self.context.logger.warning("[%s] left out: %s", self.log_label, sample.reason)


def move(batch_images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy images to `device`; from page-locked memory without waiting."""
    return batch_images.to(device, non_blocking=True)
