"""What both tasks have in common: a clock, samples from a loader, transactional steps, validation, and their state.

The loop knows a task by five verbs: `next_samples`, `step`, `validate`, `state`, `load_state`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from pillsnap.config.loading import for_task
from pillsnap.data.batches import Batch, Broken
from pillsnap.data.loaders import Loader, StepSampler
from pillsnap.errors import DataError
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.memory import MEMORY_ERRORS, describe_failure
from pillsnap.training.clock import Clock
from pillsnap.training.compilation import give_up_compilation
from pillsnap.training.context import RunContext
from pillsnap.training.early_stopping import early_stopping
from pillsnap.training.interrupt import is_dead_worker
from pillsnap.training.optim import advance_schedule, scale_learning_rate
from pillsnap.training.optimstate import require_same_identity, restore_optimization, scheduler_state
from pillsnap.training.recovery import Cut, Recovery
from pillsnap.training.schedule import TaskName
from pillsnap.training.step import TrainingParts, optimizer_step
from pillsnap.training.steplog import EpochLoss, StepLog, StepReport

STOPPING_KEYS = ("best", "bad_epochs", "tie_breaker")
COMPILE_WARMUP_STEPS = 100  # UTL-9: left out of throughput figures when torch.compile is on


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
        self._before_fetch = replace(self.clock)
        self._scale = parts.scaler.get_scale()
        device = parts.precision.device
        self.recovery = Recovery(
            self.cfg,
            cut=Cut(self.cfg.train.batch_size, self.cfg.train.grad_accum_steps),
            # A CPU emulates float16: slower, and little is saved.
            is_16bit=parts.precision.is_amp or device.type != "cuda",
            label=self.log_label,
            prefix=self.tb_prefix,
            logger=context.logger,
            tb=context.tb,
            decide=context.decide,
        )
        self._applied = self.recovery.cut
        self._weight_decays = [group["weight_decay"] for group in parts.optimizer.param_groups]
        self.val_cut = EvaluationCut(device, label=f"val{self.log_label.removeprefix('train')}", memory=context.memory)
        is_compiled = self.cfg.optimization.torch_compile != "none"
        self.log = StepLog(
            label=self.log_label,
            prefix=self.tb_prefix,
            epochs=self.cfg.train.epochs,
            device=device,
            logger=context.logger,
            tb=context.tb,
            step_log_interval=self.cfg.logging.step_log_interval,
            profile_interval=self.cfg.logging.profile_interval,
            warmup_steps=COMPILE_WARMUP_STEPS if is_compiled else 0,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps a whole epoch takes at today's step size."""
        return len(self._sampler)

    @property
    def step_in_epoch(self) -> int:
        """Steps of the current epoch that are used up, at today's step size."""
        return math.ceil(min(self.clock.samples_in_epoch, self._sampler.num_used) / self._sampler.step_size)

    @property
    def is_epoch_done(self) -> bool:
        """Whether every sample of the epoch was used, so that validation is due."""
        return self.clock.samples_in_epoch >= self._sampler.num_used

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
        """Return the samples of the next step; None when not one of them could be decoded.

        Raises:
            OutOfMemoryFloorError: Loading them ran out of memory again and again.
        """
        if self.clock.samples_in_epoch == 0:
            self.context.watch_memory(self.recovery.cut, self.clock.epoch, self.log_label, self.tb_prefix)
        self._before_fetch = replace(self.clock)
        with self.log.timer.data():
            batch = self._fetch()
        sampler = self._sampler
        self.clock.samples_in_epoch = min(self.clock.samples_in_epoch + sampler.step_size, sampler.num_used)
        if self.is_epoch_done:
            self._batches = None
        broken = batch if isinstance(batch, list) else batch.broken
        self._report_broken(broken)
        if isinstance(batch, list):
            self.log.timer.forget_last_wait()
            return None
        return batch

    def step(self, batch: Batch) -> bool:
        """Do one optimizer step over `batch` and report it; when memory runs out, do it again in smaller pieces.

        Returns:
            Whether it was done. False: it did not fit, steps have another size from here on, and the clock stands
            before these samples, which are to be fetched again.

        Raises:
            OutOfMemoryFloorError: Nothing smaller is left to try; the clock stands before these samples.
        """
        lr = float(self.parts.scheduler.get_last_lr()[0])
        loss = None
        try:
            loss = self._optimize(batch)
        finally:
            if loss is None:  # nothing was trained, whatever the reason, so nothing was used up
                self._rewind()
        if loss is None:
            self.log.timer.forget_last_wait()
            return False
        steps = self._schedule_position(self.clock) - self._schedule_position(self._before_fetch)
        advance_schedule(self.parts.scheduler, steps, self._applied.lr_scale)
        self.clock.step += 1
        self.clock.samples += len(batch)
        self.recovery.after_success(self.clock.step)
        place = (self.clock.epoch, self.step_in_epoch, self.steps_per_epoch)
        self._apply_cut()
        report = StepReport(*place, self.clock.step, loss, lr, batch.sample_ids)
        self.log.record(report, checkpoint=self.context.last_checkpoint)
        if self.clock.step % self.cfg.logging.step_log_interval == 0:
            self._count_scaler_skips()
        return True

    def use_cut(self, cut: Cut) -> None:
        """Train with `cut` and evaluate as many samples at once from here on; both were found to fit."""
        self.recovery.use(cut)
        self.val_cut.size = cut.batch_size
        self._apply_cut()
        self._batches = None

    def use_configured_cut(self) -> None:
        """Undo what recovery changed on what outlives the task: optimizer and loader."""
        self.recovery.cut = self.recovery.configured
        self._apply_cut()
        self._sampler.step_size = self.recovery.cut.step_size

    def stop_loading(self) -> None:
        """End the workers of the training loader; left to Python's exit, their death would be reported as an error."""
        self._batches = None
        self.train_loader._iterator = None

    def leave_device(self) -> None:
        """Give the device's memory and the workers back when training is over."""
        self.stop_loading()
        self.parts.optimizer.zero_grad(set_to_none=True)
        self.parts.optimizer.state.clear()
        self.parts.model.cpu()
        if self.parts.ema is not None:
            self.parts.ema.module.cpu()

    def _fetch(self) -> Batch | list[Broken]:
        failures = 0
        while True:
            try:
                return self._next_batch()
            except MEMORY_ERRORS as error:
                if not self.context.memory.is_exhausted_by(error):
                    raise
                failure = describe_failure(error)
            self._batches = None
            self.train_loader._iterator = None  # persistent workers that failed half-way cannot be asked again
            failures += 1
            self.recovery.after_fetch_failure(failure, self.clock.step + 1, failures)

    def _next_batch(self) -> Batch | list[Broken]:
        if self._batches is None:
            step_size = self.recovery.cut.step_size
            self._sampler.set_position(self.clock.epoch, self.clock.samples_in_epoch, step_size=step_size)
            self._batches = iter(self.train_loader)
        return next(self._batches)

    def _optimize(self, batch: Batch) -> torch.Tensor | None:
        """Return the loss of the step; None when memory ran out and steps have another size from here on.

        Raises:
            OutOfMemoryFloorError: Nothing smaller is left to try.
        """
        while isinstance(outcome := self._attempt(batch), str):
            self.recovery.after_failure(outcome, self.clock.step + 1)
            if self._apply_cut():
                return None
        return outcome

    def _attempt(self, batch: Batch) -> torch.Tensor | str:
        """Return the loss of the step, or how memory ran out; by then nothing of the step is left."""
        train = self.cfg.train
        try:
            with self.log.timer.compute():
                return optimizer_step(
                    self.parts,
                    batch,
                    micro_batch=self.recovery.cut.batch_size,
                    grad_clip=train.grad_clip,
                    zero_grad_set_to_none=train.zero_grad_set_to_none,
                    seeds=(train.seed, self.name, self.clock.step),
                )
        except MEMORY_ERRORS as error:
            if self.context.memory.is_exhausted_by(error):
                return describe_failure(error)
            if is_dead_worker(error) or not give_up_compilation(self.parts.model, error):
                raise
        return self._attempt(batch)

    def _apply_cut(self) -> bool:
        """Bring precision, learning rate and weight decay to the cut; tell whether steps have another size now."""
        before, cut = self._applied, self.recovery.cut
        if cut.is_fp16 and not before.is_fp16:
            self._switch_to_fp16()
        scale_learning_rate(self.parts.scheduler, cut.lr_scale / before.lr_scale)
        for group, configured in zip(self.parts.optimizer.param_groups, self._weight_decays, strict=True):
            group["weight_decay"] = configured * cut.wd_scale
        self._applied = cut
        return cut.step_size != before.step_size

    def _switch_to_fp16(self) -> None:
        self.parts.precision = replace(self.parts.precision, is_amp=True, dtype=torch.float16)
        self.parts.scaler = self.parts.precision.build_scaler()
        self._scale = self.parts.scaler.get_scale()

    def _rewind(self) -> None:
        """Put the clock back to before the samples that were fetched last."""
        self.clock = self._before_fetch
        self._batches = None

    def _schedule_position(self, clock: Clock) -> float:
        return clock.schedule_position(self.recovery.configured.step_size, self._sampler.num_used)

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
        self.clock.samples_in_epoch = 0
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
            "clock": asdict(self.clock),
            "recovery": self.recovery.state(),
            "samples_evaluated_at_once": self.val_cut.size,
            "history": self.history,
            "epoch_loss": asdict(self.log.epoch_loss),
            "stopping": {key: self.stopping[key] for key in STOPPING_KEYS if key in self.stopping},
            "identity": self.identity,
            **self.extras,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            CheckpointError: It belongs to another model, class map, seed or data split.
        """
        require_same_identity(self.name, state["identity"], self.identity)
        self.clock = Clock(**state["clock"])
        self._restore_cut(state)
        self.parts.model.load_state_dict(state["model_state"])
        if self.parts.ema is not None:
            self.parts.ema.module.load_state_dict(state["ema_state"] or state["model_state"])
        # With another step size than the checkpoint's, its schedule counted other steps than today's.
        stored, cut = Cut(**state["recovery"]["configured"]), self.recovery.cut
        is_same_size = stored.step_size == self.recovery.configured.step_size
        position = None if is_same_size else self._schedule_position(self.clock)
        restore_optimization(self.parts, state, lr_scale=cut.lr_scale, wd_scale=cut.wd_scale, position=position)
        self._scale = self.parts.scaler.get_scale()
        self.history = list(state["history"])
        self.log.epoch_loss = EpochLoss(**state["epoch_loss"])
        self.stopping = dict(state["stopping"])
        # Asked again of today's configuration: more patience lets a stopped task go on.
        patience = self.cfg.train.early_stopping.patience
        self.clock.is_stopped = self.stopping.get("bad_epochs", 0) >= patience

    def _restore_cut(self, state: dict[str, Any]) -> None:
        if not self.recovery.load_state(state["recovery"]):
            self.context.logger.info(
                f"[{self.log_label}] micro-batches {self.recovery.cut} as configured today, unlike the checkpoint's"
            )
        self._applied = self.recovery.cut
        if self._applied.is_fp16:
            self._switch_to_fp16()
        self.val_cut.size = state["samples_evaluated_at_once"]

    def _report_broken(self, broken: list[Broken]) -> None:
        self.clock.skipped += len(broken)
        for sample in broken:
            self.context.logger.warning("[%s] left out: %s", self.log_label, sample.reason)


def move(batch_images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy images to `device`; from page-locked memory without waiting."""
    return batch_images.to(device, non_blocking=True)
