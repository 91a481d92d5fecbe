"""Which of two experiments names drugs better, on the pictures that both were judged on.

Two runs over the same pictures are compared picture by picture, which tells much smaller differences from chance than
two accuracies side by side do. Runs that were judged on other pictures are only laid side by side, and that is said;
the pictures they share are no training pictures of either, and are compared as well.

    comparison = compare_experiments(Path("runs/before"), Path("runs/after"))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from pillsnap.errors import DataError
from pillsnap.evaluation.prediction_table import PredictionTable, read_predictions

PREDICTIONS = Path("reports", "predictions_val.arrow")
RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 42

Key = tuple[str, str, int]


@dataclass(frozen=True)
class PairedAnswers:
    """The answers of two experiments to the same pills."""

    a: PredictionTable
    b: PredictionTable
    rows_a: NDArray[np.int64]
    """Rows of `a`, (N,): pill i is answered in row `rows_a[i]` of `a` and `rows_b[i]` of `b`."""
    rows_b: NDArray[np.int64]
    is_same_split: bool
    """Both were judged on exactly the same pills."""

    def __len__(self) -> int:
        """Return the number of pills both answered."""
        return len(self.rows_a)

    @property
    def is_right_a(self) -> NDArray[np.bool_]:
        """Which pills `a` named rightly, (N,)."""
        return self.a.is_right[self.rows_a]

    @property
    def is_right_b(self) -> NDArray[np.bool_]:
        """Which pills `b` named rightly, (N,)."""
        return self.b.is_right[self.rows_b]

    @property
    def only_a_right(self) -> NDArray[np.int64]:
        """Positions of the pills that only `a` named rightly."""
        return np.flatnonzero(self.is_right_a & ~self.is_right_b)

    @property
    def only_b_right(self) -> NDArray[np.int64]:
        """Positions of the pills that only `b` named rightly."""
        return np.flatnonzero(self.is_right_b & ~self.is_right_a)


def pair_answers(a: PredictionTable, b: PredictionTable) -> PairedAnswers:
    """Find the pills both tables answer: same picture, same box, same label."""
    place = {key: row for row, key in enumerate(_keys(b))}
    pairs = [(row, place[key]) for row, key in enumerate(_keys(a)) if key in place]
    same = [(row_a, row_b) for row_a, row_b in pairs if a.true_code[row_a] == b.true_code[row_b]]
    rows = np.array(same, np.int64).reshape(-1, 2)
    return PairedAnswers(a, b, rows[:, 0], rows[:, 1], is_same_split=len(same) == len(a) == len(b))


def _keys(table: PredictionTable) -> Iterator[Key]:
    return zip(table.sample_id, table.image_path, table.box.tolist(), strict=True)


def compare_experiments(a_dir: Path, b_dir: Path) -> dict[str, Any]:
    """Compare the accuracy of two experiments on val.

    Args:
        a_dir: The experiment to compare with, the earlier one.
        b_dir: The experiment in question.

    Returns:
        Plain data: `kind` ("paired" or "unpaired"), `reason` (why unpaired, else None), `a` and `b` {exp_dir, accuracy,
        n, n_right}, `difference` (b minus a) with its 95 % `interval` and the `method` it comes from, and `pairs`: the
        same on the pills both answered {n, n_groups, accuracy_a, accuracy_b, difference, interval, both_right,
        both_wrong, only_a_right, only_b_right, p_value}, None where there is no such pill.

    Raises:
        DataError: The predictions of one of them are missing, damaged or empty.
    """
    tables = [_read(folder) for folder in (a_dir, b_dir)]
    paired = pair_answers(*tables)
    pairs = _figures_of_pairs(paired) if len(paired) else None
    a, b = ({"exp_dir": str(folder), **_side(table)} for folder, table in zip((a_dir, b_dir), tables, strict=True))
    if pairs is not None and paired.is_same_split:
        method = f"bootstrap over {pairs['n_groups']} groups of pictures, {RESAMPLES} resamples"
        found = {"kind": "paired", "reason": None, "difference": pairs["difference"], "interval": pairs["interval"]}
    else:
        method = "Newcombe's interval of two independent shares"
        low, high = difference_interval(a["n_right"], a["n"], b["n_right"], b["n"])
        found = {
            "kind": "unpaired",
            "reason": f"the val splits differ: {len(paired)} pills are in both, of {a['n']} and {b['n']}",
            "difference": b["accuracy"] - a["accuracy"],
            "interval": [low, high],
        }
    return {**found, "method": method, "a": a, "b": b, "pairs": pairs}


def mcnemar_p(only_a_right: int, only_b_right: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: how likely so lopsided a disagreement is by chance.

    It takes answers for independent; where several pictures show the same shot the true value is larger.
    """
    disagreements = only_a_right + only_b_right
    return float(binomtest(only_a_right, disagreements).pvalue) if disagreements else 1.0


def difference_interval(right_a: int, n_a: int, right_b: int, n_b: int) -> tuple[float, float]:
    """Return the 95 % interval of b's share minus a's, for independent samples (Newcombe 1998, method 10)."""
    share_a, share_b = right_a / n_a, right_b / n_b
    low_a, high_a = _wilson(right_a, n_a)
    low_b, high_b = _wilson(right_b, n_b)
    difference = share_b - share_a
    down = np.hypot(share_b - low_b, high_a - share_a)
    up = np.hypot(high_b - share_b, share_a - low_a)
    return float(difference - down), float(difference + up)


def group_bootstrap(values: NDArray[np.float64], groups: list[str]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` when whole groups are drawn anew.

    Args:
        values: One a pill, (N,), at least one.
        groups: The group of each; its pills are drawn together, because they are not independent.
    """
    number = np.unique(np.array(groups), return_inverse=True)[1]
    sums, sizes = np.bincount(number, values), np.bincount(number)
    generator = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):  # one by one: all at once would take gigabytes for 60,000 groups
        drawn = generator.integers(len(sums), size=len(sums))
        means[index] = sums[drawn].sum() / sizes[drawn].sum()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _read(exp_dir: Path) -> PredictionTable:
    table = read_predictions(exp_dir / PREDICTIONS)
    if not len(table):
        raise DataError(
            f"{exp_dir / PREDICTIONS} holds no answers; wanted those to the val split. Judge an experiment that "
            "trained the classifier."
        )
    return table


def _side(table: PredictionTable) -> dict[str, Any]:
    num_right = int(table.is_right.sum())
    return {"accuracy": num_right / len(table), "n": len(table), "n_right": num_right}


def _figures_of_pairs(paired: PairedAnswers) -> dict[str, Any]:
    right_a, right_b = paired.is_right_a, paired.is_right_b
    groups = [paired.a.group[row] for row in paired.rows_a]
    only_a, only_b = len(paired.only_a_right), len(paired.only_b_right)
    return {
        "n": len(paired),
        "n_groups": len(set(groups)),
        "accuracy_a": float(right_a.mean()),
        "accuracy_b": float(right_b.mean()),
        "difference": (only_b - only_a) / len(paired),
        "interval": list(group_bootstrap(right_b.astype(float) - right_a.astype(float), groups)),
        "both_right": int((right_a & right_b).sum()),
        "both_wrong": int((~right_a & ~right_b).sum()),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "p_value": mcnemar_p(only_a, only_b),
    }


def _wilson(right: int, n: int) -> tuple[float, float]:
    interval = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
