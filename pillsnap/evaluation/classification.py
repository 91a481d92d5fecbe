"""Figures for a classifier of single pills: accuracy, macro F1, top-k, likelihood, and how far to trust its confidence.

From probabilities in memory (`evaluate_classification_metrics`) or from what was kept of a split while it was streamed
(`classification_figures`); both go through the same formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import f1_score

from pillsnap.errors import NonFiniteLossError
from pillsnap.evaluation.arrays import FloatValues, IntValues, Values, as_floats, as_ints
from pillsnap.evaluation.calibration_error import expected_calibration_error
from pillsnap.evaluation.streaming import ClassificationPredictions

# Rows compared with their true class at once: 4096 x 5000 classes of booleans stay near 20 MB.
_ROWS_AT_ONCE = 4096


def evaluate_classification_metrics(
    y_true: Values, y_pred: Values, y_prob: Values, topk: Sequence[int] = (1, 5)
) -> dict[str, float | int]:
    """Compare predicted with true classes.

    Args:
        y_true: (N,) true class numbers, 0 to C-1.
        y_pred: (N,) predicted class numbers, 0 to C-1.
        y_prob: (N, C) softmax probabilities; each row sums to 1.
        topk: The k of the top-k figures. One larger than C counts as C; k = 1 is the accuracy and gets no key.

    Returns:
        `accuracy`; `macro_f1` (scikit-learn, mean over the classes that occur in `y_true` or `y_pred`); `top{k}` for
        each k > 1 (equal probabilities rank by class number, so a constant model is not flattered); `confidence`, the
        mean probability of the most probable class; `ece`, the expected calibration error of `y_pred` at that
        probability (15 bins); `nll`, the mean negative log likelihood in nats (probabilities below the type's epsilon
        count as that, as in scikit-learn's `log_loss`); `n`. All but `nll` and `n` in 0..1.

    Raises:
        ValueError: No samples, lengths that differ, class numbers out of range, rows that are not probabilities, or a
            k below 1.
    """
    true, pred, prob = as_ints(y_true), as_ints(y_pred), as_floats(y_prob)
    _check_shapes(true, pred, prob)
    _check_values(true, pred, prob)
    _check_topk(topk)
    of_true = np.take_along_axis(prob, true[:, None], axis=1)[:, 0]
    nll = -np.log(np.maximum(of_true, np.finfo(prob.dtype).eps))
    # A row of 16-bit softmax may exceed 1 by a rounding.
    confidence = np.minimum(prob.max(axis=1), 1)
    return _figures(_Answers(true, pred, _ranks_of_true(true, prob), confidence, nll), topk)


def classification_figures(found: ClassificationPredictions, topk: Sequence[int] = (1, 5)) -> dict[str, float | int]:
    """Return the figures of `evaluate_classification_metrics` for a split that was streamed.

    The likelihood comes from the logits themselves, so a hopeless answer counts in full and not as epsilon.

    Raises:
        ValueError: A pill of a drug the model does not know is among them, or a k below 1.
        NonFiniteLossError: The model's output was not finite.
    """
    _check_topk(topk)
    if found.y_true.min() < 0:
        raise ValueError(
            f"{int((found.y_true < 0).sum())} of {len(found)} pills show a drug the model was not trained on; wanted "
            "classes from 0. Leave them out: an answer to them is judged by refusing it."
        )
    require_finite(found)
    return _figures(_Answers(found.y_true, found.y_pred, found.ranks, found.confidence, found.nll), topk)


def require_finite(found: ClassificationPredictions) -> None:
    """Make sure that the model's outputs are numbers.

    Raises:
        NonFiniteLossError: One is NaN or infinite.
    """
    is_finite = np.isfinite(found.log_sum_exp) & (np.isfinite(found.nll) | (found.y_true < 0))
    if not is_finite.all():
        raise NonFiniteLossError(
            f"the classifier's output is not finite for {int((~is_finite).sum())} of {len(found)} pills; wanted finite "
            "logits. Train again with a lower learning rate (train.lr), or go back to a checkpoint from before."
        )


class _Answers(NamedTuple):
    """N answers."""

    true: IntValues
    pred: IntValues
    ranks: IntValues
    confidence: FloatValues
    nll: FloatValues


def _figures(answers: _Answers, topk: Sequence[int]) -> dict[str, float | int]:
    is_right = answers.true == answers.pred
    figures: dict[str, float | int] = {
        "accuracy": float(np.mean(is_right)),
        "macro_f1": float(f1_score(answers.true, answers.pred, average="macro", zero_division=0)),
    }
    figures |= {f"top{k}": float(np.mean(answers.ranks < k)) for k in topk if k > 1}
    return figures | {
        "confidence": float(np.mean(answers.confidence, dtype=np.float64)),
        "ece": expected_calibration_error(answers.confidence, is_right),
        "nll": float(np.mean(answers.nll, dtype=np.float64)),
        "n": len(answers.true),
    }


def _ranks_of_true(true: IntValues, prob: FloatValues) -> IntValues:
    """Return (N,) how many classes rank before the true one."""
    ranks = np.empty(len(true), np.int64)
    numbers = np.arange(prob.shape[1])
    for start in range(0, len(true), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        of_true = np.take_along_axis(prob[rows], true[rows, None], axis=1)
        before = (prob[rows] > of_true) | ((prob[rows] == of_true) & (numbers < true[rows, None]))
        ranks[rows] = before.sum(axis=1)
    return ranks


def _check_shapes(true: IntValues, pred: IntValues, prob: FloatValues) -> None:
    """Refuse empty input and shapes that do not belong together."""
    if true.size == 0:
        raise ValueError(
            "classification cannot be evaluated: got 0 samples; wanted at least 1. Check that the split has pictures "
            "with classes of the class map."
        )
    if true.ndim != 1 or pred.shape != true.shape or prob.ndim != 2 or len(prob) != len(true):
        raise ValueError(
            f"classification cannot be evaluated: y_true has shape {true.shape}, y_pred {pred.shape}, y_prob "
            f"{prob.shape}; wanted (N,), (N,) and (N, C). Pass the values of the same N samples."
        )


def _check_values(true: IntValues, pred: IntValues, prob: FloatValues) -> None:
    """Refuse class numbers out of range and rows that are not probabilities."""
    num_classes = prob.shape[1]
    for name, values in (("y_true", true), ("y_pred", pred)):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} holds class numbers from {low} to {high}; wanted 0 to {num_classes - 1}, because y_prob has "
                f"{num_classes} columns. Use the class map the model was trained with, and leave unknown classes out."
            )
    sums = prob.sum(axis=1, dtype=np.float64)
    # 0.01: rows of 16-bit softmax over thousands of classes drift by a few thousandths.
    is_probability = (np.abs(sums - 1) < 0.01) & (prob.min(axis=1) >= 0)
    if not is_probability.all():  # NaN compares false and lands here too
        row = int(np.flatnonzero(~is_probability)[0])
        raise ValueError(
            f"y_prob row {row} has sum {sums[row]:.4g} and minimum {prob[row].min():.4g}; wanted probabilities of 0 "
            "or more that sum to 1. Apply softmax to the logits first."
        )


def _check_topk(topk: Sequence[int]) -> None:
    """Refuse a k that counts no class."""
    wrong = [k for k in topk if k < 1]
    if wrong:
        raise ValueError(f"topk holds {wrong[0]}; wanted whole numbers of 1 or more. Pass for example topk=[1, 5].")
