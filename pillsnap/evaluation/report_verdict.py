"""The verdict section: go or no-go, why, the checks with their evidence, and the targets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pillsnap.evaluation.compare_outcome import Outcome, outcome_of
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, tables_of
from pillsnap.evaluation.report_values import (
    NOT_MEASURED,
    count_text,
    figure_name,
    href_of,
    minute_text,
    number,
    part,
    plain_text,
    rows,
    time_of,
    wanted_text,
    words,
)

GO, NO_GO, UNJUDGED = "go", "no-go", "unjudged"
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
_ORDER = (FAILED, NOT_RUN, PASSED)
# The reason codes of the stage rules (D-12) in words; others are shown as they are.
_REASONS = {
    "LATENCY_P95_TOO_HIGH": "The slow answers (95th percentile) take longer than the stage allows, or were not timed.",
    "NOT_ENOUGH_SAMPLES": "Fewer pictures were judged than the stage asks for, or nothing tells how many.",
    "COVERAGE_TOO_LOW": "The run covers too small a share of the drugs for the stage, or nothing tells which.",
    "REGRESSION_TOO_LARGE": "Accuracy fell further below the last accepted run than allowed.",
    "ACC_BELOW_TARGET": "Accuracy is below the stage's target, or was not measured.",
    "CRASH_DETECTED": "The run crashed, or nothing shows that it did not.",
    "MEMORY_UNSTABLE": "Memory did not stay stable, or nothing shows that it did.",
    "CHECK_FAILED": "The check of {detail} failed.",
    "CHECK_NOT_RUN": "The check of {detail} was not run.",
    "TRAINED_FOR_STAGE": "The run was trained for stage {detail} and shows nothing about a higher one.",
}


@dataclass(frozen=True)
class Check:
    """One check: what ran, what came out, and where the evidence lies."""

    name: str
    status: str
    """`passed`, `failed` or `not run`."""
    what: str
    result: str
    message: str
    time: str
    file: str
    href: str


@dataclass(frozen=True)
class Target:
    """One figure against what the stage wants."""

    name: str
    wanted: str
    value: str
    state: str
    """`met`, `missed` or `not measured`."""
    percent: int
    """How much of the target is reached, 0 to 100; only a target that is met has 100."""
    file: str
    href: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verdict section shows."""

    state: str
    """`go`, `no-go` or `unjudged`."""
    title: str
    sentence: str
    reasons: list[tuple[str, str]]
    """(code, what it means)"""
    warnings: list[str]
    checks: list[Check]
    other_checks: list[Check]
    """Ran, but do not count for this stage."""
    targets: list[Target]
    advanced: list[Target]
    tables: list[Table]
    comparison: Outcome | None
    """With the last accepted run; None where there is none."""
    command: str
    """Judges the run; empty when that was done."""

    @property
    def is_judged(self) -> bool:
        """Whether the run was held against its stage's rules at all."""
        return self.state != UNJUDGED


def verdict_of(files: ExperimentFiles) -> Verdict:
    """Return what `verdict.json` and `checks.json` say about the run."""
    verdict, exp_dir = files.verdict, files.exp_dir
    judged, evidence = part(verdict, "checks"), part(files.checks, "checks")
    checks = list(_checks(judged, exp_dir))
    state = UNJUDGED if not verdict else GO if verdict.get("go") is True else NO_GO
    targets = [target_of(entry, exp_dir) for entry in rows(verdict, "targets")]
    return Verdict(
        state=state,
        title={GO: "Go", NO_GO: "No-go", UNJUDGED: "Not judged yet"}[state],
        sentence=_sentence(verdict, checks, targets) if verdict else "Nobody has held this run against its stage.",
        reasons=[(str(code), _reason(str(code))) for code in verdict.get("reasons") or []],
        warnings=list(_warnings(files, judged, evidence)) if verdict else [],
        checks=checks,
        other_checks=list(_checks({name: check for name, check in evidence.items() if name not in judged}, exp_dir)),
        targets=targets,
        advanced=[target_of(entry, exp_dir) for entry in rows(verdict, "advanced")],
        tables=list(_rule_tables(verdict)),
        comparison=_comparison(verdict),
        command="" if verdict else _command(files),
    )


def _reason(code: str) -> str:
    """Return a reason code in words; a code may carry a detail behind a colon."""
    name, _, detail = code.partition(":")
    known = _REASONS.get(name)
    if known is None:
        return code.replace("_", " ").replace(":", ": ").capitalize()
    return known.format(detail=detail.replace("_", " "))


def _sentence(verdict: Mapping[str, Any], checks: list[Check], targets: list[Target]) -> str:
    """Say by what the run was judged."""
    held = sum(check.status == PASSED for check in checks)
    met = sum(target.state == "met" for target in targets)
    parts = []
    if checks:
        parts.append(f"{held} of {count_text(len(checks), 'mandatory check', 'mandatory checks')} passed")
    if targets:
        parts.append(f"{met} of {count_text(len(targets), 'target', 'targets')} met")
    stage = f"Stage {verdict['stage']}" if verdict.get("stage") is not None else "This run"
    time = minute_text(verdict.get("time"))
    sentences = [f"{stage}: {', '.join(parts) or 'no checks were recorded'}."]
    if verdict.get("is_time_cap") is True:
        sentences.append("The time limit ended the run in order, which stage 1 allows; its figures decide nothing.")
    return " ".join([*sentences, f"Judged {time}."] if time else sentences)


