"""When to name a drug and when to say "unknown", learned from val alone, which holds no unknown drug.

Each val pill is used twice. Once as it is: its answer is right or wrong. And once as a stranger: its own drug is struck
out of the model's list, so that the next one is the answer, and the distance is that to the next drug's training pills.
The distance is measured and not learned (`inference/appearance.py`), so a drug that is struck out looks as foreign as
one that was never there.

The confidence does not have this property: the model was taught to keep the drugs of val apart, and what is left of a
list with its first entry struck out looks unsure, as no answer to a truly unknown pill does (on the demo those are
answered more surely than known ones). So a stranger counts as being answered as surely as the pill itself was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pillsnap.inference.acceptance import Acceptance, log_distance

logger = logging.getLogger("pillsnap")

_NO_DOUBT = 16.0
"""An intercept at which familiarity is 1 in float32: the score is the confidence."""

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
    """Fit how distance becomes familiarity: right answers to val pills against strangers, by logistic regression.

    Args:
        known: The answers to val pills; of the wrong ones nothing is learned here, they show another drug.
        strangers: The answers to the same pills with their own drug struck out; none is right.

    Raises:
        ValueError: No pills.
    """
    if not len(known.confidence):
        raise ValueError("no acceptance can be fitted: got 0 val pills, wanted 1 or more. Check the val split.")
    distance = np.concatenate([known.distance[known.is_right], strangers.distance])
    is_known = np.arange(len(distance)) < known.is_right.sum()
    finite = distance[np.isfinite(distance)]
    # Beyond the farthest pair there is no experience; twice as far is as foreign as anything can be.
    largest = 2 * float(finite.max(initial=0.5))
    far = log_distance(distance, largest)
    if is_known.all() or not is_known.any() or not np.ptp(far) > 0:
        logger.warning("looks tell nothing about the pills of val: refusal goes by confidence alone")
        return Acceptance(_NO_DOUBT, 0.0, largest)
    centre, spread = far.mean(), far.std()  # scaled, so that the penalty does not depend on the unit
    model = LogisticRegression(class_weight="balanced").fit(((far - centre) / spread)[:, None], is_known)
    weight = -float(model.coef_[0, 0]) / spread
    if weight <= 0:
        logger.warning("strangers look no more foreign than the pills of val: refusal goes by confidence alone")
        return Acceptance(_NO_DOUBT, 0.0, largest)
    return Acceptance(float(model.intercept_[0]) + weight * centre, weight, largest)


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
