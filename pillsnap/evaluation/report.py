"""`reports/index.html`: one page that shows a run, made only from what the run left in its folder.

The page holds its pictures and needs neither a server nor a network: it opens from a disk, a mail or an archive. It
answers first what a reader wants to know first: is it a go, how good, how sure, what it refuses, what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import OmegaConf

from pillsnap.evaluation.report_advice import advice_of
from pillsnap.evaluation.report_classes import class_tables
from pillsnap.evaluation.report_figures import CLASSIFICATION, DETECTION, absence_of, headline
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_final_test import final_test_of
from pillsnap.evaluation.report_hard_cases import hard_cases_of
from pillsnap.evaluation.report_page import render, write_page
from pillsnap.evaluation.report_pictures import Picture, load_pictures
from pillsnap.evaluation.report_refusal import calibration_of, unknown_of
from pillsnap.evaluation.report_summary import answers_of
from pillsnap.evaluation.report_tables import Table, duration_text, grid_of, tables_of, text_of
from pillsnap.evaluation.report_training import decision_tables, other_facts, training_tables
from pillsnap.evaluation.report_values import number, part
from pillsnap.evaluation.report_verdict import verdict_of

_MAX_CLASSES_LISTED = 200
_MAX_FILES_LISTED = 40  # of one folder
_SECTIONS = (
    ("summary", "Verdict"),
    ("gate", "Checks and targets"),
    ("advice", "Advice"),
    ("figures", "Figures"),
    ("final-test", "Final test"),
    ("calibration", "Confidence"),
    ("unknown", "Unknown pills"),
    ("confusion", "Mix-ups"),
    ("rocpr", "ROC and PR"),
    ("detections", "Detections"),
    ("hard-cases", "Hard cases"),
    ("curves", "Training"),
    ("run", "Speed and memory"),
    ("decisions", "Decisions"),
    ("data", "Data"),
    ("configuration", "Settings"),
    ("files", "Files"),
)
# Settings that a reader compares runs by; the page has the whole configuration below them.
KEY_SETTINGS = (
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

    Reads `reports/` (`metrics`, `run`, `verdict`, `checks`, `advice`, `unknown`, `latency`, `final_test_results` as
    JSON, `per_class_*.csv`, and its pictures), `calibration.json`, `hard_cases/*.jsonl`, `config.yaml` and
    `class_map.json`.

    Args:
        exp_dir: The experiment's folder.

    Returns:
        `exp_dir/reports/index.html`.

    Raises:
        PillError: The folder does not exist, a file in it is damaged, or the page cannot be written.
    """
    files = ExperimentFiles.read(exp_dir)
    page = render("report.html.j2", title=files.name, sections=_SECTIONS, **_findings(files), **_run(files))
    return write_page(page, exp_dir / "reports" / "index.html")


def _findings(files: ExperimentFiles) -> dict[str, Any]:
    """Return what the sections from the verdict to the hard cases show."""
    verdict, advice = verdict_of(files), advice_of(files)
    split, groups = headline(files)
    worst, class_file = class_tables(files)
    return {
        "verdict": verdict,
        "advice": advice,
        "answers": answers_of(files, verdict, advice),
        "split": split,
        "groups": groups,
        "has_intervals": any(figure.interval for group in groups for figure in group.figures),
        "final_test": final_test_of(files),
        "calibration": calibration_of(files),
        "unknown": unknown_of(files),
        "class_tables": worst,
        "class_file": class_file,
        "absence": {task: absence_of(task, files.tasks, "drawn") for task in (CLASSIFICATION, DETECTION)},
        "pictures": _pictures(files.exp_dir / "reports"),
        "hard_cases": hard_cases_of(files),
    }


def _run(files: ExperimentFiles) -> dict[str, Any]:
    """Return what the sections from the curves to the files show."""
    run = files.run
    return {
        "subtitle": _subtitle(files),
        "epochs": [grid_of(f"{task}, by epoch", entries) for task, entries in files.history.items() if entries],
        "has_run": bool(run),
        "training_tables": training_tables(files),
        "other_facts": other_facts(files),
        "decisions": decision_tables(files),
        "has_decisions": "decisions" in run,
        "data_tables": list(tables_of("", part(run, "data"))),
        "skipped": _skipped(run),
        "classes": _classes(files.class_map),
        "settings": _settings(files),
        "config_text": files.config_text,
        "files": _files(files.exp_dir),
    }


def _subtitle(files: ExperimentFiles) -> str:
    """Say what kind of run this is, as far as its files tell, and how old the page is."""
    run = files.run
    stage, seconds = part(run, "selection").get("stage"), number(run, "seconds")
    facts = [
        "PillSnap report",
        f"stage {stage}" if stage is not None else "",
        " and ".join(files.tasks or []),
        f"trained on {run['device']}" if run.get("device") else "",
        f"in {duration_text(seconds)}" if seconds is not None else "",
        f"page written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]
    return " · ".join(fact for fact in facts if fact)


def _pictures(reports: Path) -> dict[str, list[Picture]]:
    """Return the pictures of each section."""
    return {
        "history": load_pictures(reports, "history*.png", "Training and validation curves over the epochs"),
        # Those of the test split, once it was opened, lie in a folder of its name.
        "confusion": [
            *load_pictures(reports, "test/confusion_matrix.png", "Which drugs were taken for which"),
            *load_pictures(reports, "confusion_matrix.png", "Which drugs were taken for which"),
        ],
        "curves": [
            *load_pictures(reports, "test/roc_*.png", "ROC curves, one drug against the rest"),
            *load_pictures(reports, "test/pr_*.png", "Precision-recall curves, one drug against the rest"),
            *load_pictures(reports, "roc_*.png", "ROC curves, one drug against the rest"),
            *load_pictures(reports, "pr_*.png", "Precision-recall curves, one drug against the rest"),
        ],
        "calibration": load_pictures(reports, "calibration*.png", "How often answers are right by stated confidence"),
        "unknown": load_pictures(reports, "risk_coverage*.png", "Wrong answers by the share of pills answered"),
        "detections": load_pictures(
            reports, "detections/*.png", "Photograph with found and labelled pills", is_photo=True
        ),
    }


def _classes(class_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many classes there are, and a table of the first of them."""
    codes, names = class_map.get("codes", []), class_map.get("names", {})
    rows = [[str(index), code, names.get(code, "")] for index, code in enumerate(codes[:_MAX_CLASSES_LISTED])]
    return {"count": len(codes), "table": Table("Classes", ["number", "code", "name"], rows)}


def _skipped(run: Mapping[str, Any]) -> str:
    """Say how many samples the tasks could not read."""
    counts = {task: facts.get("skipped") for task, facts in part(run, "tasks").items()}
    known = {task: count for task, count in counts.items() if count is not None}
    if not known:
        return "No count of unreadable pictures was recorded."
    return "Unreadable pictures skipped while training: " + ", ".join(
        f"{task} {text_of('skipped', count)}" for task, count in known.items()
    )


def _settings(files: ExperimentFiles) -> Table:
    """Return the settings that runs are compared by."""
    values = {key: OmegaConf.select(files.config, key) for key in KEY_SETTINGS}
    plain = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in values.items()
    }
    return Table("", [], [[key, text_of("seed", value)] for key, value in plain.items() if value is not None])


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
