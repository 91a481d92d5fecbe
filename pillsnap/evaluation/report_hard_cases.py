"""How many hard cases an experiment has kept, why, and where their gallery lies (DAT-6)."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass

from pillsnap.evaluation.report_files import ExperimentFiles, read_lines
from pillsnap.evaluation.report_tables import Table
from pillsnap.evaluation.report_values import href_of

_REASONS = {
    "low_confidence": "one pill, and the confidence is low",
    "auto_combo": "the picture was taken for one of several pills",
    "misroute": "read as one pill where several may lie, or the other way round",
    "wrong": "the wrong drug was named",
    "unknown_accepted": "an unknown pill got the name of a drug",
    "known_refused": "a known pill was refused",
}
GALLERY = "hard_cases/index.html"


@dataclass(frozen=True)
class HardCases:
    """What the hard cases' section shows."""

    count: int
    table: Table
    href: str
    """The gallery; empty where it was not written."""
    command: str
    """Writes the gallery."""


def hard_cases_of(files: ExperimentFiles) -> HardCases:
    """Count the cases in `hard_cases/*.jsonl` by reason."""
    folder = files.exp_dir / "hard_cases"
    cases = [case for path in sorted(folder.glob("*.jsonl")) for case in read_lines(path)]
    reasons = Counter(str(name) for case in cases for name in case.get("reasons") or [])
    cells = [[name.replace("_", " "), _REASONS.get(name, ""), f"{count:,}"] for name, count in reasons.most_common()]
    return HardCases(
        count=len(cases),
        table=Table("why they were kept", ["reason", "", "cases"], cells),
        href=href_of(files.exp_dir, GALLERY),
        command=f"pillsnap hard-cases {shlex.quote(str(files.exp_dir))}",
    )
