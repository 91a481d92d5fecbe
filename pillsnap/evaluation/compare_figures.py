"""The figures and settings of two experiments side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from pillsnap.evaluation.report_figures import CLASSIFICATION, KINDS, TITLES, Kind, val_figures
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, text_of
from pillsnap.evaluation.report_values import interval, number, part

_CALIBRATION = (
    Kind(("ece_calibrated",), "Calibration error", ".1%", ""),
    Kind(("ece",), "The same, not calibrated", ".1%", ""),
)
_UNKNOWN = (
    Kind(("auroc",), "AUROC, known against unknown", ".3f", ""),
    Kind(("coverage",), "Known pills that get a name", ".1%", ""),
    Kind(("error_accepted",), "Wrong among accepted", ".1%", ""),
    Kind(("false_accept_rate",), "Unknown pills that get a name", ".1%", ""),
)
_TIMES = {"single": "One pill, 95th percentile", "combo": "Several pills, 95th percentile"}
_RUN = {"throughput": "pictures a second", "data_wait_share": "waiting for data", "epochs": "epochs"}
# Where a run lies says nothing about how it was trained.
_PLACES = ("paths.",)


def figure_tables(a: ExperimentFiles, b: ExperimentFiles) -> list[Table]:
    """Return the val figures of both with their intervals, one table a topic; what neither has is left out."""
    columns = ["figure", "A", "B", "B − A"]
    figures_a, figures_b = val_figures(a)[1], val_figures(b)[1]
    tables = [
        Table(TITLES[task], columns, list(_rows(KINDS[task], part(figures_a, task), part(figures_b, task))))
        for task in TITLES
    ]
    classified_a, classified_b = part(figures_a, CLASSIFICATION), part(figures_b, CLASSIFICATION)
    tables.append(Table("Stated confidence", columns, list(_rows(_CALIBRATION, classified_a, classified_b))))
    tables.append(Table("Unknown pills", columns, list(_rows(_UNKNOWN, a.unknown, b.unknown))))
    tables.append(Table("Time of an answer", columns, list(_times(a.latency, b.latency))))
    tables.append(Table("Training", columns[:3], list(_training(part(a.run, "tasks"), part(b.run, "tasks")))))
    return [table for table in tables if table.rows]


def _rows(kinds: tuple[Kind, ...], a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[list[str]]:
    for kind in kinds:
        values = [number(figures, *kind.keys) for figures in (a, b)]
        if values == [None, None]:
            continue
        texts = [_with_interval(kind, value, figures) for value, figures in zip(values, (a, b), strict=True)]
        yield [kind.label, *texts, _difference(kind, *values)]


def _with_interval(kind: Kind, value: float | None, figures: Mapping[str, Any]) -> str:
    if value is None:
        return "–"
    pair = interval(part(figures, "intervals"), *kind.keys) or interval(figures, f"{kind.keys[0]}_interval")
    return f"{kind.text(value)} ({kind.interval_text(pair)})" if pair else kind.text(value)


def _difference(kind: Kind, a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return "–"
    return f"{100 * (b - a):+.1f} points" if kind.form.endswith("%") else f"{b - a:+.3f}"


def _times(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, label in _TIMES.items():
        before, after = number(part(a, name), "p95_ms"), number(part(b, name), "p95_ms")
        if before is not None or after is not None:
            texts = ["–" if value is None else f"{value:,.1f} ms" for value in (before, after)]
            yield [label, *texts, "–" if before is None or after is None else f"{after - before:+,.1f} ms"]


def _training(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[list[str]]:
    for task in dict.fromkeys([*a, *b]):
        for key, label in _RUN.items():
            values = [part(tasks, task).get(key) for tasks in (a, b)]
            if values != [None, None]:
                yield [f"{task}: {label}", *(text_of(key, value) for value in values)]


def settings_that_differ(a: ExperimentFiles, b: ExperimentFiles) -> Table:
    """Return the settings that the two runs do not share; places on the disk are left out."""
    before, after = _flat(a), _flat(b)
    keys = [key for key in dict.fromkeys([*before, *after]) if not key.startswith(_PLACES)]
    changed = [key for key in keys if before.get(key, "(no such setting)") != after.get(key, "(no such setting)")]
    rows = [[key, *(flat.get(key, "(no such setting)") for flat in (before, after))] for key in changed]
    return Table("", ["setting", "A", "B"], rows)


def _flat(files: ExperimentFiles) -> dict[str, str]:
    """Return every setting as text under its dotted key."""
    content = OmegaConf.to_container(files.config, resolve=False)
    return dict(_leaves("", content)) if isinstance(content, dict) else {}


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, "null" if value is None else str(value)
