"""When to name a drug and when to say "unknown", learned from val alone, which holds no unknown drug.

Each val pill is used twice. Once as it is: its answer is right or wrong. And once as a stranger: its own drug is struck
out of the model's list, so that what remains is the answer to a drug the model does not know, with the confidence and
the distance that answer has. A logistic regression on both tells right answers to known pills from all others.

The distance is measured and not learned (`inference/familiarity.py`), so a drug that is struck out looks as foreign as
one that was never there. The confidence does not have this property (the network was trained to keep the drugs of
val apart), which is why it alone refuses too little.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pillsnap.inference.acceptance import Acceptance, evidence

logger = logging.getLogger("pillsnap")

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What speaks for N answers."""

    confidence: Floats
    """(N,) calibrated, 0..1."""
    distance: Floats
    """(N,) to the nearest training picture of the named drug; may be infinite."""
    is_right: Flags
    """(N,)."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on an answer is given, and what that costs on val."""

    value: float
    error: float
    """Share of wrong names among the accepted, strangers included, on val."""
    coverage: float
    """Share of val pills whose answer is given."""
    is_proven: bool
    """Whether val is large enough to show the wanted error; otherwise it is only met on val's own pills."""


def fit_acceptance(known: Evidence, strangers: Evidence) -> Acceptance:
    """Fit the weights of the score.

    A weight with the wrong sign (less sure counted as better) is chance in a small val split, and is set to 0.

    Args:
        known: The answers to val pills.
        strangers: The answers to the same pills with their own drug struck out; none is right.

    Raises:
        ValueError: No pills.
    """
    if not len(known.confidence):
        raise ValueError("no acceptance can be fitted: got 0 val pills, wanted 1 or more. Check the val split.")
    finite = np.concatenate([known.distance, strangers.distance])
    finite = finite[np.isfinite(finite)]
    # Beyond the farthest pair there is no experience; twice as far is as foreign as anything can be.
    largest = 2 * float(finite.max()) if len(finite) else 1.0
    is_right = np.concatenate([known.is_right, strangers.is_right])
    sure, far = evidence(
        np.concatenate([known.confidence, strangers.confidence]),
        np.concatenate([known.distance, strangers.distance]),
        largest,
    )
    if is_right.all() or not is_right.any():
        logger.warning(
            "all answers to val pills are %s: refusal goes by confidence alone", "right" if is_right.all() else "wrong"
        )
        return Acceptance(0.0, 1.0, 0.0, largest)
    columns = np.stack([sure, -far], axis=1)
    used = [column for column in range(2) if np.ptp(columns[:, column]) > 0]
    weights, intercept = _fit(columns, is_right, used)
    if (weights < 0).any():
        weights, intercept = _fit(columns, is_right, [column for column in used if weights[column] > 0])
    return Acceptance(intercept, float(max(weights[0], 0.0)), float(max(weights[1], 0.0)), largest)


def _fit(columns: Floats, is_right: Flags, used: list[int]) -> tuple[Floats, float]:
    """Return (2,) weights, 0 for columns that are not used, and the intercept."""
    weights = np.zeros(columns.shape[1])
    if not used:
        return weights, 0.0
    # Scaled, so that the penalty means the same for both.
    centre, spread = columns[:, used].mean(axis=0), columns[:, used].std(axis=0)
    model = LogisticRegression(class_weight="balanced").fit((columns[:, used] - centre) / spread, is_right)
    weights[used] = model.coef_[0] / spread
    return weights, float(model.intercept_[0] - (weights[used] * centre).sum())


def choose_threshold(scores: Floats, is_right: Flags, scores_strangers: Floats, wanted_error: float) -> Threshold:
    """Choose the lowest score from which on wrong names are as rare as wanted.

    The accepted pills of val stand for those to come, half of them strangers; so that few pills promise no more than
    they can show, one more mistake is counted than was made (as in conformal risk control, Angelopoulos et al. 2022).
    Where val is too small to show the wanted error that way, it is met on val itself, and the log says so.

    Args:
        scores: (N,) of val pills.
        is_right: (N,).
        scores_strangers: (M,) of the same pills as strangers.
        wanted_error: Largest share of wrong names among the accepted, 0..1.

    Raises:
        ValueError: No val pills.
    """
    if not len(scores):
        raise ValueError("no threshold can be chosen: got 0 val pills, wanted 1 or more. Check the val split.")
    all_scores = np.concatenate([scores, scores_strangers])
    wrong = np.concatenate([~is_right, np.ones(len(scores_strangers), bool)])
    order = np.argsort(-all_scores, kind="stable")
    num_wrong, num_accepted = np.cumsum(wrong[order]), np.arange(1, len(order) + 1)
    is_last = np.append(np.diff(all_scores[order]) != 0, True)  # equal scores are accepted together
    num_wrong, num_accepted, ends = num_wrong[is_last], num_accepted[is_last], all_scores[order][is_last]
    proven = np.flatnonzero((num_wrong + 1) / (num_accepted + 1) <= wanted_error)
    met = np.flatnonzero(num_wrong / num_accepted <= wanted_error)
    chosen = proven if len(proven) else met
    if not len(chosen):
        return Threshold(float(np.nextafter(np.float32(all_scores.max()), np.float32(np.inf))), 0.0, 0.0, False)
    place = int(chosen[-1])
    value = float(ends[place])
    return Threshold(
        value,
        float(num_wrong[place] / num_accepted[place]),
        float(np.mean(scores >= value)),
        bool(len(proven)),
    )
