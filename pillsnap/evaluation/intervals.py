"""How far a figure could be off by chance: 95 % intervals by the bootstrap.

Pictures of the same shot are near copies of each other, so whole groups are drawn with replacement, not single
pictures; drawing pictures would make the interval too narrow. The figure is computed anew for each draw, and the
interval holds the middle 95 % (percentile bootstrap; Efron & Tibshirani 1993, chapter 13). The draws are seeded: the
same answers give the same interval.

Where every group is right (or wrong), every draw is too, and the bootstrap would promise [1, 1] from three pictures.
There the exact bound for that many groups is taken instead (Clopper & Pearson 1934): with n groups, all right, shares
below 0.025 ** (1 / n) are unlikely.

It speaks for the chance in the pictures of this split, and for nothing else: not for another training seed, and not
for photographs of another kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pillsnap.evaluation.streaming import ClassificationPredictions

NUM_RESAMPLES = 1000
SEED = 0
PERCENTILES = (2.5, 97.5)

Interval: TypeAlias = list[float] | None
"""[low, high]; None where there are fewer than two groups, which say nothing about chance."""
Numbers: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.floating[Any]] | NDArray[np.bool_]
Ratio: TypeAlias = tuple[Numbers, Numbers]
"""What is counted, and out of what, one value a sample each: the figure is the ratio of their sums."""


def group_numbers(groups: Sequence[str] | Numbers | None, num_samples: int) -> NDArray[np.int64]:
    """Return the number of each sample's group, (N,), from 0.

    Args:
        groups: One name a sample; None where every sample stands for itself.
        num_samples: N.

    Raises:
        ValueError: Not one group a sample.
    """
    if groups is None:
        return np.arange(num_samples)
    if len(groups) != num_samples:
        raise ValueError(
            f"got {len(groups)} groups for {num_samples} samples; wanted one a sample. Pass the groups of the same "
            "samples, or None where each stands for itself."
        )
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def draws(num_groups: int, num_resamples: int = NUM_RESAMPLES, seed: int = SEED) -> Iterator[NDArray[np.int64]]:
    """Draw as many groups as there are, with replacement, again and again.

    Yields:
        (G,) how often each group was drawn.
    """
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples):
        yield np.bincount(rng.integers(0, num_groups, num_groups), minlength=num_groups)


def interval_of(values: Sequence[float] | NDArray[np.floating[Any]], num_groups: int | None = None) -> Interval:
    """Return the middle 95 % of the figures of all draws; a draw without a figure (NaN) is left out.

    Args:
        values: One figure a draw.
        num_groups: Groups that were drawn from, where the figure is a share in 0..1; None where it is not.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    if num_groups is not None and (finite == finite[0]).all() and finite[0] in (0.0, 1.0):
        bound = (PERCENTILES[0] / 100) ** (1 / num_groups)
        return [bound, 1.0] if finite[0] else [0.0, 1.0 - bound]
    return [float(value) for value in np.percentile(finite, PERCENTILES)]


def ratio_intervals(
    ratios: Mapping[str, Ratio],
    groups: Sequence[str] | Numbers | None = None,
    *,
    are_shares: bool = True,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """Return the intervals of figures that are ratios of sums: shares, means, precision, recall.

    Args:
        ratios: By the figure's name.
        groups: One a sample; None where every sample stands for itself.
        are_shares: Whether the figures lie in 0..1, where 0 and 1 are extremes.
        num_resamples: How many draws.

    Raises:
        ValueError: Not one group a sample.
    """
    num_samples = len(next(iter(ratios.values()))[0])
    numbers = group_numbers(groups, num_samples)
    num_groups = _count(numbers)
    if num_groups < 2:
        return dict.fromkeys(ratios, None)
    sums = np.stack([np.bincount(numbers, np.asarray(part), num_groups) for pair in ratios.values() for part in pair])
    totals = np.stack([sums @ drawn for drawn in draws(num_groups, num_resamples)]).reshape(num_resamples, -1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw that holds none of what is counted has no figure
        figures = totals[..., 0] / totals[..., 1]
    counted = (sums[1::2] > 0).sum(axis=1).tolist()  # groups that hold something to take a share of
    return {
        name: interval_of(figures[:, column], counted[column] if are_shares else None)
        for column, name in enumerate(ratios)
    }


def classification_intervals(
    found: ClassificationPredictions,
    groups: Sequence[str] | Numbers | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """Return the intervals of `acc`, `top5`, `nll`, `confidence` and `macro_f1`.

    Macro F1 is, in each draw, the mean over the classes that occur in it, as scikit-learn would compute it there. With
    few pictures a class, a draw shows a class whole or not at all, and the interval tends to lie a little low.

    Args:
        found: Answers to pills of known drugs.
        groups: One a pill; None where every pill stands for itself.
        num_resamples: How many draws.

    Raises:
        ValueError: Not one group a pill.
    """
    ones = np.ones(len(found))
    shares: dict[str, Ratio] = {"acc": (found.ranks == 0, ones), "top5": (found.ranks < 5, ones)}
    means: dict[str, Ratio] = {"nll": (found.nll, ones), "confidence": (found.confidence, ones)}
    return {
        **ratio_intervals(shares, groups, num_resamples=num_resamples),
        "macro_f1": _macro_f1_interval(found, group_numbers(groups, len(found)), num_resamples),
        **ratio_intervals(means, groups, are_shares=False, num_resamples=num_resamples),
    }


def _macro_f1_interval(found: ClassificationPredictions, numbers: NDArray[np.int64], num_resamples: int) -> Interval:
    num_groups = _count(numbers)
    if num_groups < 2:
        return None
    true, pred = found.y_true, found.y_pred
    is_right = true == pred
    values = np.empty(num_resamples)
    for number, drawn in enumerate(draws(num_groups, num_resamples)):
        weights = drawn[numbers].astype(np.float64)
        right = np.bincount(true[is_right], weights[is_right], found.num_classes)
        both = np.bincount(true, weights, found.num_classes) + np.bincount(pred, weights, found.num_classes)
        occurs = both > 0
        values[number] = np.mean(2 * right[occurs] / both[occurs])
    return interval_of(values, num_groups)


def _count(numbers: NDArray[np.int64]) -> int:
    return int(numbers.max(initial=-1)) + 1
