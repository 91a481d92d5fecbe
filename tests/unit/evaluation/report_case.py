"""A small finished experiment for the tests of the report: real files, no model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_confusion import plot_confusion_matrix
from pillsnap.evaluation.plot_curves import plot_roc_pr_curves
from pillsnap.evaluation.plot_detections import plot_detection_results
from pillsnap.evaluation.plot_history import plot_history
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.jsonfile import save_json

NAMES = {"K-000001": "타이레놀정", "K-000002": "<script>alert(1)</script>"}
RUN: dict[str, Any] = {
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 305.0,
    "device": "cpu",
    "seed": 42,
    "versions": {"torch": "2.15.0"},
    "data": {"counts": {"train": {"single": 1600, "combo": 160}}, "classes": 2},
    "tasks": {"classification": {"throughput": 151.2, "data_wait_share": 0.083, "skipped": 3}},
    "peak_memory_mb": {"main": 2103.3},
    "decisions": [{"time": "2026-01-02T03:04:06+00:00", "what": "workers", "from": "8", "to": "2", "why": "2 cores"}],
}


def build_experiment(exp_dir: Path) -> Path:
    """Write every file the report reads and return the folder."""
    reports = exp_dir / "reports"
    reports.mkdir(parents=True)
    classified = {"epoch": 1, "val_loss": 0.7, "acc": 0.8, "macro_f1": 0.7, "top5": 1.0}
    detected = {"epoch": 1, "mAP@0.5": 0.6, "mAP@0.5:0.95": 0.3}
    history = {"classification": [classified], "detection": [detected]}
    test = {"classification": {"acc": 0.9617, "n": 240}, "detection": {"mAP@0.5": 0.934, "tool": "T 1.0"}}
    dump_metrics_json({"history": history, "test": test}, reports / "metrics.json")
    plot_history(history, reports / "history.png")
    plot_confusion_matrix([[9, 1], [0, 10]], list(NAMES), reports / "confusion_matrix.png")
    plot_roc_pr_curves([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]], reports)
    photograph = np.full((60, 80, 3), 128, np.uint8)
    plot_detection_results([photograph], [{"boxes_xyxy": [[5, 5, 30, 30]], "scores": [0.9]}], reports / "detections")
    save_json(exp_dir / "class_map.json", {"codes": list(NAMES), "names": NAMES})
    save_json(reports / "run.json", RUN)
    config = "train:\n  tasks: [classification, detection]\n  lr: 0.0002\n  seed: 42\n"
    (exp_dir / "config.yaml").write_text(config, encoding="utf-8")
    return exp_dir


def files_of(exp_dir: Path = Path("runs", "none"), *, tasks: list[str] | None = None, **parts: Any) -> ExperimentFiles:
    """Return an experiment that holds only the given files."""
    not_facts = ("exp_dir", "config_text", "config")
    empty: dict[str, Any] = {field.name: {} for field in fields(ExperimentFiles) if field.name not in not_facts}
    config = OmegaConf.create({"train": {"tasks": tasks}} if tasks else {})
    return ExperimentFiles(**{**empty, "exp_dir": exp_dir, "config_text": "", "config": config, **parts})
