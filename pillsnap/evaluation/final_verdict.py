"""What the figures of the final test mean: goals met or not, val against test, and what to improve (FIN-1).

Pure functions over figures as `SplitEvaluation.run` returns them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

READY = "READY_FOR_PRODUCTION"
NOT_READY = "NEEDS_IMPROVEMENT"

# Our names -> the specification's, in the files of the final test.
_SPECIFIED = {"acc": "accuracy", "mAP@0.5": "mAP_0.5", "mAP@0.5:0.95": "mAP_0.5:0.95"}
_COMPARED = {
    "classification": ("acc", "macro_f1", "top5"),
    "detection": ("mAP@0.5", "mAP@0.5:0.95", "precision", "recall"),
    "end_to_end": ("recall", "precision", "f1"),
}


class Goal(NamedTuple):
    """A figure of the test split that the product needs; `minimum` counts as met."""

    name: str
    task: str
    figure: str
    minimum: float


GOALS = (
    Goal("single_macro_f1", "classification", "macro_f1", 0.92),
    Goal("combo_mAP_0.5", "detection", "mAP@0.5", 0.85),
)


def named_as_specified(figures: Any) -> Any:
    """Return figures under the specification's names (`accuracy`, `mAP_0.5`), mappings inside included."""
    if not isinstance(figures, Mapping):
        return figures
    return {_SPECIFIED.get(key, key): named_as_specified(value) for key, value in figures.items()}


def business_goals(test: Mapping[str, Any]) -> dict[str, Any]:
    """Compare figures with the goals: single macro F1 >= 0.92 and combo mAP@0.5 >= 0.85.

    Args:
        test: Figures of the test split. One that is missing, null, NaN, infinite or no number is not met.

    Returns:
        For each goal {goal, value, met}, and `overall_target_met`: whether all are.
    """
    found: dict[str, Any] = {}
    for goal in GOALS:
        value = _number(test, goal.task, goal.figure)
        found[goal.name] = {"goal": goal.minimum, "value": value, "met": value is not None and value >= goal.minimum}
    return {**found, "overall_target_met": all(entry["met"] for entry in found.values())}


def recommendation(goals: Mapping[str, Any]) -> str:
    """Return READY_FOR_PRODUCTION if and only if all of `business_goals` are met."""
    return READY if goals["overall_target_met"] is True else NOT_READY


def differences(val: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, by task and figure, {val, test, val_minus_test, interval} for what both splits have.

    `interval` is the 95 % interval of the difference of two independent figures, from the interval of each (MOVER:
    Zou & Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27, 2008); null
    where one of them has none.
    """
    found: dict[str, dict[str, Any]] = {}
    for task, names in _COMPARED.items():
        for name in names:
            before, after = _number(val, task, name), _number(test, task, name)
            if before is None or after is None:
                continue
            found.setdefault(task, {})[_SPECIFIED.get(name, name)] = {
                "val": before,
                "test": after,
                "val_minus_test": before - after,
                "interval": _interval_of_difference(
                    before, after, _interval(val, task, name), _interval(test, task, name)
                ),
            }
    return found


def overfitting(compared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say for each goal's figure whether val was better than test by more than chance.

    The best checkpoints were chosen on val, so its figures flatter; how much is what this tells.

    Args:
        compared: From `differences`.

    Returns:
        By task {figure, val_minus_test, interval, suspected}. `suspected` is whether the whole interval lies above 0;
        null without an interval. A figure that one of the splits lacks has no entry.
    """
    found = {}
    for goal in GOALS:
        name = _SPECIFIED.get(goal.figure, goal.figure)
        entry = compared.get(goal.task, {}).get(name)
        if entry is not None:
            interval = entry["interval"]
            suspected = None if interval is None else interval[0] > 0
            found[goal.task] = {
                "figure": name,
                "val_minus_test": entry["val_minus_test"],
                "interval": interval,
                "suspected": suspected,
            }
    return found


def improvements(
    test: Mapping[str, Any],
    goals: Mapping[str, Any],
    overfit: Mapping[str, Any],
    worst_drugs: Sequence[Mapping[str, str]] = (),
) -> list[str]:
    """Return sentences that say what keeps the goals from being met, each with its figure; none where all are met.

    Args:
        test: Figures of the test split.
        goals: From `business_goals`.
        overfit: From `overfitting`.
        worst_drugs: The first rows of `reports/per_class_test.csv`.
    """
    if goals["overall_target_met"]:
        return []
    found = [_shortfall(goal, goals[goal.name]["value"], test) for goal in GOALS if not goals[goal.name]["met"]]
    if worst_drugs and not goals["single_macro_f1"]["met"]:
        found.append(f"Worst recognised: {'; '.join(map(_drug_text, worst_drugs))}.")
    for task, entry in overfit.items():
        if entry["suspected"]:
            found.append(
                f"{task} {entry['figure']} is {entry['val_minus_test']:.4f} better on val than on test, more than "
                "chance explains: the model was fitted to val. Train with stronger augmentation or stop earlier."
            )
    boxes, drugs = (_number(test, "end_to_end", name) for name in ("box_recall", "drug_accuracy_on_found"))
    if boxes is not None and drugs is not None:
        weaker = "naming the drug of a found pill" if drugs < boxes else "finding the pills"
        found.append(
            f"Of the combination pictures' pills {boxes:.1%} were found, and {drugs:.1%} of those were named right: "
            f"{weaker} loses more."
        )
    return found


def _shortfall(goal: Goal, value: float | None, test: Mapping[str, Any]) -> str:
    if value is None:
        return (
            f"{goal.name} was not measured, wanted {goal.minimum} or more: the {goal.task} task was not trained, or "
            "the test split holds nothing for it."
        )
    sentence = f"{goal.name} is {value:.4f}, wanted {goal.minimum} or more: {goal.minimum - value:.4f} short."
    interval = _interval(test, goal.task, goal.figure)
    if interval is not None and interval[1] >= goal.minimum:
        sentence += f" Its 95 % interval reaches {interval[1]:.4f}: more test pictures would tell."
    return sentence


def _drug_text(row: Mapping[str, str]) -> str:
    drug = " ".join(filter(None, (row["code"], row["name"])))
    mistaken = f", taken for {row['most_taken_for']} in {row['times']} of {row['n']}" if row["most_taken_for"] else ""
    return f"{drug} (F1 {float(row['f1'] or 0):.2f}{mistaken})"


def _number(figures: Mapping[str, Any], task: str, name: str) -> float | None:
    """Return a figure; None where it is missing, no number, or not finite."""
    value = (figures.get(task) or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _interval(figures: Mapping[str, Any], task: str, name: str) -> tuple[float, float] | None:
    bounds = ((figures.get(task) or {}).get("intervals") or {}).get(name)
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return None
    low, high = bounds
    is_number = all(isinstance(bound, int | float) and math.isfinite(bound) for bound in bounds)
    return (float(low), float(high)) if is_number else None


def _interval_of_difference(
    before: float, after: float, around_before: tuple[float, float] | None, around_after: tuple[float, float] | None
) -> list[float] | None:
    if around_before is None or around_after is None:
        return None
    difference = before - after
    # A bootstrap interval need not hold its figure: resampled macro F1 is lower than the sample's.
    below = math.hypot(max(before - around_before[0], 0.0), max(around_after[1] - after, 0.0))
    above = math.hypot(max(around_before[1] - before, 0.0), max(after - around_after[0], 0.0))
    return [difference - below, difference + above]
