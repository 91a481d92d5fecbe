"""The story of a run: data, models, steps, figures, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn

from pillsnap.config.loading import config_snapshot
from pillsnap.data.loaders import LOG_FILE, TwoStageLoaders, build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.data.twostage import FINAL_STAGE, TwoStageData, load_data, require_experiment_apart
from pillsnap.data.yolo_export import export_yolo
from pillsnap.errors import CheckpointError, InterruptedRunError, OutOfMemoryFloorError
from pillsnap.evaluation.experiment import SplitEvaluation
from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_history import plot_history
from pillsnap.evaluation.report import write_report
from pillsnap.memory import MEMORY_ERRORS, DeviceMemory, describe_failure, free_memory
from pillsnap.training.auto_batch import tune_batch_sizes
from pillsnap.training.build import build_classifier, build_detector, build_tasks
from pillsnap.training.context import RunContext
from pillsnap.training.experiment import Experiment, checkpoint_extras
from pillsnap.training.interrupt import StopRequest, stop_on_signals
from pillsnap.training.loop import LoopState, Turns, left_out_of_garbage_collection, train
from pillsnap.training.precision import select_device
from pillsnap.training.progress import run_progress
from pillsnap.training.reproducibility import set_rng_state, set_seed
from pillsnap.training.schedule import CLASSIFICATION, DETECTION
from pillsnap.training.task import Task, ValidationResult
from pillsnap.training.telemetry import TBWriter, build_logger
from pillsnap.training.time_cap import (
    SECONDS_AN_HOUR,
    TimeCapVerdict,
    current_stage,
    gather_evidence,
    judge_time_cap,
    limit_s,
    no_success,
    stage_key,
)
from pillsnap.training.watchdog import StallWatchdog

logger = logging.getLogger("pillsnap")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run leaves behind."""

    exp_dir: Path
    figures: dict[str, Any]
    """Of the best models on the test split (stage 4) or the val split; `split` says which."""
    seconds: float
    report_path: Path
    metrics_path: Path


def run_training(cfg: DictConfig) -> RunResult:
    """Train what `cfg.train.tasks` names, judge the best models, and write the report.

    Raises:
        GateError: The stage's time limit ended the run, and what it has reached by then is no success.
        PillError: Anything the user can mend; its `exit_code` is the command's.
    """
    started = time.monotonic()
    _prepare_data(cfg)
    run = Run.open(cfg)
    # Before and after the steps there is nothing to save: Ctrl-C then ends the program as usual.
    with stop_on_signals() as stop, TBWriter(run.experiment.dir) as tb, run.memory.enforced():
        run.train(tb, stop)
    return run.finish(started)


def _prepare_data(cfg: DictConfig) -> None:
    """Draw the synthetic data set where one is asked for; a missing data set is reported before any folder is made."""
    if cfg.data.synthetic is not None:
        draw_dataset(Path(cfg.data.root), SyntheticSpec(**cfg.data.synthetic))
    require_experiment_apart(cfg)


