"""An experiment's folder as a run that deserves a go leaves it, for tests to take something away from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.evaluation.prediction_table import PredictionTable, write_predictions
from pillsnap.gates.evidence import checkpoint_hashes
from pillsnap.gates.targets import get_stage_config
from pillsnap.jsonfile import read_json, save_json
from pillsnap.training.telemetry import TBWriter

CODES = [f"K-{number:06d}" for number in range(1, 11)]
NUM_PILLS = 2000
ACCURACY = 0.9


def predictions(num_right: int, *, num: int = NUM_PILLS, first: int = 0, per_group: int = 1) -> PredictionTable:
    """Return answers of which the first `num_right` name the true drug; pictures are numbered from `first`."""
    true = [CODES[index % len(CODES)] for index in range(num)]
    wrong = [CODES[(index + 1) % len(CODES)] for index in range(num)]
    is_right = np.arange(num) < num_right
    pred = [code if right else other for code, other, right in zip(true, wrong, is_right, strict=True)]
    return PredictionTable(
        sample_id=[f"{first + index:016x}" for index in range(num)],
        image_path=[f"pictures/{first + index}.png" for index in range(num)],
        group=[f"shot-{(first + index) // per_group}" for index in range(num)],
        box=np.full(num, -1, np.int32),
        true_code=true,
        pred_code=pred,
        confidence=np.where(is_right, 0.9, 0.4).astype(np.float32),
        score=np.where(is_right, 0.9, 0.4).astype(np.float32),
        accepted=is_right,
        rank=np.where(is_right, 0, 1).astype(np.int32),
        top5_codes=[[code] for code in pred],
        top5_confidences=[[0.9] for _ in pred],
    )


class ExperimentCase:
    """The folder, and ways to change what it says."""

    def __init__(self, exp_dir: Path, stage: int = 1) -> None:
        """Write every file a go of `stage` needs."""
        self.dir = exp_dir
        self.stage = stage
        for folder in ("reports", "checkpoints", "logs"):
            (exp_dir / folder).mkdir(parents=True)
        (exp_dir / "checkpoints" / "best.pt").write_bytes(b"weights of the classifier")
        (exp_dir / "checkpoints" / "detection_best.pt").write_bytes(b"weights of the detector")
        save_json(exp_dir / "class_map.json", {"codes": CODES})
        write_predictions(self.predictions_path, predictions(round(ACCURACY * NUM_PILLS)))
        save_json(exp_dir / "reports" / "metrics.json", _metrics())
        save_json(exp_dir / "reports" / "run.json", _run(stage))
        timing = {name: {"p95_ms": 9.0, "mean_ms": 4.0} for name in ("single", "combo", "detector", "classifier")}
        save_json(exp_dir / "reports" / "latency.json", timing)
        self.prove()

    def prove(self) -> None:
        """Let the checks have passed and the times have been taken with the checkpoints that lie here."""
        hashes = checkpoint_hashes(self.dir)
        timed = {"classification": hashes["best.pt"], "detection": hashes["detection_best.pt"]}
        self.change("latency", checkpoints=timed)
        self.pass_checks(*get_stage_config(self.stage).mandatory_checks)

    @property
    def predictions_path(self) -> Path:
        """Where the answers to val lie."""
        return self.dir / "reports" / "predictions_val.arrow"

    def change(self, name: str, **values: Any) -> None:
        """Replace values at the top of one of the reports; keys with a dot lead deeper."""
        path = self.dir / "reports" / f"{name}.json"
        content = read_json(path) if path.exists() else {}
        for dotted, value in values.items():
            *parents, last = dotted.split("__")
            place = content
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        save_json(path, content)

    def pass_checks(self, *names: str, **facts: Any) -> None:
        """Note checks as passed with the checkpoints that lie here."""
        for name in names:
            check = {"status": "passed", "file": None, "checkpoint": checkpoint_hashes(self.dir), **facts}
            self.change("checks", **{f"checks__{name}": check})

    def write_tensorboard(self, **series: list[float]) -> None:
        """Write event files; `__` in a name stands for `/`."""
        with TBWriter(self.dir) as writer:
            for name, values in series.items():
                for step, value in enumerate(values):
                    writer.add_scalar(name.replace("__", "/"), value, step)


def _metrics() -> dict[str, Any]:
    return {
        "val": {
            "split": "val",
            "classification": {
                "acc": ACCURACY,
                "macro_f1": 0.89,
                "top5": 0.99,
                "n": NUM_PILLS,
                "per_class_min_f1": 0.6,
                "top1_per_class_min": 0.7,
            },
            "detection": {"mAP@0.5": 0.95, "mAP@0.5:0.95": 0.7, "precision": 0.9, "recall": 0.8},
        },
        "latest": {"classification": {"train_loss": 0.5}},
        "history": {
            "classification": [{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate([3, 2, 1, 1, 1, 2])]
        },
    }


def _run(stage: int) -> dict[str, Any]:
    return {
        "ended": "2026-01-31T12:00:00+00:00",
        "device": "cuda:0",
        "selection": {"stage": stage, "class_balance": {"splits": {"train": {"imbalance_ratio": 3.0}}}},
        "data": {"damaged_share": 0.001},
        "tasks": {"classification": {"throughput": 150.0}, "detection": {"throughput": 60.0}},
        "decisions": [],
        "peak_memory_mb": {"main": 1000.0},
    }
