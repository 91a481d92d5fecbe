"""The drugs that are named worst, and the pairs that are taken for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pillsnap.evaluation.report_files import ExperimentFiles, read_table
from pillsnap.evaluation.report_tables import Table
from pillsnap.evaluation.report_values import share_text

_MAX_ROWS = 15
_COLUMNS = {
    "n": "pictures",
    "recall": "named correctly",
    "precision": "right when named",
    "f1": "F1",
    "mean_confidence": "mean confidence",
}


def class_tables(files: ExperimentFiles) -> tuple[list[Table], str]:
    """Return the worst drugs and the most frequent confusions, and the name of the file that has all of them.

    Reads `reports/per_class_test.csv`, else `per_class_val.csv`, as `per_class.write_per_class` writes them.
    """
    reports = files.exp_dir / "reports"
    for split in ("test", "val"):
        rows = read_table(reports / f"per_class_{split}.csv")
        seen = [row for row in rows if (_number(row, "n") or 0) > 0]
        if seen:
            tables = [_worst(seen, split), _confusions(seen, files, split)]
            return [table for table in tables if table.rows], f"per_class_{split}.csv"
    return [], ""


def _worst(rows: Sequence[Mapping[str, str]], split: str) -> Table:
    """Return the drugs with the lowest F1; drugs that were always right are left out."""
    ranked = sorted(rows, key=lambda row: (_number(row, "f1") or 0.0, -(_number(row, "n") or 0.0)))
    wrong = [row for row in ranked if (_number(row, "f1") or 0.0) < 1.0]
    title = f"worst drugs, {split} split; {len(wrong):,} of {len(rows):,} were not always named correctly"
    columns = [key for key in _COLUMNS if any(row.get(key) for row in wrong)]
    cells = [[_drug(row), *(_text(key, row) for key in columns)] for row in wrong[:_MAX_ROWS]]
    return Table(title, ["drug", *(_COLUMNS[key] for key in columns)], cells)


def _confusions(rows: Sequence[Mapping[str, str]], files: ExperimentFiles, split: str) -> Table:
    """Return which drug was most often taken for which."""
    pairs = []
    for row in rows:
        taken_for, times = row.get("most_taken_for"), _number(row, "times")
        if taken_for and times:
            pairs.append((int(times), _drug(row), files.drug(taken_for), int(_number(row, "n") or 0)))
    ranked = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:_MAX_ROWS]
    cells = [[true, taken_for, f"{times:,} of {count:,}"] for times, true, taken_for, count in ranked]
    return Table(f"most frequent confusions, {split} split", ["drug", "was taken for", "pictures"], cells)


def _number(row: Mapping[str, str], key: str) -> float | None:
    try:
        return float(row.get(key, ""))
    except ValueError:
        return None


def _text(key: str, row: Mapping[str, str]) -> str:
    """Return a figure as text: counts whole, F1 as a number, shares as per cent."""
    value = _number(row, key)
    if value is None:
        return "–"
    if key == "n":
        return f"{value:,.0f}"
    return f"{value:.3f}" if key == "f1" else share_text(value)


def _drug(row: Mapping[str, str]) -> str:
    return f"{row.get('code', '')} {row.get('name', '')}".strip()
