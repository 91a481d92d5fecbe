"""The advice section: what the advisor recommends, from which figures, and the overrides to paste (ADV-1, ADV-2)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_values import minute_text, number, plain_text, rows, words

_CHOICES = {"1", "2", "3"}
# By reason, else by recommendation: to stop for a check that was not run is not to stop for bad figures.
_TITLES = {
    "all_targets_met": "Go on to the next stage",
    "sufficient_performance": "Go on, or improve this run first",
    "time_cap_success": "Go on to the next stage",
    "performance_below_target": "Improve this run before going on",
    "performance_too_low": "Stop here and look at data and model",
    "mandatory_checks_failed": "Get the mandatory checks to pass",
    "critical_failure": "Stop here and remove the cause",
    "RECOMMEND_PROCEED": "Go on to the next stage",
    "SUGGEST_OPTIMIZE": "Improve this run before going on",
    "WARN_STOP": "Stop here and look at data and model",
}
_NOT_ABOUT_TARGETS = {"mandatory_checks_failed", "critical_failure", "time_cap_success"}


@dataclass(frozen=True)
class Suggestion:
    """One thing to change: why, and how."""

    text: str
    figure: str
    """The figure it comes from with its value, for example "classification.accuracy 0.76"."""
    change: str
    """The configuration key and its new value; empty where no setting changes."""
    override: str
    """The same, ready to paste."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What the advice section shows; all empty when no advice was written."""

    title: str
    """The recommendation in words."""
    message: str
    reason: str
    score: str
    suggestions: list[Suggestion]
    options: list[str]
    choice: str
    time: str
    command: str
    """Trains again with the first suggested override; empty where nothing is to be overridden."""
    is_proceed: bool
    first_step: str
    """One sentence: the first thing to do, or why."""


def advice_of(files: ExperimentFiles) -> Advice:
    """Return what `advice.json` holds."""
    advice = files.advice
    name, reason = words(advice, "recommendation"), words(advice, "reason")
    suggestions = [_suggestion(entry, files) for entry in rows(advice, "suggestions")]
    score = number(advice, "performance_score")
    options = advice.get("user_options")
    first = next((entry.override for entry in suggestions if entry.override), "")
    return Advice(
        title=_TITLES.get(reason) or _TITLES.get(name, name.replace("_", " ").capitalize()),
        message=words(advice, "message"),
        reason=reason.replace("_", " "),
        score="" if score is None else f"{score:.3f}",
        suggestions=suggestions,
        options=[str(option) for option in options] if isinstance(options, list) else [],
        choice=_choice(advice),
        time=minute_text(advice.get("time")),
        command=_command(files, first) if first else "",
        first_step=_first_step(reason, suggestions) or words(advice, "message"),
        is_proceed=name == "RECOMMEND_PROCEED",
    )


def _first_step(reason: str, suggestions: list[Suggestion]) -> str:
    """Return the first suggestion, where the advice is about targets: suggestions do not mend a check."""
    return "" if reason in _NOT_ABOUT_TARGETS or not suggestions else suggestions[0].text


def _command(files: ExperimentFiles, override: str) -> str:
    """Return the command that trains again as before but for one override (words for a shell), in a new folder."""
    exp_dir = files.exp_dir
    words_of_it = ["pillsnap", "train", "--cfg", str(exp_dir / "config.yaml"), f"paths.exp_dir={exp_dir}_next"]
    return f"{shlex.join(words_of_it)} {override}"


def _choice(advice: Mapping[str, Any]) -> str:
    """Say what the user chose; nobody is asked where there is no terminal."""
    choice = words(advice, "user_choice")
    if choice in _CHOICES:
        return f"Chosen: {choice}."
    return "Nobody has chosen yet." if advice else ""


def _suggestion(entry: Mapping[str, Any], files: ExperimentFiles) -> Suggestion:
    """Return one suggestion in the page's language."""
    value, key = entry.get("value"), words(entry, "key")
    figure = words(entry, "figure")
    wanted = f" (wanted {entry['wanted']})" if entry.get("wanted") else ""
    return Suggestion(
        text=words(entry, "text_en") or words(entry, "text"),
        figure=f"{figure} {plain_text(value)}{wanted}" if figure else "",
        change=f"{key} = {plain_text(entry.get('new_value'))}" if key and entry.get("new_value") is not None else "",
        override=words(entry, "override"),
    )
