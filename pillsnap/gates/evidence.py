"""What was run to show that an experiment holds a stage's conditions, and what came of it: `reports/checks.json`.

A check that nobody ran is "not run" and counts as not passed (CRT-2). So does one that was passed by other checkpoints
than lie in the experiment now, and one whose evidence file is gone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pillsnap.atomicfile import sha256_of
from pillsnap.errors import PillError
from pillsnap.jsonfile import read_json, save_json

logger = logging.getLogger("pillsnap")

FILE_NAME = Path("reports", "checks.json")  # below the experiment's folder
EVIDENCE_DIR = Path("reports", "checks")
"""Where producers that measure put what they measured, one JSON file a check."""
CHECKPOINTS = ("best.pt", "detection_best.pt")

Status = Literal["passed", "failed", "not run"]
PASSED: Status = "passed"
FAILED: Status = "failed"
NOT_RUN: Status = "not run"
Value = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a producer found."""

    status: Status
    message: str
    """A sentence: what was seen, and what is wrong with it where something is."""
    value: Value = None
    """The figure that was measured; None where there is none."""
    wanted: str = ""
    """What `value` had to be, such as `<= 1.25`."""
    unit: str = ""
    file: str | None = None
    """Where the evidence lies, relative to the experiment's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """An outcome with all that says whether it still counts."""

    status: Status
    value: Value = None
    wanted: str = ""
    unit: str = ""
    what: str = ""
    """A sentence: what was run."""
    message: str = ""
    file: str | None = None
    time: str | None = None
    """UTC, ISO 8601: when the producer began."""
    seconds: float = 0.0
    git_sha: str = ""
    checkpoint: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the best checkpoints, by file name, at that time."""

    @property
    def is_passed(self) -> bool:
        """Whether it was run and passed."""
        return self.status == PASSED

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `checks.json`; a figure that is no number is null."""
        is_number = isinstance(self.value, int | float)
        value = None if is_number and not math.isfinite(self.value) else self.value  # type: ignore[arg-type]
        return {**asdict(self), "value": value}

    @classmethod
    def from_dict(cls, values: object) -> Check:
        """Rebuild from `to_dict`; what does not read as a check counts as not run."""
        if not isinstance(values, Mapping) or values.get("status") not in get_args(Status):
            return cls(status=NOT_RUN, message="checks.json holds no readable result of it: run it again")
        checkpoint = values.get("checkpoint")
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**known, "checkpoint": dict(checkpoint) if isinstance(checkpoint, Mapping) else {}})


def outcome(
    holds: bool, message: str, *, value: Value = None, wanted: str = "", unit: str = "", file: str | None = None
) -> Outcome:
    """Return what a producer found that ran to its end: passed where `holds`, else failed."""
    return Outcome(
        status=PASSED if holds else FAILED, message=message, value=value, wanted=wanted, unit=unit, file=file
    )


def not_run(message: str) -> Outcome:
    """Return the outcome of a producer that found nothing to run; `message` says what it lacks."""
    return Outcome(status=NOT_RUN, message=message)


@dataclass
class Evidence:
    """The checks of one experiment, by name."""

    exp_dir: Path
    checks: dict[str, Check] = field(default_factory=dict)

    @classmethod
    def load(cls, exp_dir: Path) -> Evidence:
        """Read `reports/checks.json` of an experiment; what does not count any more becomes "not run".

        A file that is missing or damaged is no evidence at all.
        """
        path = exp_dir / FILE_NAME
        if not path.exists():
            return cls(exp_dir)
        try:
            found = read_json(path).get("checks")
        except PillError as error:
            logger.warning("%s Nothing of it counts: every check is to be run again.", error)
            found = None
        checks = found if isinstance(found, Mapping) else {}
        hashes = checkpoint_hashes(exp_dir)
        return cls(exp_dir, {name: _current(Check.from_dict(checks[name]), exp_dir, hashes) for name in checks})

    def check(self, name: str) -> Check:
        """Return a check; one that was never run is "not run"."""
        return self.checks.get(name, Check(status=NOT_RUN, message="nobody ran it"))

    def is_passed(self, name: str) -> bool:
        """Tell whether a check was run, passed, and still counts."""
        return self.check(name).is_passed

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return name -> plain data of every check there is."""
        return {name: check.to_dict() for name, check in self.checks.items()}

    def save(self) -> Path:
        """Write `reports/checks.json` and return its path.

        Raises:
            PillError: It cannot be written.
        """
        path = self.exp_dir / FILE_NAME
        save_json(path, {"checks": self.to_dict()})
        return path


def checkpoint_hashes(exp_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each best checkpoint that lies in an experiment, by file name."""
    found = {}
    for name in CHECKPOINTS:
        path = exp_dir / "checkpoints" / name
        if path.is_file():
            found[name] = sha256_of(path)
    return found


def _current(check: Check, exp_dir: Path, hashes: Mapping[str, str]) -> Check:
    """Return `check`, or "not run" with the reason where its evidence is not of this experiment as it is now."""
    if check.status == NOT_RUN:
        return check
    if check.checkpoint != hashes:
        return replace(check, status=NOT_RUN, message=f"was {check.status} by other checkpoints: run it again")
    if check.file is not None and not (exp_dir / check.file).is_file():
        return replace(check, status=NOT_RUN, message=f"was {check.status}, but its evidence {check.file} is gone")
    return check
