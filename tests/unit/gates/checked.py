"""A whole experiment without training: random models, a data set of noise, and the files a run leaves behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.config.loading import save_config
from pillsnap.data.selection_file import write_selection
from pillsnap.data.twostage import TwoStageData, load_data
from pillsnap.evaluation.prediction_table import PredictionTable, write_predictions
from pillsnap.gates.evidence import Outcome
from pillsnap.gates.subject import CheckOptions, Subject
from pillsnap.jsonfile import read_json, save_json
from pillsnap.models.classifier_efficientnetv2_s import classifier_input
from pillsnap.training.checkpoint import CheckpointStore
from pillsnap.training.telemetry import TBWriter
from tests.builders import write_aihub
from tests.run.tiny import tiny_config
from tests.unit.inference.builders import checkpoint_of, random_classifier, random_detector

EPOCHS = 2
SINGLES = {"K-000001": 12, "K-000002": 12, "K-000003": 12}
COMBOS = {"K-000001-000002-000003": 12, "K-000001-000002": 12}
STEP_TAGS = ("train/loss", "train/lr", "perf/data_time", "perf/compute_time", "perf/throughput", "perf/cuda_mem")
CLASSIFIER_TAGS = ("val/loss", "val/accuracy", "val/macro_f1", "val/top5")
DETECTOR_TAGS = ("val/mAP@0.5", "val/mAP@0.5:0.95", "val/precision", "val/recall")


def write_checked_experiment(exp_dir: Path, data_root: Path) -> Path:
    """Write an experiment in `exp_dir` that passes every check that needs no measurement, and return its folder."""
    write_aihub(data_root, singles=SINGLES, combos=COMBOS)
    small = ("data.progressive_validation.min_images_per_class=2", f"paths.cache_dir={exp_dir.parent / 'cache'}")
    cfg = tiny_config(exp_dir, data_root, "data.synthetic=null", *small)
    for name in ("reports", "export"):
        (exp_dir / name).mkdir(parents=True)
    save_config(cfg, exp_dir / "config.yaml")
    data = load_data(cfg)
    data.class_map.save(exp_dir / "class_map.json")
    selection = write_selection(data, cfg, exp_dir / "selection.csv")
    _save_models(exp_dir, data)
    with TBWriter(exp_dir) as tb:
        for prefix, tags in (("", CLASSIFIER_TAGS), ("detection/", DETECTOR_TAGS)):
            for epoch in range(EPOCHS):
                tb.add_scalars(dict.fromkeys((*STEP_TAGS, *tags), 0.5), epoch, prefix)
    save_json(exp_dir / "reports" / "run.json", run_facts(data, selection))
    save_json(exp_dir / "reports" / "metrics.json", {"classification": {"acc": 0.5}, "detection": {"mAP@0.5": 0.5}})
    (exp_dir / "reports" / "index.html").write_text("<html></html>\n", encoding="utf-8")
    _write_predictions(Subject(exp_dir))
    return exp_dir


def run_facts(data: TwoStageData, selection: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run on the CPU whose memory held to its plan and whose batch sizes were searched for."""
    store = {
        "entries": 20,
        "in_ram": 20,
        "on_disk": 0,
        "ram_bytes": 1_000_000,
        "hits_ram": 80,
        "hits_disk": 0,
        "misses": 20,
        "damaged": 0,
        "stale": 0,
        "left_out": 0,
    }
    found = [
        {"what": f"{label}: cut", "from": "8 x 1", "to": "4 x 2", "why": "auto batch: fits"}
        for label in ("train", "train/detection")
    ]
    return {
        "ended": "2026-01-01T00:00:00+00:00",
        "device": "cpu",
        "memory_plan": {
            "total": 10**10,
            "system": 10**9,
            "hot_set": 10**6,
            "prefetch": 10**6,
            "workers": 10**8,
            "free": 8 * 10**9,
        },
        "peak_memory_mb": {"main": 900.0, "largest_worker": 900.0},
        "pixel_stores": {"classification-train": store},
        "selection": selection,
        "data": {"counts": data.counts(), "damaged_files": {}, "damaged_share": 0.0},
        "evaluation": {"split": "val", "classification": {"acc": 0.5}, "detection": {"recall": 0.0}},
        "tasks": {task: {"epochs": EPOCHS, "steps": 8} for task in ("classification", "detection")},
        "decisions": found,
    }


def copy_of(experiment: Path, target: Path) -> Path:
    """Copy an experiment by hard links; to change a file of the copy, use `replace` or `change`."""
    shutil.copytree(experiment, target, copy_function=os.link)
    return target


def replace(path: Path, content: bytes) -> None:
    """Give `path` a content of its own, whatever it was a link to."""
    path.unlink()
    path.write_bytes(content)


def change(exp_dir: Path, edit: Callable[[dict[str, Any]], object], file: str = "reports/run.json") -> None:
    """Edit a JSON file of an experiment."""
    content = read_json(exp_dir / file)
    edit(content)
    save_json(exp_dir / file, content)


def produced(producer: Callable[[Subject], Outcome], exp_dir: Path, **options: Any) -> Outcome:
    """Return what a producer finds in an experiment."""
    return producer(Subject(exp_dir, CheckOptions(**options)))


def _save_models(exp_dir: Path, data: TwoStageData) -> None:
    classifier = random_classifier()
    inputs = {
        "classifier_input": classifier_input(classifier, 32, "center").to_dict(),
        "class_map": data.class_map.to_dict(),
    }
    states = {
        "classification": checkpoint_of("classification", classifier, **inputs),
        "detection": checkpoint_of("detection", random_detector(), image_size=64),
    }
    CheckpointStore(exp_dir).save(states, best=list(states), loop_step=1, is_completed=True)


def _write_predictions(subject: Subject) -> None:
    """Record what the classifier says of the single val pictures, as the run's evaluation does."""
    pipeline, root = subject.pipeline, Path(subject.cfg.data.root)
    paths = subject.val_pictures("single", 1000)
    candidates = [pipeline.predict(path, "single")["pills"][0]["top5"] for path in paths]
    codes = [[one["code"] for one in found] for found in candidates]
    truth = [path.parent.name for path in paths]
    best = np.array([found[0]["confidence"] for found in candidates], np.float32)
    write_predictions(
        subject.exp_dir / "reports" / "predictions_val.arrow",
        PredictionTable(
            sample_id=[str(number) for number in range(len(paths))],
            image_path=[path.relative_to(root).as_posix() for path in paths],
            group=truth,
            box=np.full(len(paths), -1, np.int32),
            true_code=truth,
            pred_code=[found[0] for found in codes],
            confidence=best,
            score=best,
            accepted=np.ones(len(paths), bool),
            rank=np.array([found.index(code) for found, code in zip(codes, truth, strict=True)], np.int32),
            top5_codes=codes,
            top5_confidences=[[one["confidence"] for one in found] for found in candidates],
        ),
    )
