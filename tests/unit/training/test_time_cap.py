"""The verdict over a run that its stage's time limit ended, and the evidence it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from pillsnap.config.loading import load_config
from pillsnap.data.datasets import (
    ClassificationEvaluationDataset,
    DetectionPictures,
    DetectionTrainingDataset,
)
from pillsnap.data.items import ClassificationItems
from pillsnap.data.originals import Originals
from pillsnap.data.pixels import DetectorParts, EvaluationParts
from pillsnap.data.records import Picture, Records
from pillsnap.data.samplers import StepSampler
from pillsnap.training.schedule import CLASSIFICATION, DETECTION, TaskName
from pillsnap.training.task import Task
from pillsnap.training.time_cap import (
    TimeCapEvidence,
    count_classes_seen,
    current_stage,
    gather_evidence,
    judge_time_cap,
    limit_s,
)
from tests.run.tiny import REPOSITORY

STAGE = OmegaConf.create(
    {
        "time_limit_hours": 2,
        "allow_success_on_time_cap": True,
        "min_samples_required": 1000,
        "min_class_coverage": 30,
    }
)
ENOUGH = TimeCapEvidence(
    task=CLASSIFICATION,
    seconds=7200.0,
    samples=1000,
    classes=30,
    is_pipeline_complete=True,
    is_model_loading=True,
)


def _stage(**changes: Any) -> DictConfig:
    stage = OmegaConf.merge(STAGE, changes)
    assert isinstance(stage, DictConfig)
    return stage


@pytest.mark.req("STG-4")
def test_a_run_that_reached_all_minima_exactly_is_a_success() -> None:
    verdict = judge_time_cap(STAGE, ENOUGH)
    assert verdict.is_success
    assert [check.holds for check in verdict.checks] == [True] * 6
    assert verdict.failures() == ""


@pytest.mark.req("STG-4")
@pytest.mark.parametrize(
    ("stage", "changes", "says"),
    [
        pytest.param(
            _stage(allow_success_on_time_cap=False),
            {},
            "allow_success_on_time_cap is False, wanted True",
            id="not allowed",
        ),
        pytest.param(STAGE, {"seconds": 7199.0}, "time_limit_hours is 1.99972, wanted 2 or more", id="time"),
        pytest.param(STAGE, {"samples": 999}, "min_samples_required is 999, wanted 1000 or more", id="samples"),
        pytest.param(STAGE, {"classes": 29}, "min_class_coverage is 29, wanted 30 or more", id="classes"),
        pytest.param(STAGE, {"is_pipeline_complete": False}, "pipeline_complete is False, wanted True", id="pipeline"),
        pytest.param(
            STAGE, {"is_model_loading": False}, "classification_model_loading is False, wanted True", id="loading"
        ),
    ],
)
def test_one_check_that_does_not_hold_is_enough_to_fail_and_is_named(
    stage: DictConfig, changes: dict[str, Any], says: str
) -> None:
    verdict = judge_time_cap(stage, replace(ENOUGH, **changes))
    assert not verdict.is_success
    assert verdict.failures() == says


@pytest.mark.req("STG-4")
def test_without_minima_any_number_will_do() -> None:
    stage = _stage(min_samples_required=None, min_class_coverage=None)
    assert judge_time_cap(stage, replace(ENOUGH, samples=0, classes=0)).is_success


@pytest.mark.req("STG-4")
def test_a_verdict_is_plain_data_for_the_record() -> None:
    content = judge_time_cap(STAGE, ENOUGH).to_dict()
    assert content["is_success"] is True
    assert content["checks"][2] == {"name": "min_samples_required", "value": 1000, "wanted": 1000, "holds": True}


@pytest.mark.req("STG-4")
@pytest.mark.parametrize(("hours", "seconds"), [(2, 7200.0), (0.5, 1800.0), (None, math.inf)])
def test_the_limit_of_a_stage_in_seconds(hours: float | None, seconds: float) -> None:
    assert limit_s(_stage(time_limit_hours=hours)) == seconds


@pytest.mark.req("STG-4")
def test_the_shipped_stages_are_found_by_their_number() -> None:
    words = ["data.progressive_validation.current_stage=3"]
    assert current_stage(load_config(REPOSITORY / "config.yaml", words)).time_limit_hours == 16


@dataclass
class Position:
    """The part of a task's clock that is looked at."""

    epoch: int = 0
    samples_in_epoch: int = 0
    samples: int = 0


