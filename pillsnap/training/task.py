"""What both tasks have in common: samples from a loader, transactional steps, and validation.

The loop knows a task by five verbs: `next_samples`, `step`, `validate`, `state`, `load_state`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch

from pillsnap.data.batches import Batch, Broken
from pillsnap.data.damage import broken_in
from pillsnap.errors import DataError
from pillsnap.memory import MEMORY_ERRORS, describe_failure
from pillsnap.training.compilation import give_up_compilation
from pillsnap.training.feed import feed
from pillsnap.training.interrupt import CheckedLoader, is_dead_worker
from pillsnap.training.optim import advance_schedule
from pillsnap.training.recovery import Cut
from pillsnap.training.step import optimizer_step
from pillsnap.training.steplog import EpochLoss, StepReport
from pillsnap.training.task_state import TaskState


@dataclass
class ValidationResult:
    """The figures of one validation, and what early stopping made of them."""

    figures: dict[str, float]
    is_best: bool = field(default=False)


class Task(TaskState, ABC):
    """One model being trained, by the verbs the loop knows."""

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
        broken = broken_in(batch)
        self.clock.skipped += len(broken)
        self.context.note_broken(broken, self.name, self.log_label)
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
        advance_schedule(self.parts.scheduler, steps, self._applied.cut.lr_scale)
        self.clock.step += 1
        self.clock.samples += len(batch)
        self.recovery.after_success(self.clock.step)
        place = (self.clock.epoch, self.step_in_epoch, self.steps_per_epoch)
        self._applied.follow(self.recovery.cut)
        report = StepReport(*place, self.clock.step, loss, lr, batch.sample_ids, batch.load)
        self.log.record(report, checkpoint=self.context.last_checkpoint)
        if self.clock.step % self.cfg.logging.step_log_interval == 0:
            self._count_scaler_skips()
        return True

    def use_cut(self, cut: Cut) -> None:
        """Train with `cut` and evaluate as many samples at once from here on; both were found to fit."""
        self.recovery.use(cut)
        self.val_cut.size = cut.batch_size
        self._applied.follow(cut)
        self._batches = None

    def use_configured_cut(self) -> None:
        """Undo what recovery changed on what outlives the task: optimizer and loader."""
        self.recovery.cut = self.recovery.configured
        self._applied.follow(self.recovery.cut)
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
            self._batches = feed(iter(self.train_loader), self.parts.precision.device)
        return next(self._batches)

    def _optimize(self, batch: Batch) -> torch.Tensor | None:
        """Return the loss of the step; None when memory ran out and steps have another size from here on.

        Raises:
            OutOfMemoryFloorError: Nothing smaller is left to try.
        """
        while isinstance(outcome := self._attempt(batch), str):
            self.recovery.after_failure(outcome, self.clock.step + 1)
            if self._applied.follow(self.recovery.cut):
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

    def _rewind(self) -> None:
        """Put the clock back to before the samples that were fetched last."""
        self.clock = self._before_fetch
        self._batches = None

    def validate(self) -> ValidationResult:
        """Judge the model on the val split, end the epoch, and decide on best and on stopping (VAL-3)."""
        self._require_trained()
        figures = self.evaluate()
        stop, is_best = self.judgement.judge(figures)
        train_loss, self.log.epoch_loss = self.log.epoch_loss.mean(), EpochLoss()
        lr = float(self.parts.scheduler.get_last_lr()[0])
        epoch = {"epoch": self.clock.epoch + 1, "train_loss": train_loss, "lr": lr, **figures, "is_best": is_best}
        self.history.append(epoch)
        self.clock.epoch += 1
        self.clock.samples_in_epoch = 0
        self.clock.is_stopped = stop
        text = " ".join(f"{key}={value:.4f}" for key, value in figures.items() if isinstance(value, float))
        patience = self.cfg.train.early_stopping.patience
        self.context.logger.info(
            f"[val{self.log_label.removeprefix('train')}] e={self.clock.epoch}/{self.cfg.train.epochs} {text}"
            f"{' best' if is_best else ''}{f' (no gain for {patience} epochs: stop)' if stop else ''}"
        )
        return ValidationResult(figures, is_best)

    def _count_scaler_skips(self) -> None:
        skips = self._applied.count_skips()
        if skips:
            self.clock.scaler_skips += skips
            self.context.logger.warning(
                "[%s] float16 overflowed: %d step(s) skipped, scale %g", self.log_label, skips, self._applied.scale
            )

    def _require_trained(self) -> None:
        self.log.flush(checkpoint=self.context.last_checkpoint)
        if self.log.epoch_loss.samples == 0:
            raise DataError(
                f"[{self.log_label}] none of the {self.clock.skipped} pictures of epoch {self.clock.epoch + 1} could "
                "be decoded; at least one is needed to train. Run `pillsnap data check` on the data set."
            )

    def validation_batches(self) -> CheckedLoader:
        """Return the val split's batches; broken pictures among them are counted, and a stop asked for is heeded."""
        assert self.val_loader is not None
        label = f"val{self.log_label.removeprefix('train')}"
        return CheckedLoader(
            self.val_loader, self.context.stop, lambda broken: self.context.note_broken(broken, self.name, label)
        )

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Return the figures of the val split, and write them to TensorBoard."""


def move(batch_images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy images to `device`; from page-locked memory without waiting."""
    return batch_images.to(device, non_blocking=True)
