"""Classification figures against hand computation and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from pillsnap.evaluation.classification import evaluate_classification_metrics

pytestmark = pytest.mark.req("VAL-1", "TRN-1")

PROB_4x3 = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.2, 0.6, 0.2]])
TRUE_4 = np.array([0, 2, 2, 1])
PRED_4 = np.array([0, 1, 2, 1])


def test_figures_equal_a_computation_by_hand() -> None:
    figures = evaluate_classification_metrics(TRUE_4, PRED_4, PROB_4x3, topk=[1, 2])
    # F1: class 0 = 1; class 1 = 2*1/(1 true + 2 predicted); class 2 = 2*1/(2 true + 1 predicted).
    assert figures["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert figures["accuracy"] == 0.75
    assert figures["top2"] == 1.0
    assert figures["confidence"] == pytest.approx((0.7 + 0.5 + 0.4 + 0.6) / 4)
    assert figures["n"] == 4


def test_top_k_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    prob = rng.dirichlet(np.ones(40), size=5000)  # more rows than are compared at once
    true = rng.integers(0, 40, size=5000)
    figures = evaluate_classification_metrics(true, prob.argmax(1), prob, topk=[1, 5, 10])
    for k in (5, 10):
        assert figures[f"top{k}"] == pytest.approx(top_k_accuracy_score(true, prob, k=k, labels=np.arange(40)))


def test_macro_f1_counts_rare_classes_as_much_as_common_ones() -> None:
    true = np.array([0] * 98 + [1, 2])
    prob = np.tile([1.0, 0.0, 0.0], (100, 1))
    figures = evaluate_classification_metrics(true, np.zeros(100, np.int64), prob)
    assert figures["accuracy"] == 0.98
    assert figures["macro_f1"] == pytest.approx(2 * 98 / (98 + 100) / 3)  # the two rare classes have F1 0


def test_k_above_the_number_of_classes_is_capped() -> None:
    assert evaluate_classification_metrics(TRUE_4, PRED_4, PROB_4x3)["top5"] == 1.0


def test_a_constant_model_is_not_flattered_by_ties() -> None:
    prob = np.full((10, 10), 0.1)
    figures = evaluate_classification_metrics(np.arange(10), np.zeros(10, np.int64), prob)
    assert figures["top5"] == 0.5


def test_tensors_of_any_float_type_are_taken() -> None:
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    prob = logits.softmax(1)
    labels = torch.arange(8) % 6
    wanted = evaluate_classification_metrics(labels, prob.argmax(1), prob)
    figures = evaluate_classification_metrics(labels, prob.argmax(1), prob.bfloat16())
    assert figures == pytest.approx(wanted, abs=5e-3)


def test_no_samples_are_an_error_not_a_figure() -> None:
    with pytest.raises(ValueError, match=r"got 0 samples; wanted at least 1\. Check that the split has pictures"):
        evaluate_classification_metrics([], [], np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("true", "pred", "prob"),
    [(TRUE_4, PRED_4[:3], PROB_4x3), (TRUE_4, PRED_4, PROB_4x3[:3]), (TRUE_4, PRED_4, PROB_4x3[:, 0])],
    ids=["fewer predictions", "fewer rows", "one column"],
)
def test_shapes_that_do_not_belong_together_are_refused(true: np.ndarray, pred: np.ndarray, prob: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"y_true has shape .* wanted \(N,\), \(N,\) and \(N, C\)"):
        evaluate_classification_metrics(true, pred, prob)


@pytest.mark.parametrize("wrong", [-1, 3], ids=["unknown class", "another class map"])
def test_class_numbers_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"y_true holds class numbers from .*{wrong}.*; wanted 0 to 2"):
        evaluate_classification_metrics([wrong, 2, 2, 0], PRED_4, PROB_4x3)


def test_class_numbers_of_float_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"class numbers have type float64; wanted integers"):
        evaluate_classification_metrics(TRUE_4.astype(float), PRED_4, PROB_4x3)


@pytest.mark.parametrize("change", [1.0, -0.4, float("nan")], ids=["logits", "negative", "nan"])
def test_rows_that_are_not_probabilities_are_refused(change: float) -> None:
    prob = PROB_4x3.copy()
    prob[2, :2] += [change, -change if change < 0 else 0]
    with pytest.raises(ValueError, match=r"y_prob row 2 has sum .* Apply softmax"):
        evaluate_classification_metrics(TRUE_4, PRED_4, prob)


def test_a_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"topk holds 0; wanted whole numbers of 1 or more"):
        evaluate_classification_metrics(TRUE_4, PRED_4, PROB_4x3, topk=[0, 5])
