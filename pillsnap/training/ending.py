"""The end of a run: the best models are judged, and figures, pictures and the report are written.

Everything that val tells is on the disk before the test split is opened, which happens once, when stage 4 is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from pillsnap.config.loading import config_snapshot
from pillsnap.data.damage import Damage
from pillsnap.data.datasets import ClassificationDataset
from pillsnap.data.loaders import build_loaders
from pillsnap.data.stores import Stores
from pillsnap.data.twostage import FINAL_STAGE, TwoStageData
from pillsnap.errors import CheckpointError, GateError
from pillsnap.evaluation.experiment import SplitEvaluation
from pillsnap.evaluation.final_test import (
    best_models,
    final_test_evaluation,
    ledger_of,
    recorded_figures,
    results_for,
)
from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_history import plot_history
from pillsnap.evaluation.report import write_report
from pillsnap.evaluation.review import review
from pillsnap.gates.advice import advise
from pillsnap.gates.checks import CHEAP, run_checks
from pillsnap.gates.verdict import evaluate_gate
from pillsnap.memory import DeviceMemory, free_memory
from pillsnap.training.experiment import Experiment
from pillsnap.training.task import Task
from pillsnap.training.telemetry import TBWriter
from pillsnap.training.time_cap import TimeCapVerdict, current_stage, gather_evidence, judge_time_cap, no_success

logger = logging.getLogger("pillsnap")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run leaves behind."""

    exp_dir: Path
    figures: dict[str, Any]
    """Of the best models on the val split."""
    final_test: dict[str, Any] | None
    """What `reports/final_test_results.json` says of these models; None where they were not tested."""
    seconds: float
    report_path: Path
    metrics_path: Path


class Written(NamedTuple):
    """Where the figures and the report were written."""

    metrics: Path
    report: Path


