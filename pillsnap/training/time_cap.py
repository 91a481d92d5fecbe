"""The time limit of a stage: when it ends a run, and whether what the run reached by then is a success (STG-4).

Figures of quality are recorded but not asked for: a capped run proves that the way from photographs to a model that
loads is whole.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from pillsnap.data.datasets import ClassificationDataset, DetectionTrainingDataset
from pillsnap.data.samplers import StepSampler
from pillsnap.errors import GateError
from pillsnap.training.schedule import TaskName
from pillsnap.training.task import Task

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeCapEvidence:
    """What a run has to show when its time is up."""

    task: TaskName
    """The task the other values speak of: classification, or the run's only other one."""
    seconds: float
    """Time spent training, added up over resumed processes."""
    samples: int
    """Samples trained on, repetitions counted."""
    classes: int
    """Different classes among them."""
    is_pipeline_complete: bool
    """Every task of the run was trained and its best model evaluated for the report."""
    is_model_loading: bool
    """The best checkpoint was rebuilt into a model that answered on the evaluation split."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a success."""

    name: str
    value: bool | int | float
    wanted: bool | int | float | None
    """What the value must be (true), or be at least (numbers); None: any value will do."""
    holds: bool

    def text(self) -> str:
        """Say what was found and what was wanted."""
        if isinstance(self.value, bool):
            return f"{self.name} is {self.value}, wanted {self.wanted}"
        return f"{self.name} is {self.value:g}, wanted {self.wanted} or more"


@dataclass(frozen=True, slots=True)
class TimeCapVerdict:
    """Whether a capped run is a success, and why."""

    is_success: bool
    checks: tuple[Check, ...]

    def failures(self) -> str:
        """Name the checks that do not hold, each with its value and what was wanted."""
        return "; ".join(check.text() for check in self.checks if not check.holds)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data, for `reports/run.json`."""
        return {"is_success": self.is_success, "checks": [asdict(check) for check in self.checks]}


def stage_key(cfg: DictConfig) -> str:
    """Return the key of the current stage's section: `data.progressive_validation.stage_N`."""
    return f"data.progressive_validation.stage_{cfg.data.progressive_validation.current_stage}"


def current_stage(cfg: DictConfig) -> DictConfig:
    """Return the section of the current stage."""
    stage: DictConfig = cfg.data.progressive_validation[f"stage_{cfg.data.progressive_validation.current_stage}"]
    return stage


def limit_s(stage: DictConfig) -> float:
    """Return how many seconds a stage may train; infinity where it has no limit."""
    return math.inf if stage.time_limit_hours is None else float(stage.time_limit_hours) * SECONDS_AN_HOUR


def judge_time_cap(stage: DictConfig, evidence: TimeCapEvidence) -> TimeCapVerdict:
    """Decide whether a run that its time limit ended is a success; a pure function.

    Args:
        stage: `data.progressive_validation.stage_N` of the run's stage.
        evidence: What the run has to show.

    Returns:
        The checks in the order of the specification; a success is when all of them hold.
    """
    hours = evidence.seconds / SECONDS_AN_HOUR
    checks = (
        _is_true("allow_success_on_time_cap", stage.allow_success_on_time_cap),
        Check("time_limit_hours", hours, stage.time_limit_hours, evidence.seconds >= limit_s(stage)),
        _at_least("min_samples_required", evidence.samples, stage.min_samples_required),
        _at_least("min_class_coverage", evidence.classes, stage.min_class_coverage),
        _is_true("pipeline_complete", evidence.is_pipeline_complete),
        _is_true(f"{evidence.task}_model_loading", evidence.is_model_loading),
    )
    return TimeCapVerdict(all(check.holds for check in checks), checks)


def _is_true(name: str, value: bool) -> Check:
    return Check(name, value, True, value)


def _at_least(name: str, value: float, wanted: float | None) -> Check:
    return Check(name, value, wanted, wanted is None or value >= wanted)


def no_success(cfg: DictConfig, verdict: TimeCapVerdict, report_path: Path) -> GateError:
    """Return the error that ends a capped run which is no success, once everything is written."""
    key = f"{stage_key(cfg)}.time_limit_hours"
    return GateError(
        f"The run was ended by {key} = {current_stage(cfg).time_limit_hours}, and this is no success: "
        f"{verdict.failures()}. All it reached is saved, the report is {report_path}. Raise {key} and go on with "
        "train.resume=last."
    )


def gather_evidence(tasks: Sequence[Task], seconds: float, figures: Mapping[str, Any]) -> TimeCapEvidence:
    """Collect what a capped run has to show.

    Samples and classes are those of the classifier. In a run that does not train it they are the detector's, whose
    classes are the drugs on the photographs it was trained on, and it is the detector that must load.

    Args:
        tasks: The tasks of the run, classification first.
        seconds: Seconds of training, over all processes.
        figures: What the evaluation of the best models found: a task it has figures of was loaded and answered.
    """
    task = tasks[0]
    return TimeCapEvidence(
        task=task.name,
        seconds=seconds,
        samples=task.clock.samples,
        classes=count_classes_seen(task),
        is_pipeline_complete=all(each.name in figures for each in tasks),
        is_model_loading=task.name in figures,
    )


def count_classes_seen(task: Task) -> int:
    """Count the different classes among the pictures a task has asked for so far; those it could not decode included.

    Nothing was kept of the steps done: the order of an epoch is a pure function, so it is simply worked out again.
    """
    labels = _labels(task)
    all_classes = set().union(*labels)
    seen: set[Any] = set()
    for positions in _positions_seen(task):
        seen.update(*(labels[position] for position in positions))
        if seen == all_classes:
            break
    return len(seen)


def _labels(task: Task) -> list[Collection[Any]]:
    """Return the classes on each picture of a task's training set, in the order of its dataset."""
    dataset = task.train_loader.dataset
    if isinstance(dataset, ClassificationDataset):
        return [(int(label),) for label in dataset.items.labels]
    assert isinstance(dataset, DetectionTrainingDataset)
    pictures = dataset.pictures
    return [pictures.records.box_codes(int(row)) for row in pictures.rows]


def _positions_seen(task: Task) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of each epoch's samples up to where the task stands."""
    sampler = task.train_loader.batch_sampler
    assert isinstance(sampler, StepSampler)
    for epoch in range(task.clock.epoch + 1):
        order = sampler.order(epoch)
        yield order[: sampler.num_used if epoch < task.clock.epoch else task.clock.samples_in_epoch]