@dataclass
class FakeTask:
    """A task as far as evidence is concerned: a name, a clock, a loader."""

    name: TaskName
    train_loader: DataLoader[Any]
    clock: Position = field(default_factory=Position)


def _sampler(num_samples: int, task: TaskName, batch_size: int = 4) -> StepSampler:
    return StepSampler(num_samples, batch_size=batch_size, grad_accum_steps=1, drop_last=True, seed=3, task=task)


def _classification(labels: list[int], clock: Position) -> FakeTask:
    count = len(labels)
    items = ClassificationItems(np.arange(count), np.zeros(count, np.int64), np.array(labels, np.int64))
    parts = EvaluationParts(cast(Any, None), items, cast(Any, SimpleNamespace()), "frame", 0.1)
    dataset = ClassificationEvaluationDataset(parts)
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=_sampler(count, CLASSIFICATION))
    return FakeTask(CLASSIFICATION, loader, clock)


def _detection(codes: list[list[str]], clock: Position) -> FakeTask:
    pictures = [
        Picture(
            image_path=f"{index}.png", task="combo", code=None, group=str(index), source="yolo", part="",
            width=96, height=128, boxes_xyxy=[(1.0, 1.0, 9.0, 9.0)] * len(row), box_codes=row,
        )
        for index, row in enumerate(codes)
    ]  # fmt: skip
    originals = Originals(Records.from_pictures(pictures), Path())
    parts = DetectorParts(originals, np.arange(len(codes)), 32, is_training=True)
    served = DetectionPictures(parts, cast(Any, None))
    dataset = DetectionTrainingDataset(served, cast(Any, None), cast(Any, None), mosaic_epochs=0, seed=3)
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=_sampler(len(codes), DETECTION, batch_size=1))
    return FakeTask(DETECTION, loader, clock)


def _seen(task: FakeTask) -> int:
    return count_classes_seen(cast(Task, task))


@pytest.mark.req("STG-4")
def test_inside_the_first_epoch_the_classes_are_those_of_the_samples_the_sampler_gave_out() -> None:
    task = _classification(list(range(12)), Position(samples_in_epoch=8))
    given_out = {position for step in list(task.train_loader.batch_sampler)[:2] for _, position, _ in step}  # type: ignore[arg-type]
    assert _seen(task) == len(given_out) == 8


@pytest.mark.req("STG-4")
@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        pytest.param(Position(), 0, id="before the first step"),
        pytest.param(Position(epoch=1), 12, id="an epoch, whose last two samples were dropped"),
        pytest.param(Position(epoch=40), 14, id="many epochs, each of which drops others"),
    ],
)
def test_an_epoch_covers_what_its_steps_held(clock: Position, expected: int) -> None:
    assert _seen(_classification(list(range(14)), clock)) == expected


@pytest.mark.req("STG-4")
def test_a_detector_has_seen_the_drugs_on_its_photographs() -> None:
    codes = [["K-1", "K-2"], ["K-2", "K-3"], []]
    assert _seen(_detection(codes, Position(epoch=1))) == 3
    assert _seen(_detection([["K-1", "K-2"]] * 3, Position(samples_in_epoch=1))) == 2


@pytest.mark.req("STG-4")
def test_evidence_is_that_of_the_classifier_and_a_task_without_figures_leaves_the_pipeline_incomplete() -> None:
    classifier = _classification([0, 1, 0, 1], Position(epoch=1, samples=4))
    detector = _detection([["K-1"]], Position(samples=0))
    tasks = [cast(Task, classifier), cast(Task, detector)]
    found = gather_evidence(tasks, 60.0, {"split": "val", "classification": {}})
    expected = TimeCapEvidence(
        task=CLASSIFICATION, seconds=60.0, samples=4, classes=2, is_pipeline_complete=False, is_model_loading=True
    )
    assert found == expected


@pytest.mark.req("STG-4")
def test_a_run_without_a_classifier_is_judged_by_its_detector() -> None:
    detector = _detection([["K-1", "K-2"]], Position(epoch=1, samples=1))
    found = gather_evidence([cast(Task, detector)], 7200.0, {"split": "val", "detection": {}})
    verdict = judge_time_cap(_stage(min_samples_required=1, min_class_coverage=2), found)
    assert verdict.is_success
    assert verdict.checks[-1].name == "detection_model_loading"
