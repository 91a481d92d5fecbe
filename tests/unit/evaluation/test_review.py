"""What is looked at again at the end of a judgement, from the tables it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation import review as review_module
from pillsnap.evaluation.prediction_table import write_predictions
from pillsnap.evaluation.review import review
from pillsnap.inference.checkpoints import CLASSIFIER_FILE, DETECTOR_FILE
from pillsnap.inference.hard_cases import read_cases
from pillsnap.inference.pipeline import Pipeline
from tests.unit.evaluation.hard_cases_case import KNOWN, build_data, table_of
from tests.unit.evaluation.looks_case import settings_of

pytestmark = pytest.mark.req("DAT-6")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TwoStageData:
    return build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def exp_dir(data: TwoStageData, tmp_path: Path) -> Path:
    """Return an experiment in which val and the unknown drugs were judged."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for split in review_module.SPLITS:
        write_predictions(tmp_path / "reports" / f"predictions_{split}.arrow", table_of(data, split, pred=KNOWN[1]))
    return tmp_path


def test_wrong_answers_of_the_judged_splits_are_kept(data: TwoStageData, exp_dir: Path) -> None:
    found = review(settings_of(data, exp_dir), data, exp_dir, CPU)
    table = table_of(data, "val", pred=KNOWN[1])
    cases, num_damaged = read_cases(exp_dir / "hard_cases" / "val.jsonl")
    assert {case.image_path for case in cases if "wrong" in case.reasons} == {
        path for path, code in zip(table.image_path, table.true_code, strict=True) if code != KNOWN[1]
    }
    assert num_damaged == 0
    assert set(found) == {"hard_cases"}  # one model is not there: mode auto answers nothing
    assert set(found["hard_cases"]["splits"]) == {"val", "unknown"}


def test_a_split_that_was_not_judged_has_no_cases(data: TwoStageData, exp_dir: Path) -> None:
    (exp_dir / "reports" / "predictions_unknown.arrow").unlink()
    assert set(review(settings_of(data, exp_dir), data, exp_dir, CPU)["hard_cases"]["splits"]) == {"val"}


def test_switched_off_nothing_is_kept(data: TwoStageData, exp_dir: Path) -> None:
    assert review(settings_of(data, exp_dir, "logging.hard_cases.enabled=false"), data, exp_dir, CPU) == {}
    assert not (exp_dir / "hard_cases").exists()


def test_nothing_judged_is_nothing_to_look_at(data: TwoStageData, tmp_path: Path) -> None:
    assert review(settings_of(data, tmp_path), data, tmp_path, CPU) == {}


def test_with_both_models_mode_auto_answers_too(
    data: TwoStageData, exp_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answered(pipeline: object, _data: TwoStageData, split: str) -> dict[str, Any]:
        asked.append((pipeline, split))
        top = {"code": KNOWN[0], "name": None, "confidence": 0.9}
        pills = [{**top, "box_xyxy": None, "top5": [top]}]
        gate = {"mode_used": "single", "gating_score": 0.25, "single_confidence": 0.6, "fallback_reason": None}
        return {table_of(data, split).image_path[0]: {**gate, "pills": pills}}

    for name in (CLASSIFIER_FILE, DETECTOR_FILE):
        (exp_dir / name).touch()
    monkeypatch.setattr(Pipeline, "from_experiment", lambda *_place: "both models")
    monkeypatch.setattr(review_module, "auto_answers", answered)
    found = review(settings_of(data, exp_dir), data, exp_dir, CPU)
    assert asked == [("both models", "val"), ("both models", "unknown")]
    assert found["gate"]["gating_score"] == 0.25
