"""Pairs of true and predicted classes against scikit-learn's matrix."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from pillsnap.evaluation.confusions import Confusions

pytestmark = pytest.mark.req("EVA-1")

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 9, 300)
PRED = np.where(RNG.random(300) < 0.6, TRUE, RNG.integers(0, 9, 300)).astype(np.int32)
MATRIX = confusion_matrix(TRUE, PRED, labels=range(10))  # class 9 never occurs


def test_the_matrix_is_scikit_learns() -> None:
    found = Confusions.of_answers(TRUE, PRED, 10)
    np.testing.assert_array_equal(found.matrix(), MATRIX)
    np.testing.assert_array_equal(found.totals, MATRIX.sum(axis=1))
    np.testing.assert_array_equal(found.right, np.diag(MATRIX))


def test_answers_and_their_matrix_give_the_same_pairs() -> None:
    one, other = Confusions.of_answers(TRUE, PRED, 10), Confusions.of_matrix(MATRIX)
    for name in ("true", "pred", "counts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_worst_pairs_come_by_how_often_then_by_their_share_of_the_class() -> None:
    matrix = np.array([[9, 3, 0], [1, 4, 3], [0, 5, 0]])
    found = Confusions.of_matrix(matrix)
    assert found.worst_pairs(3) == [(2, 1, 5, 5), (1, 2, 3, 8), (0, 1, 3, 12)]
    assert found.num_wrong_pairs == 4


def test_all_right_has_no_worst_pairs() -> None:
    assert Confusions.of_answers(TRUE, TRUE, 10).worst_pairs(5) == []
