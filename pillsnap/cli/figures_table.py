"""The figures of a split and the verdict of the final test, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pillsnap.evaluation.final_verdict import named_as_specified

FIGURES = {
    "classification": {"accuracy": "accuracy", "macro_f1": "macro F1", "top5": "top-5"},
    "detection": {"mAP_0.5": "mAP@0.5", "mAP_0.5:0.95": "mAP@0.5:0.95", "precision": "precision", "recall": "recall"},
    "end_to_end": {"recall": "right box and drug", "precision": "answers that are right", "f1": "F1"},
}
TITLES = {"classification": "single pill", "detection": "detection", "end_to_end": "combo, end to end"}


def figures_table(figures: Mapping[str, Any], split: str) -> Table:
    """Return the main figures of a split as a table.

    Args:
        figures: By task, under our names or the specification's; what was not measured is a dash.
        split: Their name.
    """
    table = Table(title=f"best models, {split} split", title_justify="left")
    for column in ("task", "figure", "value", "of"):
        table.add_column(column, justify="right" if column in ("value", "of") else "left")
    for task, names in FIGURES.items():
        values = named_as_specified(figures.get(task))
        for key, title in names.items() if values is not None else ():
            value = values.get(key)
            table.add_row(TITLES[task], title, "–" if value is None else f"{value:.4f}", _count(task, values))
    return table


def show_verdict(results: Mapping[str, Any], console: Console) -> None:
    """Print what the final test has come to: goals, recommendation, and what to improve."""
    for name, goal in results["business_goals"].items():
        if name != "overall_target_met":
            value = "not measured" if goal["value"] is None else f"{goal['value']:.4f}"
            met = "met" if goal["met"] else "not met"
            console.print(f"{name}: {value}, goal {goal['goal']} {met}", highlight=False)
    console.print(results["recommendation"], highlight=False)
    for sentence in results["improvements"]:
        console.print(f"- {sentence}", highlight=False, markup=False)


def _count(task: str, values: Mapping[str, Any]) -> str:
    return f"{values['n']} pills" if task == "classification" else f"{values['n_boxes']} boxes"
