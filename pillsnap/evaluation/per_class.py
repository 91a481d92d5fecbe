"""How well each drug is recognised, and which ones are worst: `reports/per_class_<split>.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path
from pillsnap.evaluation.streaming import ClassificationPredictions


@dataclass(frozen=True, slots=True)
class DrugFigures:
    """One class; shares are 0..1, None where there is nothing to take a share of."""

    code: str
    name: str
    n: int
    """Pills of this drug in the split."""
    precision: float | None
    """Of the answers that name it, the right ones; None where none does."""
    recall: float | None
    """Of its pills, those named; None where the split has none. This is the class's top-1 accuracy."""
    f1: float | None
    """None where neither a pill nor an answer is of this drug."""
    mean_confidence: float | None
    """Of the answers to its pills, right or wrong."""
    most_taken_for: str | None
    """Code of the wrong drug its pills are named most often; the lower class number where two are equal."""
    times: int
    """How often that happens."""


def per_class_figures(
    found: ClassificationPredictions,
    codes: Sequence[str],
    names: Mapping[str, str],
    confidence: NDArray[np.floating[Any]] | None = None,
) -> list[DrugFigures]:
    """Return the figures of every class, in the order of the class map.

    Args:
        found: Answers to pills of known drugs.
        codes: C drug codes by class number.
        names: Drug names by code, where they are known.
        confidence: (N,) calibrated confidences; None for those of the model.

    Raises:
        ValueError: Another number of codes than the model has classes.
    """
    num_classes = found.num_classes
    if len(codes) != num_classes:
        raise ValueError(
            f"got {len(codes)} codes for a model of {num_classes} classes; wanted one a class. Pass the class map the "
            "model was trained with."
        )
    true, pred = found.y_true, found.y_pred
    totals, answers = np.bincount(true, minlength=num_classes), np.bincount(pred, minlength=num_classes)
    right = np.bincount(true[true == pred], minlength=num_classes)
    sums = np.bincount(true, found.confidence if confidence is None else confidence, num_classes)
    mistakes = _most_frequent_mistakes(true, pred)
    rows = []
    for number, code in enumerate(codes):
        n, answered, hits = int(totals[number]), int(answers[number]), int(right[number])
        taken_for, times = mistakes.get(number, (None, 0))
        rows.append(
            DrugFigures(
                code=code,
                name=names.get(code, ""),
                n=n,
                precision=hits / answered if answered else None,
                recall=hits / n if n else None,
                f1=2 * hits / (n + answered) if n + answered else None,
                mean_confidence=float(sums[number] / n) if n else None,
                most_taken_for=None if taken_for is None else codes[taken_for],
                times=times,
            )
        )
    return rows


def worst_classes(rows: Sequence[DrugFigures], count: int) -> list[DrugFigures]:
    """Return the classes with the lowest F1 among those with pills in the split; of equals, those with more pills."""
    seen = [row for row in rows if row.n]
    return sorted(seen, key=lambda row: (row.f1 or 0.0, -row.n, row.code))[:count]


def lowest_figures(rows: Sequence[DrugFigures]) -> dict[str, float]:
    """Return `per_class_min_f1` and `top1_per_class_min`: the lowest F1 and recall of a class with pills in the split.

    Raises:
        ValueError: No class has pills.
    """
    seen = [row for row in rows if row.n]
    if not seen:
        raise ValueError("no class has a pill in the split; wanted at least 1. Check that the split has pictures.")
    return {
        "per_class_min_f1": min(row.f1 or 0.0 for row in seen),
        "top1_per_class_min": min(row.recall or 0.0 for row in seen),
    }


def write_per_class(path: Path, rows: Sequence[DrugFigures]) -> None:
    """Write the classes as CSV, the worst first, those without pills last; an empty field where there is no figure.

    The file begins with a byte order mark, without which spreadsheets garble Korean names.

    Raises:
        PillError: The file cannot be written.
    """
    ordered = worst_classes(rows, len(rows)) + [row for row in rows if not row.n]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(DrugFigures))
        for row in ordered:
            writer.writerow(f"{value:.6f}" if isinstance(value, float) else value for value in astuple(row))


def _most_frequent_mistakes(true: NDArray[np.int64], pred: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
    """Return, by class, the wrong class it is taken for most often, and how often."""
    wrong = true != pred
    pairs, counts = np.unique(np.stack([true[wrong], pred[wrong]]), axis=1, return_counts=True)
    found: dict[int, tuple[int, int]] = {}
    for (is_class, taken_for), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if is_class not in found or count > found[is_class][1]:
            found[is_class] = (taken_for, count)
    return found