def _command(files: ExperimentFiles) -> str:
    """Return the command that judges the run."""
    stage = part(files.run, "selection").get("stage")
    name = stage if isinstance(stage, int) else "N"
    return f"pillsnap check --stage {name} --exp {shlex.quote(str(files.exp_dir))}"


def _warnings(files: ExperimentFiles, judged: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[str]:
    """Say where the verdict no longer fits the files beside it."""
    made, ended = time_of(files.verdict.get("time")), time_of(files.run.get("ended"))
    if made and ended and made < ended:
        yield "This verdict is older than the end of the run. Judge the run again before you rely on it."
    # The gate may count as "not run" what checks.json says passed, for example by another checkpoint; not the reverse.
    gone = [name for name in judged if _status(judged[name]) == PASSED != _status(evidence.get(name))]
    if gone:
        yield f"The verdict counts {', '.join(gone)} as passed, reports/checks.json does not. Judge the run again."
    newer = [name for name in judged if made and _is_after(part(evidence, name).get("time"), made)]
    if newer:
        yield f"Ran again after this verdict: {', '.join(newer)}. Judge the run again to count it."


def _is_after(text: object, moment: datetime) -> bool:
    time = time_of(text)
    return time is not None and time > moment


def _checks(facts: Mapping[str, Any], exp_dir: Path) -> Iterator[Check]:
    """Yield the checks, the failed ones first."""
    entries = [(name, part(facts, name)) for name in facts]
    for name, entry in sorted(entries, key=lambda pair: _ORDER.index(_status(pair[1]))):
        yield Check(
            name=name,
            status=_status(entry),
            what=_as_sentence(words(entry, "what")),
            result=_result(entry),
            message=_as_sentence(words(entry, "message")),
            time=minute_text(entry.get("time")),
            file=words(entry, "file"),
            href=href_of(exp_dir, entry.get("file")),
        )


def _as_sentence(text: str) -> str:
    return (
        f"{text[:1].upper()}{text[1:]}" if not text.startswith(("/", "reports/", "export/", "checkpoints/")) else text
    )


def _status(entry: object) -> str:
    """Return a check's status; anything that does not say `passed` or `failed` was not run."""
    status = entry.get("status") if isinstance(entry, Mapping) else None
    return str(status) if status in (PASSED, FAILED) else NOT_RUN


def _result(entry: Mapping[str, Any]) -> str:
    """Return "3.2 MB (wanted at most 4)", as far as it was recorded."""
    unit = f" {entry['unit']}" if entry.get("unit") else ""
    value = "" if entry.get("value") is None else f"{plain_text(entry['value'])}{unit}"
    wanted = "" if entry.get("wanted") in (None, "") else f"wanted {wanted_text(plain_text(entry['wanted']))}"
    return f"{value} ({wanted})" if value and wanted else value or wanted


def target_of(entry: Mapping[str, Any], exp_dir: Path | None = None) -> Target:
    """Return one target; what was not measured is not met.

    Args:
        entry: `name`, `wanted` such as ">=0.40", `value`, `met`, `ratio` (how much of the target is reached), `file`.
        exp_dir: The experiment, to link the file the value came from.
    """
    value, ratio = number(entry, "value"), number(entry, "ratio")
    is_met = entry.get("met") is True and value is not None
    percent = 100 if is_met else min(99, max(0, int(100 * (ratio or 0))))
    return Target(
        name=figure_name(words(entry, "name")),
        wanted=wanted_text(words(entry, "wanted")),
        value="–" if value is None else _value_text(value, words(entry, "wanted"), is_met=is_met),
        state="met" if is_met else NOT_MEASURED if value is None else "missed",
        percent=0 if value is None else percent,
        file=words(entry, "file"),
        href=href_of(exp_dir, entry.get("file")) if exp_dir else "",
    )


def _value_text(value: float, wanted: str, *, is_met: bool) -> str:
    """Return a value; one that misses its target by less than a short text shows keeps all its digits."""
    text = plain_text(value)
    try:
        is_alike = text == plain_text(float(wanted.lstrip("<>= ")))
    except ValueError:
        is_alike = False
    return repr(value) if is_alike and not is_met else text


def _comparison(verdict: Mapping[str, Any]) -> Outcome | None:
    """Return what came of comparing this run with the last accepted one, picture by picture."""
    found = part(verdict, "comparison")
    return outcome_of(found, ("the accepted run", "this run")) if found else None


def _rule_tables(verdict: Mapping[str, Any]) -> Iterator[Table]:
    """Yield what the stage rules were given, and the accepted run before."""
    simple = part(verdict, "simple")
    yield from tables_of("figures the stage rules were given", part(simple, "results"))
    yield from tables_of("last accepted run", part(simple, "baseline"))
