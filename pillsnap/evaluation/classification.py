"""Figures for a classifier of single pills: accuracy, macro F1, top-k, mean confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score

from pillsnap.evaluation.arrays import FloatValues, IntValues, Values, as_floats, as_ints

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
        mean probability of the most probable class; `n`. All but `n` in 0..1.

    Raises:
        ValueError: No samples, lengths that differ, class numbers out of range, rows that are not probabilities, or a
            k below 1.
    """
    true, pred, prob = as_ints(y_true), as_ints(y_pred), as_floats(y_prob)
    _check_shapes(true, pred, prob)
    _check_values(true, pred, prob)
    _check_topk(topk)
    ranks = _ranks_of_true(true, prob)
    figures: dict[str, float | int] = {
        "accuracy": float(np.mean(true == pred)),
        "macro_f1": float(f1_score(true, pred, average="macro", zero_division=0)),
    }
    figures |= {f"top{k}": float(np.mean(ranks < k)) for k in topk if k > 1}
    return figures | {"confidence": float(np.mean(prob.max(axis=1), dtype=np.float64)), "n": len(true)}


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
