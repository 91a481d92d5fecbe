"""How evenly the pills are spread over the classes: the figures of the check `class_balance_verification` (D-14)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.classes import ClassMap, codes_shown
from pillsnap.data.records import Records
from pillsnap.data.splits import TEST, TRAIN, UNKNOWN, VAL, SplitColumn

logger = logging.getLogger("pillsnap")

MAX_IMBALANCE = 10.0  # D-14, stage 2: class_imbalance_ratio <= 10:1
NUM_NAMED = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassBalance:
    """Figures over the pills of one side, class by class."""

    num_classes: int
    num_pills: int
    min_pills: int
    median_pills: float
    max_pills: int
    imbalance_ratio: float | None
    """Pills of the largest class over those of the smallest; None where a class has none, or there is no class."""
    gini: float
    """0: all classes have the same number; towards 1: few classes have nearly all."""
    below_minimum: list[str]
    """Classes with fewer pills than the minimum, the smallest first."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def class_balance(pills: Mapping[str, int], minimum: int = 0) -> ClassBalance:
    """Return the figures of pills per class.

    Args:
        pills: Class key -> number of pills; 0 for a class that has none.
        minimum: Classes with fewer are named.
    """
    counts = np.array(sorted(pills.values()), np.int64)
    smallest, largest = (int(counts[0]), int(counts[-1])) if len(counts) else (0, 0)
    return ClassBalance(
        num_classes=len(counts),
        num_pills=int(counts.sum()),
        min_pills=smallest,
        median_pills=float(np.median(counts)) if len(counts) else 0.0,
        max_pills=largest,
        imbalance_ratio=largest / smallest if smallest else None,
        gini=gini(counts),
        below_minimum=sorted((code for code in pills if pills[code] < minimum), key=lambda code: (pills[code], code)),
    )


def gini(counts: NDArray[np.int64]) -> float:
    """Return the Gini coefficient of numbers of 0 and more, (C,); 0 where there is nothing to be shared."""
    total = counts.sum()
    if not total:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float((2 * ranks - len(counts) - 1) @ np.sort(counts) / (len(counts) * total))


def verify_class_balance(
    records: Records, split: SplitColumn, class_map: ClassMap, *, minimum: int, max_imbalance: float = MAX_IMBALANCE
) -> dict[str, Any]:
    """Return the figures of every side and whether the training side is balanced; log them.

    Only numbers are looked at: nothing of the sealed test split is opened.

    Args:
        records: The picture table of the run.
        split: (N,) the side of each picture.
        class_map: The classes; a side's class without a pill counts as 0.
        minimum: Fewest pills of a class in train (`data.progressive_validation.min_images_per_class`).
        max_imbalance: Largest ratio of the largest to the smallest class of train.

    Returns:
        Plain data: `class_balance_verification` (bool), `reasons` (why not), the limits, and the figures of each side.
    """
    sides = {side: _figures(records, split == side, class_map, minimum) for side in (TRAIN, VAL, TEST)}
    train = sides[TRAIN]
    reasons = []
    if train.imbalance_ratio is None or train.imbalance_ratio > max_imbalance:
        ratio = "without bound" if train.imbalance_ratio is None else f"{train.imbalance_ratio:.1f}:1"
        reasons.append(f"the largest class has {train.max_pills} pills, the smallest {train.min_pills} ({ratio})")
    if train.below_minimum:
        named = ", ".join(train.below_minimum[:NUM_NAMED])
        reasons.append(f"{len(train.below_minimum)} classes have fewer than {minimum} pills: {named}")
    logger.info(
        "class balance of train: %d classes, %d to %d pills each, gini %.3f: %s",
        train.num_classes,
        train.min_pills,
        train.max_pills,
        train.gini,
        "; ".join(reasons) or "balanced",
    )
    return {
        "class_balance_verification": not reasons,
        "reasons": reasons,
        "max_imbalance_ratio": max_imbalance,
        "min_images_per_class": minimum,
        "unknown_pictures": int(np.count_nonzero(split == UNKNOWN)),
        "splits": {side: figures.to_dict() for side, figures in sides.items()},
    }


def _figures(records: Records, is_used: NDArray[np.bool_], class_map: ClassMap, minimum: int) -> ClassBalance:
    shown = codes_shown(records, is_used)
    return class_balance({code: shown.get(code, 0) for code in class_map.codes}, minimum)
