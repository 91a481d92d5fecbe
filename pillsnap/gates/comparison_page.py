"""`pillsnap compare A B`: one page that lays two experiments side by side, made from their files alone.

It says first whether one of them names drugs better by more than chance explains (`comparison`), then shows figures,
settings that differ, curves, and the pictures that only one of them got right.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from omegaconf import OmegaConf

from pillsnap.errors import ConfigError, DataError
from pillsnap.evaluation.compare_figures import figure_tables, settings_that_differ
from pillsnap.evaluation.compare_outcome import Outcome, outcome_of
from pillsnap.evaluation.plot_comparison import plot_comparison
from pillsnap.evaluation.prediction_table import read_predictions
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_page import render, write_page
from pillsnap.evaluation.report_pictures import Picture, picture_of
from pillsnap.gates.comparison import PREDICTIONS, compare_experiments, pair_answers
from pillsnap.gates.comparison_pictures import Case, cases_of

MAX_CASES = 12
"""Pictures shown of each kind."""


def write_comparison(a_dir: Path, b_dir: Path, out_path: Path | None = None) -> tuple[Path, Outcome]:
    """Write the page that compares two experiments.

    Args:
        a_dir: The experiment to compare with, the earlier one.
        b_dir: The experiment in question.
        out_path: Where to write; None takes `<b_dir>/reports/compare_<name of A>.html`.

    Returns:
        The page's path, and what it says first.

    Raises:
        ConfigError: Both are the same folder.
        PillError: A folder is missing, a file in it is damaged, or the page cannot be written.
    """
    if a_dir.resolve() == b_dir.resolve():
        raise ConfigError(
            f"{a_dir} cannot be compared with itself; wanted two experiments. Name the earlier one first."
        )
    a, b = ExperimentFiles.read(a_dir), ExperimentFiles.read(b_dir)
    path = out_path or b_dir / "reports" / f"compare_{a.name}.html"
    outcome = _outcome(a_dir, b_dir)
    only_a, only_b, num_only_a, num_only_b = _cases(a, b) if outcome.table else ([], [], 0, 0)
    page = render(
        "compare.html.j2",
        a=_named(a, path),
        b=_named(b, path),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        outcome=outcome,
        tables=figure_tables(a, b),
        settings=settings_that_differ(a, b),
        has_settings=bool(a.config_text and b.config_text),
        curves=_curves(a, b),
        cases=(
            (f"Only A, {a.name}, was right", only_a, num_only_a),
            (f"Only B, {b.name}, was right", only_b, num_only_b),
        ),
        has_cases=outcome.table is not None,
    )
    return write_page(page, path), outcome


def _named(files: ExperimentFiles, page: Path) -> dict[str, str]:
    """Return an experiment's name, folder and the link to its report; empty where it has none."""
    report = files.exp_dir / "reports" / "index.html"
    # Not relative_to: the experiments may lie in different branches of the tree.
    href = quote(Path(os.path.relpath(report.resolve(), page.parent.resolve())).as_posix()) if report.exists() else ""
    return {"name": files.name, "folder": str(files.exp_dir), "href": href}


def _outcome(a_dir: Path, b_dir: Path) -> Outcome:
    """Compare the answers of both to the val split, and say what it means."""
    try:
        return outcome_of(compare_experiments(a_dir, b_dir))
    except DataError as error:
        return outcome_of({"kind": "none", "reason": str(error)})


def _curves(a: ExperimentFiles, b: ExperimentFiles) -> list[Picture]:
    content = plot_comparison({f"A {a.name}": a.history, f"B {b.name}": b.history})
    return [picture_of("curves of A and B", content, "Curves of both runs over the epochs")] if content else []


def _cases(a: ExperimentFiles, b: ExperimentFiles) -> tuple[list[Case], list[Case], int, int]:
    """Return the pills that only A, and only B, named rightly, as far as they are shown, and how many there are."""
    paired = pair_answers(read_predictions(a.exp_dir / PREDICTIONS), read_predictions(b.exp_dir / PREDICTIONS))
    root = OmegaConf.select(b.config, "data.root") or OmegaConf.select(a.config, "data.root")
    only_a, only_b = paired.only_a_right, paired.only_b_right
    shown = [cases_of(paired, rows, b, Path(root) if root else None, MAX_CASES) for rows in (only_a, only_b)]
    return shown[0], shown[1], len(only_a), len(only_b)
