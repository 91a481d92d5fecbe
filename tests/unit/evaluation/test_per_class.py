"""Figures of single drugs against scikit-learn and by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from pillsnap.evaluation.per_class import lowest_figures, per_class_figures, worst_classes, write_per_class
from tests.unit.evaluation.classifier_case import answered

pytestmark = pytest.mark.req("VAL-1")

CODES = ["K-0", "K-1", "K-2", "K-3", "K-4"]
NAMES = {"K-0": "타이레놀정"}


def test_precision_recall_and_f1_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 300)
    pred = np.where(rng.random(300) < 0.6, true, rng.integers(0, 5, 300))
    rows = per_class_figures(answered(true.tolist(), pred.tolist(), 5), CODES, NAMES)
    wanted = precision_recall_fscore_support(true, pred, labels=range(5))
    assert np.transpose([(row.precision, row.recall, row.f1, row.n) for row in rows]) == pytest.approx(np.array(wanted))


def test_the_drug_a_pill_is_taken_for_most_often_is_named() -> None:
    rows = per_class_figures(answered([0, 0, 0, 0, 0, 1], [0, 2, 1, 2, 1, 1], 5), CODES, NAMES)
    assert (rows[0].most_taken_for, rows[0].times) == ("K-1", 2)  # as often as K-2, with the lower number
    assert (rows[1].most_taken_for, rows[1].times) == (None, 0)
    assert (rows[0].name, rows[1].name) == ("타이레놀정", "")


def test_what_has_no_sample_has_no_figure() -> None:
    rows = per_class_figures(answered([0, 0], [0, 1], 5), CODES, NAMES)
    assert (rows[1].precision, rows[1].recall, rows[1].f1, rows[1].mean_confidence) == (0.0, None, 0.0, None)
    assert (rows[2].precision, rows[2].f1) == (None, None)


def test_confidence_is_the_mean_over_the_drugs_pills() -> None:
    found = answered([0, 0, 1], [0, 1, 1], 5)
    assert per_class_figures(found, CODES, NAMES)[0].mean_confidence == pytest.approx(np.exp(2) / (np.exp(2) + 4))
    assert per_class_figures(found, CODES, NAMES, np.array([0.5, 0.1, 1.0]))[0].mean_confidence == pytest.approx(0.3)


def test_the_lowest_figures_are_of_drugs_with_pills() -> None:
    rows = per_class_figures(answered([0, 0, 1, 1, 1], [0, 2, 1, 1, 0], 5), CODES, NAMES)
    assert lowest_figures(rows) == pytest.approx({"per_class_min_f1": 0.5, "top1_per_class_min": 0.5})
    assert [row.code for row in worst_classes(rows, 5)] == ["K-0", "K-1"]


def test_the_file_begins_with_the_worst_and_ends_with_those_without_pills(tmp_path: Path) -> None:
    write_per_class(tmp_path / "c.csv", per_class_figures(answered([0, 0, 1], [0, 2, 1], 5), CODES, NAMES))
    with (tmp_path / "c.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["code"] for row in rows] == ["K-0", "K-1", "K-2", "K-3", "K-4"]
    assert rows[0]["name"] == "타이레놀정"
    assert (rows[0]["n"], rows[0]["recall"], rows[0]["most_taken_for"], rows[0]["times"]) == (
        "2",
        "0.500000",
        "K-2",
        "1",
    )
    assert rows[3]["f1"] == ""


def test_a_class_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 5 codes for a model of 3 classes; wanted one a class"):
        per_class_figures(answered([0], [0], 3), CODES, NAMES)


def test_no_pills_have_no_lowest_figure() -> None:
    with pytest.raises(ValueError, match=r"no class has a pill in the split; wanted at least 1"):
        lowest_figures([])
