from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pillsnap.errors import BrokenImageError, DataError
from pillsnap.gates import producers_duration
from pillsnap.gates.evidence import Outcome
from pillsnap.gates.producers_duration import (
    is_same_answer,
    memory_leak_test,
    predict_for,
    requests_of,
    stability_test_pass,
)
from pillsnap.gates.subject import CheckOptions, Subject
from pillsnap.inference.answers import Answer
from pillsnap.jsonfile import read_json
from tests.unit.gates.checked import replace

SECONDS = 0.3


def _answer(code: str = "A", confidence: float = 0.9, box: list[float] | None = None) -> Answer:
    pill = {"code": code, "confidence": confidence, "box_xyxy": box}
    return {"pills": [pill]}  # type: ignore[typeddict-item]


class FakePipeline:
    """Answers at once; `spoil` is told how many answers it gave before, and may answer in its place."""

    def __init__(self, spoil: Callable[[int], Answer | None] = lambda done: None) -> None:
        self.spoil, self.done = spoil, 0

    def predict(self, path: Path, mode: str) -> Answer:
        self.done += 1
        return self.spoil(self.done) or _answer()


def _produced(
    producer: Callable[[Subject], Outcome], experiment: Path, pipeline: FakePipeline, **options: Any
) -> Outcome:
    subject = Subject(experiment, CheckOptions(**options))
    subject.__dict__["pipeline"] = pipeline
    return producer(subject)


def _keeping(kept: list[Any], num_bytes: int, seconds: float = 0.0) -> Callable[[int], None]:
    def keep(done: int) -> None:
        time.sleep(seconds)
        kept.append(np.ones(num_bytes, np.uint8))

    return keep


@pytest.mark.req("CRT-2")
def test_predictions_that_keep_nothing_pass(experiment: Path) -> None:
    found = _produced(memory_leak_test, experiment, FakePipeline(), predictions=300)
    assert found.status == "passed", found.message
    assert len(read_json(experiment / str(found.file))["resident_mb"]) == 31


@pytest.mark.req("CRT-2")
def test_a_planted_leak_of_20_kilobytes_a_prediction_fails(experiment: Path) -> None:
    kept: list[Any] = []
    found = _produced(memory_leak_test, experiment, FakePipeline(_keeping(kept, 20_000)), predictions=300)
    assert found.status == "failed"
    assert found.value == pytest.approx(20, rel=0.2)


@pytest.mark.req("CRT-2")
def test_answers_that_stay_the_same_for_the_minutes_asked_for_pass(experiment: Path) -> None:
    found = _produced(stability_test_pass, experiment, FakePipeline(), minutes=SECONDS / 60)
    assert found.status == "passed", found.message
    assert found.value == pytest.approx(SECONDS / 3600, rel=0.5)


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda done: _answer("B") if done > 40 else None, "another answer than at first"),
        (lambda done: _raise() if done > 40 else None, "no picture"),
        (lambda done: _raise(), "after 0 predictions: no picture"),
    ],
    ids=["another answer", "an error", "an error at once"],
)
def test_what_goes_wrong_on_the_way_fails(experiment: Path, spoil: Callable[[int], Answer | None], reason: str) -> None:
    found = _produced(stability_test_pass, experiment, FakePipeline(spoil), minutes=SECONDS / 60)
    assert found.status == "failed"
    assert reason in found.message


def _raise() -> None:
    raise BrokenImageError("no picture")


@pytest.mark.req("CRT-2")
def test_memory_that_grows_over_the_run_fails(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers_duration, "MAX_GROWTH_MB", 2.0)
    kept: list[Any] = []
    found = _produced(
        stability_test_pass, experiment, FakePipeline(_keeping(kept, 100_000, 0.002)), minutes=SECONDS / 60
    )
    assert found.status == "failed"
    assert "memory grew by" in found.message


@pytest.mark.req("CRT-2")
def test_too_short_a_run_says_nothing_about_memory(experiment: Path) -> None:
    found = _produced(stability_test_pass, experiment, FakePipeline(), minutes=1e-9)
    assert found.status == "failed"
    assert "too few to judge memory by" in found.message


def test_a_run_ends_when_its_time_is_over() -> None:
    began = time.monotonic()
    found = predict_for(0.2, [(Path("a"), "single")], FakePipeline().predict)
    assert 0.2 <= found.seconds <= time.monotonic() - began
    assert found.num_predictions > 0


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (_answer("A", 0.90005, [1.0, 2.0, 3.0, 4.0]), True),
        (_answer("B", 0.9, [1.0, 2.0, 3.0, 4.0]), False),
        (_answer("A", 0.9002, [1.0, 2.0, 3.0, 4.0]), False),
        (_answer("A", 0.9, [1.0, 2.0, 3.0, 4.2]), False),
        (_answer("A", 0.9), False),
        ({"pills": []}, False),
    ],
    ids=["same", "other drug", "other confidence", "other place", "no place", "other number"],
)
def test_answers_are_compared_by_drug_place_and_confidence(other: Answer, is_same: bool) -> None:
    assert is_same_answer(_answer("A", 0.9, [1.0, 2.0, 3.0, 4.0]), other) == is_same


@pytest.mark.req("CRT-2")
def test_both_modes_are_asked_where_both_models_were_trained(experiment: Path) -> None:
    assert {mode for _, mode in requests_of(Subject(experiment))} == {"single", "combo"}


def test_the_real_models_answer_the_same_again(experiment: Path) -> None:
    subject = Subject(experiment)
    found = predict_for(0.2, requests_of(subject), subject.pipeline.predict)
    assert found.problems == []


def test_a_val_split_without_pictures_is_an_error(experiment: Path) -> None:
    replace(experiment / "selection.csv", b"image_path,mapping_code,image_type,source,split\na,A,single,x,train\n")
    with pytest.raises(DataError, match="there is nothing to predict"):
        requests_of(Subject(experiment))
