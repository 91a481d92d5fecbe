"""How well a score tells answers to accept from answers to refuse, with pills of drugs the model never saw.

Two questions, two curves: are unknown pills told from known ones (AUROC, false accepts), and how many of the accepted
answers are wrong when fewer are accepted (risk against coverage; El-Yaniv & Wiener 2010, Geifman & El-Yaniv 2017).
A higher score means more reason to accept, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pillsnap.evaluation.intervals import draws, group_numbers, interval_of

MAX_POINTS = 200
"""Points of a curve that are kept; a page cannot show more."""
NUM_AUROC_DRAWS = 500

Floats: TypeAlias = NDArray[np.floating[Any]]
Flags: TypeAlias = NDArray[np.bool_]


def auroc(scores_known: Floats, scores_unknown: Floats) -> float:
    """Return the chance that a known pill scores above an unknown one, 0..1; equal scores count half.

    Computed from ranks (Mann & Whitney 1947), exact with ties.

    Args:
        scores_known: (N,) finite or infinite, no NaN.
        scores_unknown: (M,).

    Raises:
        ValueError: One of both is empty or holds NaN.
    """
    for name, values in (("known", scores_known), ("unknown", scores_unknown)):
        if not len(values) or np.isnan(values).any():
            raise ValueError(
                f"AUROC needs scores of known and of unknown pills: got {len(values)} of {name} ones, "
                f"{int(np.isnan(values).sum())} of them NaN; wanted 1 or more numbers. Judge both splits."
            )
    num_known, num_unknown = len(scores_known), len(scores_unknown)
    ranks = rankdata(np.concatenate([scores_known, scores_unknown]).astype(np.float64))
    above = ranks[:num_known].sum() - num_known * (num_known + 1) / 2
    return float(above / (num_known * num_unknown))


def auroc_interval(
    scores_known: Floats,
    scores_unknown: Floats,
    groups_known: Sequence[str] | None = None,
    groups_unknown: Sequence[str] | None = None,
) -> list[float] | None:
    """Return the 95 % bootstrap interval of `auroc`, groups of pictures drawn anew; None with one group on a side.

    Args:
        scores_known: (N,).
        scores_unknown: (M,).
        groups_known: One a pill; None where every pill stands for itself.
        groups_unknown: The same. Whole drugs are the honest group here: the question is about drugs never seen.
    """
    known = group_numbers(groups_known, len(scores_known))
    unknown = group_numbers(groups_unknown, len(scores_unknown))
    if not len(known) or not len(unknown) or known.max() < 1 or unknown.max() < 1:
        return None
    pairs = zip(
        draws(int(known.max()) + 1, NUM_AUROC_DRAWS, seed=0),
        draws(int(unknown.max()) + 1, NUM_AUROC_DRAWS, seed=1),
        strict=True,
    )
    values = np.unique(np.concatenate([scores_known, scores_unknown]))
    place_known, place_unknown = (np.searchsorted(values, side) for side in (scores_known, scores_unknown))
    found = []
    for drawn_known, drawn_unknown in pairs:
        high = np.bincount(place_known, drawn_known[known], len(values))
        low = np.bincount(place_unknown, drawn_unknown[unknown], len(values))
        below = np.cumsum(low) - low
        found.append(float(high @ (below + low / 2)) / (high.sum() * low.sum()))
    return interval_of(found)


def risk_coverage(scores: Floats, is_right: Flags) -> tuple[Floats, Floats]:
    """Return what accepting the best-scored answers first costs.

    Args:
        scores: (N,).
        is_right: (N,).

    Returns:
        Coverage (share of answers accepted) and risk (share of the accepted that is wrong), one point for each
        different score, from the fewest accepted to all. Answers of equal score are accepted together.

    Raises:
        ValueError: No answers, or other lengths.
    """
    if not len(scores) or scores.shape != is_right.shape:
        raise ValueError(
            f"risk and coverage need answers: got scores of shape {scores.shape} and is_right {is_right.shape}; wanted "
            "the same (N,) with N of 1 or more. Pass both of the same pills."
        )
    order = np.argsort(-scores, kind="stable")
    wrong = np.cumsum(~is_right[order])
    is_last = np.append(np.diff(scores[order]) != 0, True)
    accepted = np.arange(1, len(scores) + 1)[is_last]
    return accepted / len(scores), wrong[is_last] / accepted


def area_under_risk_coverage(scores: Floats, is_right: Flags) -> float:
    """Return the mean risk over all coverages, 0..1 (AURC): 0 is perfect, the error rate is what a coin reaches."""
    coverage, risk = risk_coverage(scores, is_right)
    return float(np.sum(risk * np.diff(coverage, prepend=0.0)))


def evaluate_unknown(
    known: tuple[Floats, Flags],
    scores_unknown: Floats,
    threshold: float | None,
    *,
    groups_known: Sequence[str] | None = None,
    drugs_unknown: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure refusal on known and unknown pills.

    Args:
        known: Scores (N,) and whether each answer was right (N,), of pills of drugs that were trained on.
        scores_unknown: (M,) of pills of drugs never trained on; M may be 0.
        threshold: Answers with a score of at least this are accepted; None: none is.
        groups_known: Pictures of the same shot, for the interval.
        drugs_unknown: The drug of each unknown pill.

    Returns:
        `auroc` and `auroc_interval` (null without unknown pills); `coverage`, the share of known pills accepted;
        `false_accept_rate`, the share of unknown pills accepted; `error_accepted_known`, `error_accepted` (known and
        unknown pills together), the share of wrong names among those given, null where none is given; `aurc_known`,
        `aurc`; `risk_coverage` with points for both; `accuracy_known`, `threshold`, `n_known`, `n_unknown`,
        `n_drugs_unknown`, `n_accepted_known`, `n_accepted_unknown`.

    Raises:
        ValueError: No known pills, or lengths that differ.
    """
    scores_known, is_right = known
    all_scores = np.concatenate([scores_known, scores_unknown])
    all_right = np.concatenate([is_right, np.zeros(len(scores_unknown), bool)])
    curves = {"known": risk_coverage(scores_known, is_right), "all": risk_coverage(all_scores, all_right)}
    limit = np.inf if threshold is None else threshold
    is_accepted, is_fooled = scores_known >= limit, scores_unknown >= limit
    num_accepted, num_fooled = int(is_accepted.sum()), int(is_fooled.sum())
    num_wrong = int((is_accepted & ~is_right).sum())
    has_unknown = len(scores_unknown) > 0
    groups = drugs_unknown if drugs_unknown is not None and len(set(drugs_unknown)) > 1 else None
    return {
        "auroc": auroc(scores_known, scores_unknown) if has_unknown else None,
        "auroc_interval": auroc_interval(scores_known, scores_unknown, groups_known, groups) if has_unknown else None,
        "coverage": num_accepted / len(scores_known),
        "false_accept_rate": num_fooled / len(scores_unknown) if has_unknown else None,
        "error_accepted_known": num_wrong / num_accepted if num_accepted else None,
        "error_accepted": (num_wrong + num_fooled) / (num_accepted + num_fooled) if num_accepted + num_fooled else None,
        "aurc_known": area_under_risk_coverage(scores_known, is_right),
        "aurc": area_under_risk_coverage(all_scores, all_right),
        "accuracy_known": float(np.mean(is_right)),
        "threshold": threshold,
        "risk_coverage": {name: _points(*curve) for name, curve in curves.items()},
        "n_known": len(scores_known),
        "n_unknown": len(scores_unknown),
        "n_drugs_unknown": None if drugs_unknown is None else len(set(drugs_unknown)),
        "n_accepted_known": num_accepted,
        "n_accepted_unknown": num_fooled,
    }


def _points(coverage: Floats, risk: Floats) -> dict[str, list[float]]:
    """Return at most `MAX_POINTS` points of a curve, its ends among them."""
    chosen = np.unique(np.linspace(0, len(coverage) - 1, min(MAX_POINTS, len(coverage))).round().astype(int))
    return {"coverage": coverage[chosen].tolist(), "risk": risk[chosen].tolist()}
