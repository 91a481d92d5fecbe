"""What a terminal shows of a split's figures and of the final test."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console, RenderableType

from pillsnap.cli.figures_table import figures_table, show_verdict
from pillsnap.evaluation.final_verdict import business_goals, improvements, recommendation

pytestmark = pytest.mark.req("FIN-1")


def lines_of(table: RenderableType) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    return [line.replace("│", " ").split() for line in shown.get().splitlines()]


@pytest.mark.parametrize("name", ["acc", "accuracy"])
def test_figures_are_shown_under_either_name_and_what_is_missing_as_a_dash(name: str) -> None:
    lines = lines_of(figures_table({"classification": {name: 0.75, "macro_f1": None, "n": 80}}, "val"))
    assert lines[0] == ["best", "models,", "val", "split"]
    assert ["single", "pill", "accuracy", "0.7500", "80", "pills"] in lines
    assert ["single", "pill", "macro", "F1", "–", "80", "pills"] in lines
    assert not any("detection" in line for line in lines)


@pytest.mark.parametrize(
    ("macro_f1", "met", "verdict"),
    [
        (0.92, "met", ["READY_FOR_PRODUCTION"]),
        (0.5, "not met", ["NEEDS_IMPROVEMENT", "- single_macro_f1 is 0.5000, wanted 0.92 or more: 0.4200 short."]),
    ],
)
def test_the_verdict_is_shown_with_its_goals(macro_f1: float, met: str, verdict: list[str]) -> None:
    test: dict[str, Any] = {"classification": {"macro_f1": macro_f1}, "detection": {"mAP@0.5": 0.9}}
    goals = business_goals(test)
    results = {
        "business_goals": goals,
        "recommendation": recommendation(goals),
        "improvements": improvements(test, goals, {}),
    }
    console = Console(soft_wrap=True)
    with console.capture() as shown:
        show_verdict(results, console)
    goal_lines = [f"single_macro_f1: {macro_f1:.4f}, goal 0.92 {met}", "combo_mAP_0.5: 0.9000, goal 0.85 met"]
    assert shown.get().splitlines() == [*goal_lines, *verdict]
