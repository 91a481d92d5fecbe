"""The story of a run: data, models, steps, figures, report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from pillsnap.config.loading import config_snapshot
from pillsnap.data.loaders import TwoStageLoaders, build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.data.twostage import FINAL_STAGE, TwoStageData, load_data, require_experiment_apart
from pillsnap.data.yolo_export import export_yolo
from pillsnap.errors import InterruptedRunError
from pillsnap.evaluation.experiment import SplitEvaluation
from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_history import plot_history
from pillsnap.evaluation.report import write_report
from pillsnap.training.build import build_classifier, build_detector, build_tasks
from pillsnap.training.experiment import Experiment, checkpoint_extras
from pillsnap.training.interrupt import StopRequest, stop_on_signals
from pillsnap.training.loop import LoopState, Turns, train
from pillsnap.training.precision import select_device
from pillsnap.training.progress import run_progress
from pillsnap.training.reproducibility import set_rng_state, set_seed
from pillsnap.training.schedule import CLASSIFICATION, DETECTION
from pillsnap.training.task import RunContext, Task, ValidationResult
from pillsnap.training.telemetry import TBWriter, build_logger

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
        PillError: Anything the user can mend; its `exit_code` is the command's.
    """
    started = time.monotonic()
    _prepare_data(cfg)
    run = Run.open(cfg)
    # Before and after the steps there is nothing to save: Ctrl-C then ends the program as usual.
    with stop_on_signals() as stop, TBWriter(run.experiment.dir) as tb:
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
    device: torch.device
    tasks: list[Task]
    loop: LoopState

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
        return cls(cfg, experiment, data, device, [], LoopState())

    def train(self, tb: TBWriter, stop: StopRequest) -> None:
        """Train to the end, or save and raise when asked to stop."""
        cfg = self.cfg
        models, spec = self._models()
        loaders = build_loaders(self.data, cfg, spec)
        context = RunContext(logger, tb, stop, str(self.experiment.store.dir / "manifest.json"))
        self.tasks = build_tasks(cfg, models, loaders, context, self.device)
        self._resume()
        self.data.is_test_open = self.data.is_test_open and all(task.is_finished for task in self.tasks)
        self.experiment.write_inputs(cfg, self.data.class_map)
        self._link_detection_data(loaders)
        turns = Turns(cfg.train.strategy, cfg.train.interleave_ratio)
        with run_progress(self.tasks) as progress:
            try:
                train(self.tasks, turns, self.loop, stop, on_epoch=self._after_epoch, on_step=progress.update)
            except InterruptedRunError as error:
                self._save(best=())
                raise InterruptedRunError(
                    f"{error} Its state was saved in {self.experiment.store.dir}; go on with the same command and "
                    "train.resume=last."
                ) from error
        self._save(best=(), is_completed=True)

    def finish(self, started: float) -> RunResult:
        """Judge the best models, write figures, pictures and the report."""
        stage = self.cfg.data.progressive_validation.current_stage
        split = "test" if stage == FINAL_STAGE and np.any(self.data.split == "test") else "val"
        self.data.is_test_open = stage == FINAL_STAGE
        figures = SplitEvaluation(self.cfg, self.data, self.experiment.dir, self.device).run(split)
        metrics_path = self._write_metrics(figures if split == "test" else None)
        plot_history(self._history(), self.experiment.dir / "reports" / "history.png")
        seconds = time.monotonic() - started
        self.experiment.write_facts(
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            device=str(self.device),
            data={"counts": self.data.counts(), "classes": len(self.data.class_map)},
            evaluation=figures,
            tasks={task.name: _task_facts(task) for task in self.tasks},
        )
        report_path = write_report(self.experiment.dir)
        return RunResult(self.experiment.dir, figures, seconds, report_path, metrics_path)

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
        states, self.loop.step = found
        for task in self.tasks:
            if task.name in states:
                task.load_state(states[task.name])
                set_rng_state(states[task.name]["rng"])
            logger.info("[%s] goes on at epoch %d, step %d", task.name, task.clock.epoch + 1, task.clock.step)
        self.experiment.decide("resume", "start", f"global step {self.loop.step}", "train.resume=last")

    def _after_epoch(self, task: Task, result: ValidationResult) -> None:
        self._save(best=(task.name,) if result.is_best else ())
        self._write_metrics(None)

    def _save(self, *, best: tuple[str, ...], is_completed: bool = False) -> None:
        extras = checkpoint_extras(config_snapshot(self.cfg), self.data.class_map.to_dict())
        states: dict[str, dict[str, Any]] = {task.name: {**task.state(), **extras} for task in self.tasks}
        self.experiment.store.save(states, best=best, loop_step=self.loop.step, is_completed=is_completed)

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
