"""The story of a run: data, models, steps, figures, report."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig
from torch import nn

from pillsnap.config.loading import config_snapshot
from pillsnap.config.stage_overrides import apply_stage_settings
from pillsnap.cores import usable_cores
from pillsnap.data.damage import Damage
from pillsnap.data.leakage import check_leakage
from pillsnap.data.loaders import LOG_FILE, TwoStageLoaders, build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.ram_plan import RamPlan
from pillsnap.data.selection_file import CSV_NAME, write_selection
from pillsnap.data.stores import Stores
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.data.twostage import TwoStageData, load_data, require_experiment_apart
from pillsnap.data.yolo_export import export_yolo
from pillsnap.errors import InterruptedRunError, OutOfMemoryFloorError, TooMuchDamageError
from pillsnap.memory import MEMORY_ERRORS, DeviceMemory, describe_failure, free_memory
from pillsnap.training.auto_batch import tune_batch_sizes
from pillsnap.training.build import build_classifier, build_detector, build_tasks
from pillsnap.training.context import RunContext
from pillsnap.training.ending import Ending, RunResult, write_metrics
from pillsnap.training.experiment import Experiment, checkpoint_extras
from pillsnap.training.interrupt import StopRequest, stop_on_signals
from pillsnap.training.loop import LoopState, Turns, left_out_of_garbage_collection, train
from pillsnap.training.memory_plan import plan_memory
from pillsnap.training.precision import select_device
from pillsnap.training.progress import run_progress
from pillsnap.training.reproducibility import set_rng_state, set_seed
from pillsnap.training.schedule import CLASSIFICATION, DETECTION
from pillsnap.training.task import Task, ValidationResult
from pillsnap.training.telemetry import TBWriter, build_logger
from pillsnap.training.time_cap import (
    SECONDS_AN_HOUR,
    current_stage,
    limit_s,
    stage_key,
)
from pillsnap.training.watchdog import StallWatchdog
from pillsnap.training.worker_tuning import candidates_of, with_tuned_workers

logger = logging.getLogger("pillsnap")

Ended = InterruptedRunError | OutOfMemoryFloorError | TooMuchDamageError
"""What ends a run between two steps, so that it can be gone on with from there."""
ENDED = (InterruptedRunError, OutOfMemoryFloorError, TooMuchDamageError)


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
    try:
        with stop_on_signals() as stop, TBWriter(run.experiment.dir) as tb, run.memory.enforced():
            run.train(tb, stop)
        return run.finish(started)
    finally:
        run.stores.close()


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
    damage: Damage
    tasks: list[Task]
    loop: LoopState
    saved_at_s: float = 0.0
    """`loop.seconds` at the newest checkpoint."""
    is_capped: bool = False
    """The stage's time limit ended training before its last step."""
    stores: Stores = field(default_factory=Stores.none)
    """Where decoded pictures are kept."""

    @classmethod
    def open(cls, cfg: DictConfig) -> Run:
        """Open the experiment and read the data.

        Raises:
            TooMuchDamageError: More files than `data.max_corruption` allows are seen to be damaged without decoding.
            DataError: The data set cannot be trained on, or pictures lie on two sides of its split.
        """
        experiment = Experiment.open(cfg)
        build_logger(experiment.dir)
        cfg = apply_stage_settings(cfg)
        set_seed(cfg.train.seed, cfg.train.deterministic)
        device = select_device()
        logger.info("experiment %s, device %s, tasks %s", experiment.dir, device, ", ".join(cfg.train.tasks))
        data = load_data(cfg)
        logger.info("data %s: %s, %d classes", data.root, data.counts(), len(data.class_map))
        damage = Damage(data.root, len(data.records), cfg.data.max_corruption, num_indexed=data.num_indexed)
        damage.note_index(data.problems)
        damage.require_little(experiment.dir)
        check_leakage(data, cfg, experiment.dir)
        memory = DeviceMemory(device, cfg.hardware.gpu_memory_limit_gb)
        return cls(cfg, experiment, data, memory, damage, [], LoopState())

    def train(self, tb: TBWriter, stop: StopRequest) -> None:
        """Train to the end or to the stage's time limit; save and raise when asked to stop or when it cannot go on."""
        self._prepare(tb, stop)
        options = self.cfg.train
        turns = Turns(options.strategy, options.interleave_ratio, limit_s(current_stage(self.cfg)))
        watchdog = StallWatchdog(options.stall_minutes, self.experiment.dir / LOG_FILE)
        stop.on_check = watchdog.beat
        with run_progress(self.tasks) as progress, watchdog, left_out_of_garbage_collection():

            def after_step(task: Task) -> None:
                progress.update(task)
                watchdog.beat(f"{task.name} step {task.clock.step}")
                self.damage.require_little(self.experiment.dir)
                self._save_if_due()

            failure: Ended | None = None
            try:
                is_over = train(self.tasks, turns, self.loop, stop, on_epoch=self._after_epoch, on_step=after_step)
                if not is_over:
                    self._end_at_time_limit(stop)
            except ENDED as error:
                failure = error
            except MEMORY_ERRORS as error:
                if not self.memory.is_exhausted_by(error):
                    raise
                failure = OutOfMemoryFloorError(f"Memory ran out beside the steps: {describe_failure(error)}.")
            if failure is not None:
                self._save_and_leave(failure)
        if is_over:
            self._save(best=(), is_completed=True)

    def _save_and_leave(self, failure: Ended) -> NoReturn:
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
        self.experiment.facts["pixel_stores"] = self.stores.counts()
        ending = Ending(
            self.cfg,
            self.experiment,
            self.data,
            self.memory,
            self.damage,
            self.tasks,
            self.loop.seconds,
            is_capped=self.is_capped,
        )
        return ending.run(started)

    def _prepare(self, tb: TBWriter, stop: StopRequest) -> None:
        """Build the tasks, bring them to where training goes on, and record what the run starts from."""
        models, spec = self._models()
        last_checkpoint = str(self.experiment.store.dir / "manifest.json")
        context = RunContext(logger, tb, stop, last_checkpoint, self.memory, self.experiment.decide, self.damage)
        loaders = self._loaders(spec, context)
        self.tasks = build_tasks(self.cfg, models, loaders, context, self.memory.device)
        self._resume()
        self.damage.require_little(self.experiment.dir)
        self.data.is_test_open = self.data.is_test_open and all(task.is_finished for task in self.tasks)
        self.experiment.write_inputs(self.cfg, self.data.class_map)
        self.experiment.facts["selection"] = write_selection(self.data, self.cfg, self.experiment.dir / CSV_NAME)
        self._link_detection_data(loaders)
        tune_batch_sizes(self.tasks, context, skip=[task.name for task in self.tasks if task.recovery.is_restored])

    def _loaders(self, spec: ClassifierInput | None, context: RunContext) -> TwoStageLoaders:
        """Return the loaders, with the number of workers that was found to be the fastest (WRK-1)."""
        loaders = build_loaders(self.data, self.cfg, spec)
        self.stores = loaders.meta.stores
        plan, candidates = self._plan_memory(loaders, candidates_of(self.cfg))
        options = self.cfg.dataloader
        num_processes = min(options.num_workers, usable_cores())
        self.stores.preload(options.ram_optimization.preload_samples, num_processes)
        context.stop.check()
        build = functools.partial(build_loaders, self.data, spec=spec, stores=loaders.meta.stores)
        cfg = with_tuned_workers(self.cfg, loaders, build, context, candidates)
        if cfg is not self.cfg:
            self.cfg, loaders = cfg, build(cfg)
            plan, _ = self._plan_memory(loaders, [])
        self.experiment.facts["memory_plan"] = plan.to_dict()
        return loaders

    def _plan_memory(self, loaders: TwoStageLoaders, candidates: list[int]) -> tuple[RamPlan, list[int]]:
        sizes: dict[str, int] = {CLASSIFICATION: self.cfg.model.image_size, DETECTION: self.cfg.detection.image_size}
        if loaders.meta.classifier_input is not None:
            sizes[CLASSIFICATION] = loaders.meta.classifier_input.size_px
        return plan_memory(loaders, sizes, candidates)

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
                self.damage.load_state(found.states[task.name].get("damage", {}))
            logger.info("[%s] goes on at epoch %d, step %d", task.name, task.clock.epoch + 1, task.clock.step)
        self.experiment.decide("resume", "start", f"global step {self.loop.step}", "train.resume=last")

    def _after_epoch(self, task: Task, result: ValidationResult) -> None:
        self._save(best=(task.name,) if result.is_best else ())
        write_metrics(self.experiment.dir, self.tasks, self.damage)
        self.damage.require_little(self.experiment.dir)

    def _save_if_due(self) -> None:
        minutes = self.cfg.train.checkpoint_minutes
        if minutes and self.loop.seconds - self.saved_at_s >= minutes * 60:
            self._save(best=())
            logger.info("saved inside the epoch, at global step %d", self.loop.step)

    def _save(self, *, best: Collection[str], is_completed: bool = False) -> None:
        extras = checkpoint_extras(config_snapshot(self.cfg), self.data.class_map.to_dict())
        extras["damage"] = self.damage.state()
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

    def _link_detection_data(self, loaders: TwoStageLoaders) -> None:
        """Lay the detector's data out as a YOLO data set of links, for other tools to train on the very same split."""
        if loaders.det_train is None:
            return
        images = self.cfg.data.detection.images
        rows = {split: self.data.labelled_rows(split, images) for split in ("train", "val")}
        export_yolo(self.data.records, rows, self.data.root, self.experiment.dir / "detection_data")
