"""Curves from one sort against scikit-learn's, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as scikit_roc_curve

from pillsnap.evaluation.curves import count_above, precision_recall_curve, roc_curve

pytestmark = pytest.mark.req("EVA-3")

IN_TURN = count_above(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1]))


@pytest.mark.parametrize("seed", range(200))
def test_areas_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 120))
    scores = rng.choice([rng.normal(size=size), rng.integers(0, 6, size).astype(float)])  # also with ties
    is_true = rng.random(size) < 0.3
    is_true[:2] = [True, False]
    counts = count_above(is_true, scores.astype(np.float32))
    assert roc_curve(counts).area == pytest.approx(roc_auc_score(is_true, scores))
    assert precision_recall_curve(counts).area == pytest.approx(average_precision_score(is_true, scores))
    x, y, _ = scikit_roc_curve(is_true, scores)
    assert np.interp(np.unique(x), *roc_curve(counts)[:2]) == pytest.approx(np.interp(np.unique(x), x, y))


def test_a_roc_curve_by_hand() -> None:
    # Ranked: right, wrong, right, wrong. Of the four (right, wrong) pairs three are in order: 3/4.
    x, y, area = roc_curve(IN_TURN)
    assert area == 0.75
    assert list(zip(x, y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_a_precision_recall_curve_by_hand() -> None:
    # Precision 1 up to recall 1/2, then 2/3; average precision = (1 + 2/3) / 2.
    x, y, area = precision_recall_curve(IN_TURN)
    assert area == pytest.approx(5 / 6)
    assert list(zip(x, y, strict=True)) == [(0, 1), (0.5, 1), (0.5, 2 / 3), (1, 2 / 3)]


def test_pills_that_cannot_be_told_apart_are_a_guess() -> None:
    counts = count_above(np.array([True, True, False, False]), np.ones(4))
    assert roc_curve(counts).area == 0.5
    assert precision_recall_curve(counts).area == 0.5
