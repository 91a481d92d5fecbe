"""The final test: were the goals met, how far is it from the val figures, and how often was it used (FIN-1, FIN-2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, grid_of
from pillsnap.evaluation.report_values import count_text, figure_name, interval, number, part, plain_text, rows
from pillsnap.evaluation.report_verdict import Target, target_of

READY = "READY_FOR_PRODUCTION"
_GOALS = {"single_macro_f1": "one pill.macro_f1", "combo_mAP_0.5": "several pills.mAP_0.5"}
_USE_COLUMNS = ("time", "ended", "completed", "forced", "pictures", "git_sha", "exp_dir")


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
    other_uses: Table | None
    """Of the same pictures, by other trainings."""
    warnings: list[str]


def final_test_of(files: ExperimentFiles) -> FinalTest:
    """Return what `final_test_results.json` holds."""
    result = files.final_test
    goals = [_goal(name, goal) for name, goal in part(result, "business_goals").items() if isinstance(goal, Mapping)]
    is_ready = result.get("recommendation") == READY and result.get("ready_for_production") is True
    improvements = result.get("improvements")
    uses, others = rows(files.test_uses, "uses") or rows(result, "uses"), rows(result, "other_uses")
    return FinalTest(
        is_done=bool(result),
        is_ready=is_ready,
        title="Ready for production" if is_ready else "Needs improvement",
        goals=goals,
        comparison=_comparison(result),
        improvements=[plain_text(item) for item in improvements] if isinstance(improvements, list) else [],
        uses=_uses("uses of the test split", uses),
        other_uses=_uses("uses of the same pictures by other trainings", others),
        warnings=[*_damage(files), *_warnings(uses, others), *_suspicions(result)],
    )


def _damage(files: ExperimentFiles) -> Iterator[str]:
    for name in files.damaged_records:
        yield f"{name} is damaged and not shown. Keep it: it records uses of the test split."


def _goal(name: str, goal: Mapping[str, Any]) -> Target:
    """Return one business goal as a target of the page."""
    wanted, value = number(goal, "goal"), number(goal, "value")
    ratio = value / wanted if value is not None and wanted else None
    entry = {
        "name": _GOALS.get(name, name),
        "wanted": f">={plain_text(wanted)}",
        "value": value,
        "met": goal.get("met"),
        "ratio": ratio,
    }
    return target_of(entry)


def _comparison(result: Mapping[str, Any]) -> Table | None:
    """Return val and test side by side, with how much of the difference may be chance."""
    compared = part(result, "differences")
    cells = [
        [figure_name(f"{task}.{name}"), *_compared(part(compared, task, name))]
        for task in compared
        for name in part(compared, task)
    ]
    columns = ["figure", "val", "test", "val minus test", "95% interval of it"]
    return Table("val against test", columns, cells) if cells else None


def _compared(entry: Mapping[str, Any]) -> list[str]:
    values = (number(entry, "val"), number(entry, "test"))
    difference, pair = number(entry, "val_minus_test"), interval(entry, "interval")
    texts = ["–" if value is None else f"{value:.4f}" for value in values]
    texts.append("–" if difference is None else f"{difference:+.4f}")
    return [*texts, f"{pair[0]:+.4f} to {pair[1]:+.4f}" if pair else "–"]


def _suspicions(result: Mapping[str, Any]) -> list[str]:
    """Say where val flattered the model by more than chance."""
    found = part(result, "overfitting")
    suspected = [task for task in found if part(found, task).get("suspected") is True]
    return [
        f"The {task} figure fell from val to test by more than chance explains: the model fits val too well."
        for task in suspected
    ]


def _uses(title: str, uses: list[Mapping[str, Any]]) -> Table | None:
    """Return who opened the test split and when; hashes stay in the file."""
    shown = [{key: use[key] for key in _USE_COLUMNS if key in use} for use in uses]
    return grid_of(title, shown) if shown else None


def _warnings(uses: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> Iterator[str]:
    """Say when the test split was opened more than once: its figures are then no longer those of a first look."""
    forced = sum(use.get("forced") is True for use in uses)
    if forced:
        times = count_text(forced, "time", "times")
        yield f"The test split was opened again by force, {times}: its figures are no longer those of a first look."
    if others:
        times = count_text(len(others), "use", "uses")
        yield f"The same test pictures were opened for other trainings before ({times})."
