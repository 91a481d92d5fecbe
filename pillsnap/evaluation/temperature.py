"""One number that makes a classifier's confidence honest: logits are divided by it before softmax.

Method: Guo et al. 2017, "On Calibration of Modern Neural Networks": the temperature that minimises the negative log
likelihood of pictures the model was not trained on. It changes how sure an answer is, never which answer is given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pillsnap.evaluation.logit_store import LogitStore

LOWEST, HIGHEST = 0.02, 50.0
"""Where the temperature is looked for."""
MAX_PILLS = 10_000
"""More pills change the third digit of the temperature, and 20 passes over 600 MB of logits take a minute."""
_SEED = 0


def fit_temperature(logits: LogitStore, y_true: NDArray[np.integer]) -> float:
    """Fit the temperature to N pills of known drugs.

    With a val split that is answered without a mistake the likelihood has no maximum: it grows until every confidence
    is 1. So the targets are smoothed as by Platt 1999 ("Probabilistic Outputs for Support Vector Machines"): the true
    class has the probability (N + 1) / (N + 2), and the others share the rest, as if N answers could never prove that
    there is no mistake.

    Args:
        logits: Of N pills and C classes; of more than `MAX_PILLS` a seeded choice is used.
        y_true: (N,) class numbers.

    Returns:
        Above 1 where the model was too sure, below 1 where it was not sure enough.

    Raises:
        ValueError: No pills, other lengths, or class numbers out of range.
    """
    _check(logits, y_true)
    rows = np.arange(len(logits))
    if len(rows) > MAX_PILLS:
        rows = np.sort(np.random.default_rng(_SEED).choice(len(rows), MAX_PILLS, replace=False))
        logits = LogitStore.of(logits.distances[rows])
    num_pills, num_classes = len(rows), logits.num_classes
    doubt = 1 / (num_pills + 2)
    of_true = logits.distances[np.arange(num_pills), y_true[rows]].astype(np.float64)
    of_all = np.concatenate([part.sum(axis=1, dtype=np.float64) for _, part in logits.blocks()])
    target = np.mean((1 - doubt) * of_true + doubt * (of_all - of_true) / max(1, num_classes - 1))

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return float(np.mean(logits.log_sums(temperature), dtype=np.float64) - target / temperature)

    # Convex in 1 / temperature, so any minimum is the only one.
    found = minimize_scalar(loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return math.exp(float(found.x))


def mean_nll(logits: LogitStore, y_true: NDArray[np.integer], temperature: float = 1.0) -> float:
    """Return the mean negative log likelihood of the true classes, nats, after division by `temperature`.

    Raises:
        ValueError: As for `fit_temperature`.
    """
    _check(logits, y_true)
    of_true = logits.distances[np.arange(len(logits)), y_true].astype(np.float64)
    return float(np.mean(logits.log_sums(temperature) - of_true / temperature))


def _check(logits: LogitStore, y_true: NDArray[np.integer]) -> None:
    if not len(logits) or y_true.shape != (len(logits),):
        raise ValueError(
            f"a temperature cannot be fitted: got {len(logits)} rows of logits and class numbers of shape "
            f"{y_true.shape}; wanted N of 1 or more and (N,). Pass both of the same pills."
        )
    if y_true.min() < 0 or y_true.max() >= logits.num_classes:
        raise ValueError(
            f"class numbers reach from {y_true.min()} to {y_true.max()}; wanted 0 to {logits.num_classes - 1}. Leave "
            "pills of unknown drugs out."
        )
