"""What a task keeps between its steps, and how all of it goes into a checkpoint and comes out again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from omegaconf import DictConfig
from torch import nn

from pillsnap.config.loading import for_task
from pillsnap.cores import usable_cores
from pillsnap.data.batches import Batch, Broken
from pillsnap.data.loaders import Loader
from pillsnap.data.samplers import StepSampler
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.training.applied_cut import AppliedCut
from pillsnap.training.clock import Clock
from pillsnap.training.context import RunContext
from pillsnap.training.data_wait import DataWait, LoaderSetup
from pillsnap.training.judgement import Judgement
from pillsnap.training.optimstate import require_same_identity, restore_optimization, scheduler_state
from pillsnap.training.recovery import Cut, Recovery
from pillsnap.training.schedule import TaskName
from pillsnap.training.step import TrainingParts
from pillsnap.training.steplog import EpochLoss, StepLog

COMPILE_WARMUP_STEPS = 100


class TaskState:
    """One model being trained: its parts, its data, its clock. `Task` adds what is done with them."""

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
        stopping = self.cfg.train.early_stopping
        self.judgement = Judgement(stopping, stopping.monitor[self.name], self.tie_breaker)
        self._batches: Iterator[Batch | list[Broken]] | None = None
        self._before_fetch = replace(self.clock)
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
        self._applied = AppliedCut(parts, self.recovery.cut)
        self.val_cut = EvaluationCut(device, label=f"val{self.log_label.removeprefix('train')}", memory=context.memory)
        # UTL-9: left out of throughput figures.
        warmup_steps = 0 if self.cfg.optimization.torch_compile == "none" else COMPILE_WARMUP_STEPS
        self.log = StepLog(
            label=self.log_label,
            prefix=self.tb_prefix,
            epochs=self.cfg.train.epochs,
            device=device,
            logger=context.logger,
            tb=context.tb,
            step_log_interval=self.cfg.logging.step_log_interval,
            profile_interval=self.cfg.logging.profile_interval,
            warmup_steps=warmup_steps,
            data_wait=DataWait(
                self._loader_setup(),
                label=self.log_label,
                prefix=self.tb_prefix,
                logger=context.logger,
                tb=context.tb,
                decide=context.decide,
                warmup_steps=warmup_steps,
            ),
        )

    def _loader_setup(self) -> LoaderSetup:
        options, tasks = self.cfg.dataloader, self.cfg.train.tasks
        return LoaderSetup(
            num_workers=self.train_loader.num_workers,
            num_loaders=len(tasks) if self.cfg.train.strategy == "interleaved" else 1,
            num_cores=usable_cores(),
            prefetch_factor=options.prefetch_factor,
            cache_policy=options.ram_optimization.cache_policy,
            use_lmdb=options.ram_optimization.use_lmdb,
            augment_key=f"train.{self.name}.augment",
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

    def _schedule_position(self, clock: Clock) -> float:
        return clock.schedule_position(self.recovery.configured.step_size, self._sampler.num_used)

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
            "best_metric": self.judgement.best,
            "clock": asdict(self.clock),
            "recovery": self.recovery.state(),
            "samples_evaluated_at_once": self.val_cut.size,
            "history": self.history,
            "epoch_loss": asdict(self.log.epoch_loss),
            "stopping": self.judgement.state(),
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
        self._applied.note_scale()
        self.history = list(state["history"])
        self.log.epoch_loss = EpochLoss(**state["epoch_loss"])
        self.judgement.load_state(state["stopping"])
        self.clock.is_stopped = self.judgement.is_patience_over  # by today's patience: more lets a stopped task go on

    def _restore_cut(self, state: dict[str, Any]) -> None:
        if not self.recovery.load_state(state["recovery"]):
            self.context.logger.info(
                f"[{self.log_label}] micro-batches {self.recovery.cut} as configured today, unlike the checkpoint's"
            )
        self._applied.take_over(self.recovery.cut)
        self.val_cut.size = state["samples_evaluated_at_once"]
