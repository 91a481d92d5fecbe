"""The final test: were the goals met, how far is it from the val figures, and how often was it used (FIN-1, FIN-2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_figures import CLASSIFICATION, DETECTION, END_TO_END
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, grid_of
from pillsnap.evaluation.report_values import count_text, figure_name, number, part, plain_text, rows
from pillsnap.evaluation.report_verdict import Target, target_of

READY = "READY_FOR_PRODUCTION"
_GOALS = {"single_macro_f1": "one pill: macro F1", "combo_mAP_0.5": "several pills: mAP@0.5"}


@dataclass(frozen=True, kw_only=True)
class FinalTest:
    """What the final test's section shows."""

    is_done: bool
    is_ready: bool
    title: str
    goals: list[Target]
    comparison: Table | None
    """val against test"""
    improvements: list[str]
    uses: Table | None
    warning: str


def final_test_of(files: ExperimentFiles) -> FinalTest:
    """Return what `final_test_results.json` holds."""
    result = files.final_test
    goals = [_goal(name, goal) for name, goal in part(result, "business_goals").items() if isinstance(goal, Mapping)]
    is_ready = result.get("recommendation") == READY and result.get("ready_for_production") is True
    improvements = result.get("improvements")
    uses = rows(result, "uses")
    return FinalTest(
        is_done=bool(result),
        is_ready=is_ready,
        title="Ready for production" if is_ready else "Needs improvement",
        goals=goals,
        comparison=_comparison(result),
        improvements=[plain_text(item) for item in improvements] if isinstance(improvements, list) else [],
        uses=grid_of("uses of the test split", uses) if uses else None,
        warning=_warning(uses),
    )


def _goal(name: str, goal: Mapping[str, Any]) -> Target:
    """Return one business goal as a target of the page."""
    wanted, value = number(goal, "goal"), number(goal, "value")
    ratio = value / wanted if value is not None and wanted else None
    entry = {
        "name": _GOALS.get(name, name.replace("_", " ")),
        "wanted": f">={plain_text(wanted)}",
        "value": value,
        "met": goal.get("met"),
        "ratio": ratio,
    }
    return target_of(entry)


def _comparison(result: Mapping[str, Any]) -> Table | None:
    """Return val and test side by side; what only one of them has is left out."""
    found = [
        row
        for task in (CLASSIFICATION, DETECTION, END_TO_END, "unknown")
        for row in _rows(task, part(result, "val_results", task), part(result, "test_results", task))
    ]
    return Table("test against val", ["figure", "val", "test", "difference"], found) if found else None


def _rows(task: str, val: Mapping[str, Any], test: Mapping[str, Any]) -> Iterator[list[str]]:
    for key in test:
        before, after = number(val, key), number(test, key)
        if before is not None and after is not None and not key.startswith("n_") and key != "n":
            yield [figure_name(f"{task}.{key}"), f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]


def _warning(uses: list[Mapping[str, Any]]) -> str:
    """Say when the test split was opened more than once: its figures are then no longer untouched."""
    forced = sum(use.get("forced") is True for use in uses)
    if len(uses) < 2:
        return ""
    text = f"The test split was opened {count_text(len(uses), 'time', 'times')}"
    return (
        f"{text}, {forced} of them by force: its figures are no longer those of a first look."
        if forced
        else (f"{text}; see below which of them were cut short.")
    )
