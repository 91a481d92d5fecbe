"""Go or no-go for a stage, from the evidence: `reports/verdict.json` (CRT-2, GNG-1, STG-4).

It is a go when every mandatory check was run and passed and the simple evaluation (D-12) has no reason against it; or,
at stage 1, when the run was ended by its time limit in order and the two checks STG-4 names passed. The targets of D-14
make the score that the advisor speaks of; they are recorded here and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from pillsnap.errors import ConfigError, DataError
from pillsnap.gates.accepted import AcceptedRun, last_accepted, note_accepted
from pillsnap.gates.comparison import compare_experiments
from pillsnap.gates.evidence import FAILED, NOT_RUN, PASSED, Evidence, checkpoint_hashes
from pillsnap.gates.go_no_go import simple_stage_evaluation
from pillsnap.gates.numbers import shown
from pillsnap.gates.results import Results, gather_results
from pillsnap.gates.sources import RUN, Sources, at
from pillsnap.gates.targets import Target, get_stage_config
from pillsnap.jsonfile import save_json
from pillsnap.source_version import get_git_sha

FILE_NAME = Path("reports", "verdict.json")
TIME_CAP_STAGE = 1
TIME_CAP_CHECKS = ("pipeline_complete", "classification_model_loading")
"""The checks a run that its time limit ended needs (STG-4)."""
CLASSIFIER = "best.pt"

Checks = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a stage may be left, and everything that says why."""

    stage: int
    go: bool
    is_time_cap: bool
    """It is a go because the time limit ended the run in order (STG-4)."""
    reasons: list[str]
    """What speaks against it, codes; empty where it is a go."""
    checks: dict[str, dict[str, Any]]
    """The mandatory checks as they count now."""
    targets: list[dict[str, Any]]
    advanced: list[dict[str, Any]]
    simple: dict[str, Any]
    comparison: dict[str, Any] | None
    score: Fraction
    """Mean of the targets' ratios, 0..1; 1 if and only if all are met."""
    time: str
    git_sha: str
    exp_dir: str
    results: Results = field(repr=False)
    """The figures it was made from."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for `reports/verdict.json`."""
        content = {name: getattr(self, name) for name in _WRITTEN}
        return {**content, "score": shown(self.score)}


_WRITTEN = (
    "stage",
    "go",
    "is_time_cap",
    "reasons",
    "checks",
    "targets",
    "advanced",
    "simple",
    "comparison",
    "time",
    "git_sha",
    "exp_dir",
)


def evaluate_gate(exp_dir: Path, stage: int, checks: Checks | None = None, baseline: Path | None = None) -> Verdict:
    """Judge an experiment by the rules of a stage, write `reports/verdict.json`, and note an accepted run.

    Args:
        exp_dir: The experiment's folder.
        stage: 1 to 4.
        checks: The evidence as in `checks.json`; None reads that file. A check that was passed by other checkpoints
            than lie there now, or whose evidence file is gone, counts as not run.
        baseline: Experiment to compare with; None takes the last accepted run beside this one, where there is one.

    Returns:
        The verdict. A go adds the run to `accepted_runs.jsonl`.

    Raises:
        ConfigError: There is no such stage, or the baseline has no accuracy on val.
        PillError: A file cannot be written.
    """
    config = get_stage_config(stage)
    hashes = checkpoint_hashes(exp_dir)
    evidence = Evidence.load(exp_dir).to_dict() if checks is None else checks
    counted = {name: count_check(check, exp_dir, hashes) for name, check in evidence.items()}
    mandatory = {name: counted.get(name, _nobody_ran()) for name in config.mandatory_checks}
    results = gather_results(exp_dir, counted)
    before = _baseline(exp_dir, stage, baseline, hashes.get(CLASSIFIER))
    is_simple_go, codes = simple_stage_evaluation(stage, results.simple(), before)
    reasons = [*_check_reasons(mandatory), *_stage_reasons(exp_dir, stage), *codes]
    is_time_cap = bool(reasons) and stage == TIME_CAP_STAGE and _holds_time_cap(exp_dir, mandatory)
    verdict = Verdict(
        stage=stage,
        go=not reasons or is_time_cap,
        is_time_cap=is_time_cap,
        reasons=[] if is_time_cap else reasons,
        checks=mandatory,
        targets=[_judged(target, results) for target in config.performance_targets],
        advanced=[_judged(target, results) for target in config.advanced_metrics],
        simple={"go": is_simple_go, "reasons": codes, "results": results.simple(), "baseline": before},
        comparison=None if before is None else _comparison(Path(before["exp_dir"]), exp_dir),
        score=config.score(results.values()),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        git_sha=get_git_sha(),
        exp_dir=str(exp_dir.resolve()),
        results=results,
    )
    save_json(exp_dir / FILE_NAME, verdict.to_dict())
    if verdict.go:
        _note(verdict, hashes.get(CLASSIFIER))
    return verdict