@dataclass
class Run:
    """A run under way."""

    cfg: DictConfig
    experiment: Experiment
    data: TwoStageData
    memory: DeviceMemory
    tasks: list[Task]
    loop: LoopState
    saved_at_s: float = 0.0
    """`loop.seconds` at the newest checkpoint."""
    is_capped: bool = False
    """The stage's time limit ended training before its last step."""

    @classmethod
    def open(cls, cfg: DictConfig) -> Run:
        """Open the experiment and read the data."""
        experiment = Experiment.open(cfg)
        build_logger(experiment.dir)
        set_seed(cfg.train.seed, cfg.train.deterministic)
        device = select_device()
        logger.info("experiment %s, device %s, tasks %s", experiment.dir, device, ", ".join(cfg.train.tasks))
        data = load_data(cfg)
        logger.info("data %s: %s, %d classes", data.root, data.counts(), len(data.class_map))
        memory = DeviceMemory(device, cfg.hardware.gpu_memory_limit_gb)
        return cls(cfg, experiment, data, memory, [], LoopState())

    def train(self, tb: TBWriter, stop: StopRequest) -> None:
        """Train to the end or to the stage's time limit; save and raise when asked to stop or out of memory."""
        self._prepare(tb, stop)
        options = self.cfg.train
        turns = Turns(options.strategy, options.interleave_ratio, limit_s(current_stage(self.cfg)))
        watchdog = StallWatchdog(options.stall_minutes, self.experiment.dir / LOG_FILE)
        stop.on_check = watchdog.beat
        with run_progress(self.tasks) as progress, watchdog, left_out_of_garbage_collection():

            def after_step(task: Task) -> None:
                progress.update(task)
                watchdog.beat(f"{task.name} step {task.clock.step}")
                self._save_if_due()

            failure: InterruptedRunError | OutOfMemoryFloorError | None = None
            try:
                is_over = train(self.tasks, turns, self.loop, stop, on_epoch=self._after_epoch, on_step=after_step)
                if not is_over:
                    self._end_at_time_limit(stop)
            except (InterruptedRunError, OutOfMemoryFloorError) as error:
                failure = error
            except MEMORY_ERRORS as error:
                if not self.memory.is_exhausted_by(error):
                    raise
                failure = OutOfMemoryFloorError(f"Memory ran out beside the steps: {describe_failure(error)}.")
            if failure is not None:
                self._save_and_leave(failure)
        if is_over:
            self._save(best=(), is_completed=True)

    def _save_and_leave(self, failure: InterruptedRunError | OutOfMemoryFloorError) -> NoReturn:
        """Save what there is; every task stands between two steps. Called when the failure's tensors are gone."""
        failure.__traceback__ = None  # its frames keep loaders, and so their workers, alive
        for task in self.tasks:
            task.stop_loading()
        free_memory()
        self._save(best=())
        raise type(failure)(
            f"{failure} The state was saved in {self.experiment.store.dir}; go on from there with train.resume=last."
        ) from failure

    def finish(self, started: float) -> RunResult:
        """Judge the best models, write figures, pictures and the report.

        Raises:
            GateError: The time limit ended the run, and it is no success; everything was written first.
        """
        # A capped run can go on with a longer limit: its training is not over, so the test split stays sealed.
        is_test_due = self.cfg.data.progressive_validation.current_stage == FINAL_STAGE and not self.is_capped
        split = "test" if is_test_due and np.any(self.data.split == "test") else "val"
        self.data.is_test_open = is_test_due
        for task in self.tasks:
            task.leave_device()
        free_memory()
        with self._limit_of_a_card():
            figures = self._evaluate(split)
        metrics_path = self._write_metrics(figures if split == "test" else None)
        if any(self._history().values()):
            plot_history(self._history(), self.experiment.dir / "reports" / "history.png")
        verdict = self._judge_time_cap(figures) if self.is_capped else None
        seconds = time.monotonic() - started
        self.experiment.write_facts(
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            device=str(self.memory.device),
            data={"counts": self.data.counts(), "classes": len(self.data.class_map)},
            evaluation=figures,
            tasks={task.name: _task_facts(task) for task in self.tasks},
            **({} if verdict is None else {"time_cap": verdict.to_dict()}),
        )
        report_path = write_report(self.experiment.dir)
        if verdict is not None and not verdict.is_success:
            raise no_success(self.cfg, verdict, report_path)
        return RunResult(self.experiment.dir, figures, seconds, report_path, metrics_path)

    def _prepare(self, tb: TBWriter, stop: StopRequest) -> None:
        """Build the tasks, bring them to where training goes on, and record what the run starts from."""
        models, spec = self._models()
        loaders = build_loaders(self.data, self.cfg, spec)
        last_checkpoint = str(self.experiment.store.dir / "manifest.json")
        context = RunContext(logger, tb, stop, last_checkpoint, self.memory, self.experiment.decide)
        self.tasks = build_tasks(self.cfg, models, loaders, context, self.memory.device)
        self._resume()
        self.data.is_test_open = self.data.is_test_open and all(task.is_finished for task in self.tasks)
        self.experiment.write_inputs(self.cfg, self.data.class_map)
        self._link_detection_data(loaders)
        tune_batch_sizes(self.tasks, context, skip=[task.name for task in self.tasks if task.recovery.is_restored])

    def _models(self) -> tuple[dict[str, nn.Module], ClassifierInput | None]:
        models: dict[str, nn.Module] = {}
        spec = None
        if CLASSIFICATION in self.cfg.train.tasks:
            models[CLASSIFICATION], spec = build_classifier(self.cfg, len(self.data.class_map))
        if DETECTION in self.cfg.train.tasks:
            models[DETECTION] = build_detector(self.cfg)
        return models, spec

    def _resume(self) -> None:
        if self.cfg.train.resume is None:
            return
        found = self.experiment.store.load_last()
        if found is None:
            logger.warning("train.resume=last, but %s holds no checkpoint: starting anew", self.experiment.store.dir)
            return
        self.loop = LoopState(found.loop_step, found.loop_seconds)
        self.saved_at_s = found.loop_seconds
        for task in self.tasks:
            if task.name in found.states:
                task.load_state(found.states[task.name])
                set_rng_state(found.states[task.name]["rng"])
            logger.info("[%s] goes on at epoch %d, step %d", task.name, task.clock.epoch + 1, task.clock.step)
        self.experiment.decide("resume", "start", f"global step {self.loop.step}", "train.resume=last")

    def _after_epoch(self, task: Task, result: ValidationResult) -> None:
        self._save(best=(task.name,) if result.is_best else ())
        self._write_metrics(None)

    def _save_if_due(self) -> None:
        minutes = self.cfg.train.checkpoint_minutes
        if minutes and self.loop.seconds - self.saved_at_s >= minutes * 60:
            self._save(best=())
            logger.info("saved inside the epoch, at global step %d", self.loop.step)

    def _save(self, *, best: Collection[str], is_completed: bool = False) -> None:
        extras = checkpoint_extras(config_snapshot(self.cfg), self.data.class_map.to_dict())
        states: dict[str, dict[str, Any]] = {task.name: {**task.state(), **extras} for task in self.tasks}
        self.experiment.store.save(
            states, best=best, loop_step=self.loop.step, loop_seconds=self.loop.seconds, is_completed=is_completed
        )
        self.saved_at_s = self.loop.seconds

    def _end_at_time_limit(self, stop: StopRequest) -> None:
        """Save, then judge the models that no validation has judged yet and keep them as the best there are.

        Their clocks stay where they are: with a longer limit the run goes on as if it had not been judged here.
        """
        self.is_capped = True
        hours = self.loop.seconds / SECONDS_AN_HOUR
        logger.info("the time limit of the stage ends training after %.2f hours (%s)", hours, stage_key(self.cfg))
        self._save(best=())
        judged = []
        for task in self.tasks:
            if task.clock.step == 0:
                logger.warning("[%s] took no step before the time limit: there is no model to judge", task.log_label)
            elif not task.history:
                with stop.excusing_dead_workers():
                    task.evaluate()
                judged.append(task.name)
        if judged:
            self._save(best=judged)

    def _limit_of_a_card(self) -> AbstractContextManager[None]:
        # Without a GPU the limit would hit plots and pages too, which take no part of a card's memory.
        return self.memory.enforced() if self.memory.is_cuda else nullcontext()

    def _evaluate(self, split: str) -> dict[str, Any]:
        """Judge the best models on `split`; after a time limit, a model that is not there or broken is a finding."""
        if not self.is_capped:
            return SplitEvaluation(self.cfg, self.data, self.experiment.dir, self.memory.device).run(split)
        cfg = OmegaConf.create(config_snapshot(self.cfg))
        cfg.train.tasks = [task.name for task in self.tasks if task.clock.step > 0]
        try:
            return SplitEvaluation(cfg, self.data, self.experiment.dir, self.memory.device).run(split)
        except CheckpointError as error:
            logger.error("%s", error)
            return {"split": split}

    def _judge_time_cap(self, figures: dict[str, Any]) -> TimeCapVerdict:
        verdict = judge_time_cap(current_stage(self.cfg), gather_evidence(self.tasks, self.loop.seconds, figures))
        outcome = "success" if verdict.is_success else "no success"
        why = verdict.failures() or "every check of the stage holds"
        self.experiment.decide("time cap", "training", outcome, why)
        logger.info("ended by the time limit: %s (%s)", outcome, why)
        return verdict

    def _history(self) -> dict[str, list[dict[str, Any]]]:
        return {task.name: task.history for task in self.tasks}

    def _write_metrics(self, test: dict[str, Any] | None) -> Path:
        metrics: dict[str, Any] = {"history": self._history()}
        if test is not None:
            metrics["test"] = test
        return dump_metrics_json(metrics, self.experiment.dir / "reports" / "metrics.json")

    def _link_detection_data(self, loaders: TwoStageLoaders) -> None:
        """Lay the detector's data out as a YOLO data set of links, for other tools to train on the very same split."""
        if loaders.det_train is None:
            return
        images = self.cfg.data.detection.images
        rows = {split: self.data.labelled_rows(split, images) for split in ("train", "val")}
        export_yolo(self.data.records, rows, self.data.root, self.experiment.dir / "detection_data")


def _task_facts(task: Task) -> dict[str, Any]:
    totals = task.log.totals
    return {
        "epochs": task.clock.epoch,
        "steps": task.clock.step,
        "samples": task.clock.samples,
        "skipped": task.clock.skipped,
        "stopped_early": task.clock.is_stopped,
        "best": task.stopping.get("best"),
        "throughput": totals.throughput(),
        "data_wait_share": totals.data_wait_share(),
    }
