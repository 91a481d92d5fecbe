"""`pillsnap compare A B`: one page that lays two experiments side by side, made from their files alone.

It says first whether one of them names drugs better by more than chance explains (`comparison`), then shows figures,
settings that differ, curves, and the pictures that only one of them got right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import OmegaConf

from pillsnap.errors import ConfigError, DataError
from pillsnap.evaluation.compare_figures import figure_tables, settings_that_differ
from pillsnap.evaluation.plot_comparison import plot_comparison
from pillsnap.evaluation.prediction_table import read_predictions
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_page import render, write_page
from pillsnap.evaluation.report_pictures import Picture, picture_of
from pillsnap.evaluation.report_tables import Table
from pillsnap.evaluation.report_values import share_text
from pillsnap.gates.comparison import PREDICTIONS, compare_experiments, pair_answers
from pillsnap.gates.comparison_pictures import Case, cases_of

MAX_CASES = 12
"""Pictures shown of each kind."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the comparison of answers came to, in words."""

    title: str
    sentence: str
    note: str
    table: Table | None


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
        found = compare_experiments(a_dir, b_dir)
    except DataError as error:
        return Outcome(title="Not compared picture by picture", sentence=str(error), note="", table=None)
    low, high = found["interval"]
    is_paired = found["kind"] == "paired"
    title = "No difference beyond chance"
    if low > 0 or high < 0:
        title = f"{'B' if low > 0 else 'A'} names more pills correctly"
    basis = f"on the same {found['b']['n']:,} pills" if is_paired else "on different pictures"
    sentence = (
        f"A {share_text(found['a']['accuracy'])}, B {share_text(found['b']['accuracy'])}, {basis}: a difference of "
        f"{100 * found['difference']:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}."
    )
    note = f"Interval by {found['method']}."
    if not is_paired:
        note = f"{str(found['reason']).capitalize()}. Look at the pills in both below first. {note}"
    return Outcome(title=title, sentence=sentence, note=note, table=_pairs_table(found["pairs"]))


def _pairs_table(pairs: Mapping[str, Any] | None) -> Table | None:
    """Return what both said to the pills both were asked about."""
    if pairs is None:
        return None
    low, high = pairs["interval"]
    rows = [
        ["pills both were asked about", f"{pairs['n']:,} in {pairs['n_groups']:,} groups of pictures"],
        ["both right", f"{pairs['both_right']:,}"],
        ["only A right", f"{pairs['only_a_right']:,}"],
        ["only B right", f"{pairs['only_b_right']:,}"],
        ["both wrong", f"{pairs['both_wrong']:,}"],
        ["difference, B minus A", f"{100 * pairs['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"],
        ["McNemar's exact test", f"p = {_p_text(pairs['p_value'])}; takes every pill for independent"],
    ]
    return Table("", [], rows)


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


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
