"""What is measured and written for the classifier on one split."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from pillsnap.evaluation.classification_report import calibrated_figures, report_classification
from tests.unit.evaluation.classifier_case import softmax, streamed

pytestmark = pytest.mark.req("VAL-1")

RNG = np.random.default_rng(0)
TRUE = np.arange(60) % 4
LOGITS = (RNG.normal(0, 2, (60, 4)) + 2 * np.eye(4)[TRUE]).astype(np.float32)
CODES = ["K-0", "K-1", "K-2", "K-3"]


def test_val_has_every_figure_and_its_files(tmp_path: Path) -> None:
    found = report_classification(streamed(LOGITS, TRUE, keep=True), "val", tmp_path, codes=CODES, names={})
    assert set(found) == {
        "acc", "macro_f1", "top5", "confidence", "nll", "ece", "n", "loss", "n_broken",
        "per_class_min_f1", "top1_per_class_min", "intervals",
    }  # fmt: skip
    assert set(found["intervals"]) == {"acc", "macro_f1", "top5", "nll", "confidence"}
    assert found["intervals"]["acc"][0] < found["acc"] < found["intervals"]["acc"][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion_matrix.png", "per_class_val.csv", "pr_curves.png", "roc_curves.png",
    ]  # fmt: skip
    with (tmp_path / "per_class_val.csv").open(encoding="utf-8-sig", newline="") as file:
        lowest = min(float(row["recall"]) for row in csv.DictReader(file))
    assert lowest == pytest.approx(found["top1_per_class_min"], abs=1e-6)


def test_another_split_leaves_the_plots_of_val_alone(tmp_path: Path) -> None:
    report_classification(streamed(LOGITS, TRUE, keep=True), "test", tmp_path, codes=CODES, names={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_class_test.csv", "test"]
    assert (tmp_path / "test" / "confusion_matrix.png").is_file()


def test_a_split_of_one_class_has_no_curves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = streamed(LOGITS, np.zeros(60, int), keep=True)
    with caplog.at_level(logging.WARNING):
        report_classification(found, "val", tmp_path, codes=CODES, names={})
    assert "one class only: ROC and PR curves need two" in caplog.text
    assert not (tmp_path / "roc_curves.png").exists()


def test_calibrated_figures_are_those_at_the_temperature() -> None:
    found = calibrated_figures(streamed(LOGITS, TRUE, keep=True), 2.0)
    prob = softmax(LOGITS / 2)
    assert found["nll_calibrated"] == pytest.approx(log_loss(TRUE, prob), abs=1e-3)
    is_right = prob.argmax(axis=1) == TRUE
    bins = np.ceil(prob.max(axis=1) * 15).astype(int)
    gaps = [abs((is_right - prob.max(axis=1))[bins == number].sum()) for number in range(1, 16)]
    assert found["ece_calibrated"] == pytest.approx(sum(gaps) / 60, abs=2e-3)


def test_a_temperature_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"need the logits of all classes, which were not kept; .*keep_logits=True"):
        calibrated_figures(streamed(LOGITS, TRUE), 2.0)
