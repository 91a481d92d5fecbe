"""`reports/index.html`: one page that shows a run, made only from what the run left in its folder.

The page holds its pictures and needs neither a server nor a network: it opens from a disk, a mail or an archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig, OmegaConf

from pillsnap.atomicfile import atomic_path
from pillsnap.errors import PillError
from pillsnap.evaluation.report_figures import CLASSIFICATION, DETECTION, absence_of, headline
from pillsnap.evaluation.report_pictures import Picture, load_pictures
from pillsnap.evaluation.report_tables import Table, grid_of, tables_of, text_of
from pillsnap.jsonfile import read_json

_MAX_CLASSES_LISTED = 200
_MAX_FILES_LISTED = 40  # of one folder
# Settings that a reader compares runs by; the page has the whole configuration below them.
_KEY_SETTINGS = (
    "data.root",
    "data.reader",
    "data.split.policy",
    "data.progressive_validation.current_stage",
    "model.backbone",
    "model.pretrained",
    "model.image_size",
    "detection.model_size",
    "detection.pretrained",
    "detection.image_size",
    "train.tasks",
    "train.strategy",
    "train.interleave_ratio",
    "train.seed",
    "train.batch_size",
    "train.lr",
    "train.classification.epochs",
    "train.detection.epochs",
    "train.ema.enabled",
)


def write_report(exp_dir: Path) -> Path:
    """Build the page of an experiment from the files in it; what is missing is said on the page.

    Reads `reports/metrics.json`, `reports/run.json`, `config.yaml`, `class_map.json`, and the pictures
    `reports/confusion_matrix.png`, `roc_*.png`, `pr_*.png`, `history*.png` and `detections/*.png`.

    Args:
        exp_dir: The experiment's folder.

    Returns:
        `exp_dir/reports/index.html`.

    Raises:
        PillError: The folder does not exist, a JSON file in it is damaged, or the page cannot be written.
    """
    if not exp_dir.is_dir():
        raise PillError(
            f"no report can be written: {exp_dir} is not a folder; wanted the folder of an experiment. Pass the "
            "paths.exp_dir of a run."
        )
    reports = exp_dir / "reports"
    metrics, run = _read_optional(reports / "metrics.json"), _read_optional(reports / "run.json")
    config_text, config = _read_config(exp_dir / "config.yaml")
    history = metrics.get("history", {})
    tasks = _tasks_of(config, history)
    split, groups = headline(metrics, run.get("evaluation", {}), tasks)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=exp_dir.resolve().name,
            written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            tasks=tasks,
            absence={task: absence_of(task, tasks, "drawn") for task in (CLASSIFICATION, DETECTION)},
            split=split,
            groups=groups,
            pictures=_pictures(reports),
            epochs=[grid_of(f"{task}, by epoch", entries) for task, entries in history.items() if entries],
            data_tables=list(tables_of("", run.get("data", {}))),
            classes=_classes(_read_optional(exp_dir / "class_map.json")),
            skipped=_skipped(run),
            run_tables=_run_tables(run),
            decisions=grid_of("Decisions", run["decisions"]) if run.get("decisions") else None,
            has_run="decisions" in run,
            settings=_settings(config),
            config_text=config_text,
            files=_files(exp_dir),
        )
    )
    return _write(page, reports / "index.html")


def _environment() -> Environment:
    """Return the template engine; all text is escaped, because drug and file names come from the data."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read_optional(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, or nothing when it is not there."""
    return read_json(path) if path.is_file() else {}


def _read_config(path: Path) -> tuple[str, DictConfig]:
    """Return the text of the configuration and its keys; empty when it is not there."""
    empty = OmegaConf.create({})
    if not path.is_file():
        return "", empty
    try:
        text = path.read_text(encoding="utf-8")
        config = OmegaConf.create(yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError) as err:  # ValueError: not UTF-8
        reason = " ".join(str(err).split())  # YAML's texts have several lines
        raise PillError(
            f"no report can be written: {path} cannot be read: {reason}; wanted the configuration the run saved. "
            "Restore it, or delete it to get the page without it."
        ) from err
    return text, config if isinstance(config, DictConfig) else empty


def _tasks_of(config: DictConfig, history: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str] | None:
    """Return the tasks the run was configured for, or else those that have an epoch; None when neither is known."""
    configured = OmegaConf.select(config, "train.tasks")
    return list(configured) if configured else [task for task, entries in history.items() if entries] or None


def _pictures(reports: Path) -> dict[str, list[Picture]]:
    """Return the pictures of each section."""
    return {
        "history": load_pictures(reports, "history*.png", "Training and validation curves over the epochs"),
        "confusion": load_pictures(reports, "confusion_matrix.png", "Which drugs were taken for which"),
        "curves": [
            *load_pictures(reports, "roc_*.png", "ROC curves, one drug against the rest"),
            *load_pictures(reports, "pr_*.png", "Precision-recall curves, one drug against the rest"),
        ],
        "detections": load_pictures(
            reports, "detections/*.png", "Photograph with found and labelled pills", is_photo=True
        ),
    }


def _classes(class_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many classes there are, and a table of the first of them."""
    codes, names = class_map.get("codes", []), class_map.get("names", {})
    rows = [[str(number), code, names.get(code, "")] for number, code in enumerate(codes[:_MAX_CLASSES_LISTED])]
    return {"count": len(codes), "table": Table("Classes", ["number", "code", "name"], rows)}


def _skipped(run: Mapping[str, Any]) -> str:
    """Say how many samples the tasks could not read."""
    counts = {task: facts.get("skipped") for task, facts in run.get("tasks", {}).items()}
    known = {task: count for task, count in counts.items() if count is not None}
    if not known:
        return "No count of unreadable pictures was recorded."
    return "Unreadable pictures skipped while training: " + ", ".join(
        f"{task} {text_of('skipped', count)}" for task, count in known.items()
    )


def _run_tables(run: Mapping[str, Any]) -> list[Table]:
    """Return the run's facts as tables, but those that have a place of their own on the page."""
    placed = {"data", "decisions", "evaluation"}
    facts = {key: value for key, value in run.items() if key not in placed}
    plain = {key: value for key, value in facts.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in facts.items() if isinstance(value, Mapping)}
    return [*tables_of("Run", plain), *tables_of("", nested)]


def _settings(config: DictConfig) -> Table:
    """Return the settings that runs are compared by."""
    values = {key: OmegaConf.select(config, key) for key in _KEY_SETTINGS}
    plain = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in values.items()
    }
    return Table("Settings", [], [[key, text_of("seed", value)] for key, value in plain.items() if value is not None])


def _files(exp_dir: Path) -> list[tuple[str, str, str]]:
    """Return (name, size in bytes, link relative to the page) of the experiment's files; a full folder is one row."""
    rows = []
    for child in sorted(exp_dir.iterdir()):
        paths = [path for path in (child, *sorted(child.rglob("*"))) if path.is_file() and not path.is_symlink()]
        if len(paths) > _MAX_FILES_LISTED:
            size = sum(path.stat().st_size for path in paths)
            rows.append((f"{child.name}/ ({len(paths):,} files)", f"{size:,}", f"../{quote(child.name)}/"))
            continue
        for path in paths:
            name = path.relative_to(exp_dir).as_posix()
            rows.append((name, f"{path.stat().st_size:,}", f"../{quote(name)}"))
    return rows


def _write(page: str, path: Path) -> Path:
    """Write the page, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as err:
        raise PillError(
            f"{path} cannot be written: {err.strerror}; wanted to put the report there. Check that the folder is "
            "writable and has free space."
        ) from err
    return path