def count_check(check: Mapping[str, Any], exp_dir: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return a check as it counts now: "not run" where its evidence is not of this experiment as it is.

    Args:
        check: As in `checks.json`.
        exp_dir: The experiment's folder.
        hashes: SHA-256 of its best checkpoints by file name.
    """
    status, file = check.get("status"), check.get("file")
    if status not in (PASSED, FAILED):
        return {**check, "status": NOT_RUN}
    if check.get("checkpoint") != hashes:
        message = f"was {status} by other checkpoints than lie there now: run it again"
    elif isinstance(file, str) and not (exp_dir / file).exists():
        message = f"was {status}, but its evidence {file} is gone: run it again"
    else:
        return dict(check)
    return {**check, "status": NOT_RUN, "message": message}


def _nobody_ran() -> dict[str, Any]:
    return {"status": NOT_RUN, "value": None, "message": "nobody ran it", "file": None}


def _check_reasons(mandatory: Checks) -> list[str]:
    codes = {FAILED: "CHECK_FAILED", NOT_RUN: "CHECK_NOT_RUN"}
    return [f"{codes[check['status']]}:{name}" for name, check in mandatory.items() if check["status"] != PASSED]


def _stage_reasons(exp_dir: Path, stage: int) -> list[str]:
    """A run of a lower stage shows nothing about a higher one."""
    trained = at(Sources(exp_dir).run, "selection", "stage")
    return [f"TRAINED_FOR_STAGE:{trained}"] if isinstance(trained, int) and trained < stage else []


def _holds_time_cap(exp_dir: Path, mandatory: Checks) -> bool:
    """Tell whether the run's own judgement of its time limit was a success, and the checks say so too (STG-4)."""
    is_success = at(Sources(exp_dir).json(RUN), "time_cap", "is_success") is True
    return is_success and all(mandatory[name]["status"] == PASSED for name in TIME_CAP_CHECKS)


def _judged(target: Target, results: Results) -> dict[str, Any]:
    figure = results[target.name]
    return {
        "name": target.name,
        "wanted": target.wanted,
        "value": figure.value,
        "met": target.is_met(figure.value),
        "ratio": shown(target.ratio(figure.value)),
        "file": figure.file,
    }


def _baseline(exp_dir: Path, stage: int, named: Path | None, checkpoint: str | None) -> dict[str, Any] | None:
    """Return {exp_dir, accuracy, time} of the run to compare with; None where there is none."""
    if named is None:
        run = last_accepted(exp_dir, stage, checkpoint)
        return None if run is None else {"exp_dir": run.exp_dir, "accuracy": run.accuracy, "time": run.time}
    accuracy = gather_results(named).value("accuracy")
    if accuracy is None:
        raise ConfigError(
            f"the baseline {named} has no accuracy on val in its reports; wanted an experiment whose best classifier "
            "was judged. Name another one with --baseline DIR."
        )
    return {"exp_dir": str(named.resolve()), "accuracy": accuracy, "time": at(Sources(named).run, "ended")}


def _comparison(before: Path, exp_dir: Path) -> dict[str, Any]:
    """Compare with the baseline; where its answers are gone, say so."""
    if before.resolve() == exp_dir.resolve():
        return {"kind": "none", "reason": "the accepted run lay in this folder: its answers were written over"}
    try:
        return compare_experiments(before, exp_dir)
    except DataError as error:
        return {"kind": "none", "reason": str(error)}


def _note(verdict: Verdict, checkpoint: str | None) -> None:
    accuracy = verdict.results.value("accuracy")
    if accuracy is None:  # a time-capped run that was never judged: nothing to compare with later
        return
    run = AcceptedRun(
        time=verdict.time,
        stage=verdict.stage,
        exp_dir=verdict.exp_dir,
        accuracy=float(accuracy),
        checkpoint=checkpoint,
        git_sha=verdict.git_sha,
    )
    note_accepted(run)
