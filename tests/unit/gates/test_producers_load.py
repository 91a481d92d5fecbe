from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pillsnap.errors import DataError
from pillsnap.gates import producers_load
from pillsnap.gates.producers_load import (
    Pass,
    RepeatingSampler,
    compare_batches,
    judge_scaling,
    measure_scaling,
    multi_batch_processing,
    scalability_test_pass,
)
from pillsnap.gates.subject import Subject
from pillsnap.inference.engines import ClassifierEngine, DetectorEngine
from tests.unit.gates.checked import produced, replace

INPUTS = [np.full((4, 4, 3), value, np.uint8) for value in (0, 100, 200)]


def _mean(batch: Any) -> Any:
    return np.asarray(batch.mean((1, 2, 3)), np.float32)[:, None]


class Clock:
    """Time that only work makes pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(producers_load, "time", clock)
    return clock


def test_fewer_samples_are_gone_through_again() -> None:
    positions = [[key[1] for key in keys] for keys in RepeatingSampler(5, size=3, batch_size=2)]
    assert positions == [[0, 1], [2, 0], [1]]


@pytest.mark.req("CRT-2")
def test_the_first_batch_of_a_pass_is_not_timed(clock: Clock) -> None:
    def work(num_pictures: int) -> Iterator[int]:
        clock.now += 100
        for _ in range(num_pictures // 2):
            clock.now += 1
            yield 2

    passes = measure_scaling(work, 8)
    assert [each.pictures for each in passes] == [8, 16, 32] * 3
    assert [each.seconds_a_picture for each in passes] == pytest.approx([0.5] * 9)


def test_a_single_batch_says_nothing() -> None:
    with pytest.raises(DataError, match="make a single batch"):
        measure_scaling(lambda number: iter([number]), 8)


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("seconds", "peaks", "status", "value"),
    [
        ((1.0, 1.1, 1.24), (100.0, 100.0, 100.0), "passed", 1.24),
        ((1.0, 1.0, 1.25), (100.0, 100.0, 100.0), "failed", 1.25),
        ((1.0, 1.3, 1.0), (100.0, 100.0, 100.0), "failed", 1.3),
        ((1.0, 1.0, 1.0), (100.0, 101.5, 103.0), "passed", 1.0),
        ((1.0, 1.0, 1.0), (100.0, 102.0, 104.0), "failed", 1.0),
    ],
    ids=["just fast enough", "too slow", "slow in the middle", "little memory", "too much memory"],
)
def test_time_and_memory_a_picture_decide(
    experiment: Path, seconds: tuple[float, ...], peaks: tuple[float, ...], status: str, value: float
) -> None:
    slow = [Pass(size, 9 * each, 500.0) for size, each in zip((100, 200, 400), seconds, strict=True)]
    last = [Pass(*each) for each in zip((100, 200, 400), seconds, peaks, strict=True)]
    found = judge_scaling([*slow, *last], Subject(experiment))
    assert (found.status, found.value) == (status, value)
    assert (experiment / str(found.file)).is_file()


@pytest.mark.req("CRT-2")
def test_a_classifier_that_takes_as_long_for_each_picture_scales(
    experiment: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ClassifierEngine.probabilities

    def timed(engine: ClassifierEngine, views: Any) -> Any:
        clock.now += 0.01 * len(views)
        return whole(engine, views)

    monkeypatch.setattr(ClassifierEngine, "probabilities", timed)
    found = produced(scalability_test_pass, experiment, scale_pictures=16)
    assert found.status == "passed", found.message


@pytest.mark.req("CRT-2")
def test_a_classifier_that_slows_down_with_every_picture_does_not_scale(
    experiment: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def slowing(engine: ClassifierEngine, views: Any) -> None:
        seen.append(len(views))
        clock.now += sum(seen)

    monkeypatch.setattr(ClassifierEngine, "probabilities", slowing)
    found = produced(scalability_test_pass, experiment, scale_pictures=16)
    assert found.status == "failed"
    assert "times as long" in found.message


@pytest.mark.req("CRT-2")
def test_a_classifier_that_keeps_what_it_saw_does_not_scale(
    experiment: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def leaking(engine: ClassifierEngine, views: Any) -> None:
        clock.now += len(views)
        kept.append(np.ones(1_000_000))

    monkeypatch.setattr(ClassifierEngine, "probabilities", leaking)
    found = produced(scalability_test_pass, experiment, scale_pictures=16)
    assert found.status == "failed"
    assert "kB of memory" in found.message


@pytest.mark.req("CRT-2")
def test_pictures_that_are_gone_are_an_error(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(experiment)
    monkeypatch.setattr(subject.data, "root", experiment / "nowhere")
    with pytest.raises(DataError, match="no picture of a batch can be decoded"):
        scalability_test_pass(subject)


@pytest.mark.req("CRT-2")
def test_batches_that_answer_alike_differ_by_nothing() -> None:
    assert compare_batches(INPUTS, _mean) == dict.fromkeys((2, 4, 8, 16, 32, 64), 0.0)


@pytest.mark.req("CRT-2")
def test_an_answer_that_depends_on_its_batch_differs() -> None:
    differences = compare_batches(INPUTS, lambda batch: _mean(batch) + 0.5 * (len(batch) >= 8))
    assert differences == {2: 0.0, 4: 0.0, 8: 0.5, 16: 0.5, 32: 0.5, 64: 0.5}


@pytest.mark.req("CRT-2")
def test_an_answer_that_is_no_number_differs() -> None:
    differences = compare_batches(INPUTS, lambda batch: _mean(batch) * (np.nan if len(batch) > 2 else 1))
    assert differences[2] == 0
    assert differences[4] > 1


def _failing_at(size: int, text: str) -> Any:
    def answer(batch: Any) -> Any:
        if len(batch) >= size:
            raise RuntimeError(text)
        return _mean(batch)

    return answer


@pytest.mark.req("CRT-2")
def test_memory_that_runs_out_ends_the_series() -> None:
    assert list(compare_batches(INPUTS, _failing_at(16, "CUDA out of memory"))) == [2, 4, 8]


def test_any_other_error_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        compare_batches(INPUTS, _failing_at(16, "a bug"))


@pytest.mark.req("CRT-2")
def test_arithmetic_is_as_before_afterwards() -> None:
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(RuntimeError):
        compare_batches(INPUTS, _failing_at(1, "CUDA out of memory"))
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.req("CRT-2")
def test_both_models_answer_batches_as_single_pictures(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers_load, "BATCH_SIZES", (4, 32))
    found = produced(multi_batch_processing, experiment)
    assert (found.status, found.value) == ("passed", 32), found.message


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("engine", "name"), [(ClassifierEngine, "probabilities"), (DetectorEngine, "predictions")], ids=["one", "other"]
)
def test_a_model_whose_answers_depend_on_the_batch_fails(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, engine: type, name: str
) -> None:
    monkeypatch.setattr(producers_load, "BATCH_SIZES", (4, 32))
    whole = getattr(engine, name)
    monkeypatch.setattr(engine, name, lambda self, batch: whole(self, batch) + 0.01 * (len(batch) >= 32))
    found = produced(multi_batch_processing, experiment)
    assert (found.status, found.value) == ("failed", 4)


def test_a_val_split_without_pictures_is_an_error(experiment: Path) -> None:
    replace(experiment / "selection.csv", b"image_path,mapping_code,image_type,source,split\na,A,single,x,train\n")
    with pytest.raises(DataError, match="nothing can be put into batches"):
        produced(multi_batch_processing, experiment)