@dataclass(frozen=True, slots=True)
class Ending:
    """What is left to do when no task takes another step."""

    cfg: DictConfig
    experiment: Experiment
    data: TwoStageData
    memory: DeviceMemory
    damage: Damage
    tasks: Sequence[Task]
    seconds_trained: float
    """Over all processes of the run."""
    is_capped: bool
    """The stage's time limit ended training before its last step."""

    def run(self, started: float) -> RunResult:
        """Judge the best models, write figures, pictures and the report; after stage 4, run the final test.

        Args:
            started: When this process began, by `time.monotonic`.

        Raises:
            GateError: The time limit ended the run, and it is no success; everything was written first.
            TooMuchDamageError: The evaluation found more damaged files than allowed; everything was written first.
        """
        for task in self.tasks:
            task.leave_device()
        free_memory()
        with self._limit_of_a_card():
            figures = self._evaluate()
            looked_at = self._review(figures)
        history = history_of(self.tasks)
        if any(history.values()):
            plot_history(history, self.experiment.dir / "reports" / "history.png")
        verdict = self._judge_time_cap(figures) if self.is_capped else None
        capped = {} if verdict is None else {"time_cap": verdict.to_dict()}
        paths = self._write(started, figures, **looked_at, **capped)
        self.damage.require_little(self.experiment.dir)
        if verdict is not None and not verdict.is_success:
            self._judge_stage()
            raise no_success(self.cfg, verdict, paths.report)
        final_test = None
        # A capped run can go on with a longer limit: its training is not over, so the test split stays sealed.
        if self.cfg.data.progressive_validation.current_stage == FINAL_STAGE and not self.is_capped:
            final_test = self._final_test()
            paths = self._write(started, figures)
            self.damage.require_little(self.experiment.dir)
        self._judge_stage()
        seconds = time.monotonic() - started
        return RunResult(self.experiment.dir, figures, final_test, seconds, paths.report, paths.metrics)

    def _write(self, started: float, figures: dict[str, Any], **facts: object) -> Written:
        """Write what the run has come to by now; `figures` are those of val."""
        exp_dir = self.experiment.dir
        is_tested = results_for(self.cfg, exp_dir) is not None  # exactly these models, now or before this process
        test = recorded_figures(exp_dir, "test") if is_tested else None
        metrics_path = write_metrics(exp_dir, self.tasks, self.damage, val=figures, test=test)
        if len(self.damage):
            self.damage.write(self.experiment.dir)
        self.experiment.write_facts(
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            device=str(self.memory.device),
            data={
                "counts": self.data.counts(),
                "classes": len(self.data.class_map),
                "damaged_files": self.damage.by_kind(),
                "damaged_share": self.damage.share,
            },
            tasks={task.name: _task_facts(task) for task in self.tasks},
            evaluation=figures,
            **facts,
        )
        return Written(metrics_path, write_report(exp_dir))

    def _review(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Keep the hard cases of what was judged, and show in TensorBoard how mode auto read them (DAT-6)."""
        if "classification" not in figures:
            return {}
        found = review(self.cfg, self.data, self.experiment.dir, self.memory.device)
        with TBWriter(self.experiment.dir) as tb:
            tb.add_scalars(found.get("gate", {}), max(task.clock.epoch for task in self.tasks), "gate/")
        return found

    def _judge_stage(self) -> None:
        """Run the checks that take seconds, hold the run against its stage's criteria, and say what to change."""
        if not self.cfg.optimization_advisor.run_after_training:
            return
        exp_dir, stage = self.experiment.dir, self.cfg.data.progressive_validation.current_stage
        run_checks(exp_dir, CHEAP)
        advise(exp_dir, stage, evaluate_gate(exp_dir, stage))
        write_report(exp_dir)

    def _final_test(self) -> dict[str, Any] | None:
        """Run the final test unless the test split was used before; return the results for today's models."""
        hindrance, known = self._hindrance()
        if hindrance is None:
            try:
                return self._judge_on_test()
            except GateError as error:  # another process was faster
                hindrance = str(error)
        logger.warning("no final test: %s", hindrance)  # which is no failure of the run
        self.experiment.decide("final test", "due", "not run", hindrance)
        return known

    def _judge_on_test(self) -> dict[str, Any]:
        exp_dir = self.experiment.dir
        datasets = [task.train_loader.dataset for task in self.tasks]
        spec = next((dataset.spec for dataset in datasets if isinstance(dataset, ClassificationDataset)), None)
        loaders = build_loaders(self.data, self.cfg, spec, Stores.none())
        place = (best_models(self.cfg, exp_dir), logger, exp_dir)
        with self._limit_of_a_card():
            results = final_test_evaluation(self.cfg, loaders, *place, device=self.memory.device, damage=self.damage)
        self.experiment.decide("final test", "sealed", results["recommendation"], "training at stage 4 is over")
        return results

    def _hindrance(self) -> tuple[str | None, dict[str, Any] | None]:
        """Return why the test split stays closed, None where it does not, and the results an earlier use had."""
        if not np.any(self.data.split == "test"):
            return "the test split is empty", None
        try:
            completed = ledger_of(self.cfg, self.experiment.dir).completed_use()
        except GateError as error:
            return str(error), None
        if completed is None:
            return None, None
        known = results_for(self.cfg, self.experiment.dir)
        models = "other models than these" if known is None else "these models"
        return f"the test split was used on {completed.time}, for {models}", known

    def _limit_of_a_card(self) -> AbstractContextManager[None]:
        # Without a GPU the limit would hit plots and pages too, which take no part of a card's memory.
        return self.memory.enforced() if self.memory.is_cuda else nullcontext()

    def _evaluate(self) -> dict[str, Any]:
        """Judge the best models on val; after a time limit, a model that is not there or broken is a finding."""
        place = (self.data, self.experiment.dir, self.memory.device, self.damage)
        if not self.is_capped:
            return SplitEvaluation(self.cfg, *place).run("val")
        cfg = OmegaConf.create(config_snapshot(self.cfg))
        cfg.train.tasks = [task.name for task in self.tasks if task.clock.step > 0]
        try:
            return SplitEvaluation(cfg, *place).run("val")
        except CheckpointError as error:
            logger.error("%s", error)
            return {"split": "val"}

    def _judge_time_cap(self, figures: dict[str, Any]) -> TimeCapVerdict:
        verdict = judge_time_cap(current_stage(self.cfg), gather_evidence(self.tasks, self.seconds_trained, figures))
        outcome = "success" if verdict.is_success else "no success"
        why = verdict.failures() or "every check of the stage holds"
        self.experiment.decide("time cap", "training", outcome, why)
        logger.info("ended by the time limit: %s (%s)", outcome, why)
        return verdict


def history_of(tasks: Sequence[Task]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of every epoch, by task."""
    return {task.name: task.history for task in tasks}


def write_metrics(
    exp_dir: Path,
    tasks: Sequence[Task],
    damage: Damage,
    *,
    val: dict[str, Any] | None = None,
    test: dict[str, Any] | None = None,
) -> Path:
    """Write `reports/metrics.json` and return its path.

    Args:
        exp_dir: The experiment's folder.
        tasks: Their histories are written.
        damage: The files left out so far.
        val: Figures of the best models on the val split, once training is over.
        test: The same of the test split, once it was opened.
    """
    metrics: dict[str, Any] = {"history": history_of(tasks), **damage.summary()}
    metrics |= {name: figures for name, figures in (("val", val), ("test", test)) if figures is not None}
    return dump_metrics_json(metrics, exp_dir / "reports" / "metrics.json")


def _task_facts(task: Task) -> dict[str, Any]:
    totals = task.log.totals
    return {
        "epochs": task.clock.epoch,
        "steps": task.clock.step,
        "samples": task.clock.samples,
        "skipped": task.clock.skipped,
        "stopped_early": task.clock.is_stopped,
        "best": task.judgement.best,
        "throughput": totals.throughput(),
        "data_wait_share": totals.data_wait_share(),
        "data_wait_reasons": task.log.data_wait.facts() if task.log.data_wait else {},
    }
