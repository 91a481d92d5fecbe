"""Fitting and judging when an answer is refused, on photographs whose drugs differ in colour."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation.prediction_table import PredictionTable, read_predictions
from pillsnap.evaluation.refusal import Refusal, without_their_own
from pillsnap.evaluation.streaming import AnswerStream, ClassificationPredictions, summarise
from pillsnap.inference.calibration import Calibration
from tests.unit.evaluation.classifier_case import softmax, streamed
from tests.unit.evaluation.hard_cases_case import UNKNOWN
from tests.unit.evaluation.looks_case import build_painted_data, settings_of

pytestmark = pytest.mark.req("VAL-1", "FIN-3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TwoStageData:
    return build_painted_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def refusal(data: TwoStageData, tmp_path: Path) -> Refusal:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"weights")
    (tmp_path / "reports").mkdir()
    return Refusal(settings_of(data, tmp_path), data, tmp_path, "letterbox")


def answers(data: TwoStageData, split: str, *, num_wrong: int = 0) -> ClassificationPredictions:
    """Answer every pill surely; those of unknown drugs are taken for the first drug."""
    items = data.evaluation_items(split, "frame")
    named = np.maximum(items.labels, 0).astype(np.int64)
    named[:num_wrong] = 1 - named[:num_wrong]
    logits = np.random.default_rng(0).normal(0, 0.3, (len(items), len(data.class_map.codes))).astype(np.float32)
    logits[np.arange(len(items)), named] += 4
    labels = torch.from_numpy(items.labels.astype(np.int64))
    stream = AnswerStream()
    stream.add(labels, [data.records.sample_id(int(row)) for row in items.rows])
    stream.add_answers(summarise(torch.from_numpy(logits), labels, keep_logits=True))
    return stream.finish(0.0, [])


def judged(refusal: Refusal, split: str, calibration: Calibration | None) -> PredictionTable:
    items = refusal.data.evaluation_items(split, "frame")
    return refusal.judge(answers(refusal.data, split), items, split, calibration)


def fitted(refusal: Refusal, *, num_wrong: int = 0) -> Calibration:
    items = refusal.data.evaluation_items("val", "frame")
    return refusal.fit(answers(refusal.data, "val", num_wrong=num_wrong), items)


@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_without_its_own_drug_a_pill_gets_the_best_of_the_others(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    logits = rng.normal(0, 2, (200, num_classes)).astype(np.float32)
    labels = rng.integers(0, num_classes, 200)
    others = logits.copy()
    others[np.arange(200), labels] = -np.inf
    np.testing.assert_array_equal(without_their_own(streamed(logits, labels)), others.argmax(axis=1))


def test_the_only_drug_is_answered_for_want_of_another() -> None:
    assert without_their_own(streamed(np.ones((3, 1), np.float32), np.zeros(3, np.int64))).tolist() == [0, 0, 0]


def test_what_is_fitted_to_val_is_kept_for_the_weights_that_were_judged(refusal: Refusal) -> None:
    calibration = fitted(refusal)
    content = json.loads((refusal.exp_dir / "calibration.json").read_text())
    assert content["temperature"] == calibration.temperature
    assert content["threshold"] == calibration.threshold
    assert content["fitted_on"]["split"] == "val"
    assert content["fitted_on"]["n"] == len(refusal.data.evaluation_items("val", "frame"))
    assert content["wanted_error"] == refusal.cfg.inference.wanted_error
    assert content["share_without_a_pill"] == 0
    assert sum(row["n"] for row in content["bins"]["after"]) == content["fitted_on"]["n"]
    assert (refusal.exp_dir / "reports" / "calibration.png").is_file()
    loaded = Calibration.load(refusal.exp_dir)
    assert loaded is not None
    assert loaded.threshold == calibration.threshold


def test_drugs_that_look_like_no_training_pill_are_refused_and_known_ones_named(refusal: Refusal) -> None:
    calibration = fitted(refusal)
    known, strangers = judged(refusal, "val", calibration), judged(refusal, "unknown", calibration)
    assert known.accepted.mean() > 0.9
    assert not strangers.accepted.any()
    assert set(strangers.true_code) == {UNKNOWN}
    np.testing.assert_array_equal(known.accepted, known.score >= np.float32(calibration.threshold))
    saved = read_predictions(refusal.exp_dir / "reports" / "predictions_val.arrow")
    assert saved.sample_id == known.sample_id
    np.testing.assert_array_equal(saved.score, known.score)


def test_confidence_is_that_of_the_fitted_temperature(refusal: Refusal) -> None:
    calibration = fitted(refusal, num_wrong=2)
    found = answers(refusal.data, "val")
    assert calibration.temperature > 1  # two sure answers were wrong
    table = judged(refusal, "val", calibration)
    expected = softmax(found.top_logits / calibration.temperature).max(axis=1)
    np.testing.assert_allclose(table.confidence, expected, atol=2e-3)  # logits are kept at two bytes


def test_figures_on_unknown_drugs_are_written_for_val_alone(refusal: Refusal) -> None:
    calibration = fitted(refusal)
    known, strangers = judged(refusal, "val", calibration), judged(refusal, "unknown", calibration)
    path = refusal.exp_dir / "reports" / "unknown.json"
    refusal.report(known, strangers, "test", calibration)
    assert not path.exists()
    figures = refusal.report(known, strangers, "val", calibration)
    content = json.loads(path.read_text())
    assert (content["n_known"], content["n_unknown"], content["n_drugs_unknown"]) == (len(known), 3, 1)
    assert (content["auroc"], content["false_accept_rate"]) == (1.0, 0.0)
    assert set(content) - set(figures) == {"risk_coverage"}
    assert (refusal.exp_dir / "reports" / "risk_coverage.png").is_file()


def test_with_other_weights_every_answer_is_given_by_the_models_own_confidence(refusal: Refusal) -> None:
    fitted(refusal)
    (refusal.exp_dir / "checkpoints" / "best.pt").write_bytes(b"other weights")
    table = judged(refusal, "unknown", Calibration.load(refusal.exp_dir))
    assert table.accepted.all()
    np.testing.assert_array_equal(table.score, answers(refusal.data, "unknown").confidence)
    assert (refusal.exp_dir / "reports" / "predictions_unknown.arrow").is_file()


def test_too_few_pills_to_show_the_wanted_error_are_told(refusal: Refusal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pillsnap"):
        fitted(refusal)
    assert "of the val pills are named" in caplog.text
    assert "val pills are too few" in caplog.text
