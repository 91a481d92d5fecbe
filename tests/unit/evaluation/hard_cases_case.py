"""A tiny data set with an unknown drug, and the answers of a model that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pillsnap.config.loading import load_config
from pillsnap.data.twostage import TwoStageData, load_data
from pillsnap.evaluation.prediction_table import PredictionTable
from tests.builders import write_aihub
from tests.unit.config.builders import ROOT_CONFIG

KNOWN = ("K-000001", "K-000002")
UNKNOWN = "K-000009"


def build_data(folder: Path) -> TwoStageData:
    """Write and read a data set of two known drugs, combinations with a third, and an unknown drug."""
    root = write_aihub(
        folder / "data",
        singles={code: 36 for code in KNOWN},
        combos={"K-000001-000002": 2, "K-000001-000003": 2, "K-000002-000003": 2},
        val_singles={UNKNOWN: 3},
    )
    return load_data(config_of(root, folder / "exp"))


def config_of(root: Path, exp_dir: Path) -> DictConfig:
    """Return the configuration of a run on a data set."""
    words = [f"data.root={root}", f"paths.exp_dir={exp_dir}", "train.tasks=[classification]"]
    return load_config(ROOT_CONFIG, words)


def table_of(
    data: TwoStageData, split: str, *, pred: str = KNOWN[0], confidence: float = 0.9, accepted: bool = True
) -> PredictionTable:
    """Return the answers of a model that takes every pill of a split for one drug."""
    items = data.evaluation_items(split, "frame")
    rows = items.rows.tolist()
    true = [str(data.records.table.column("code")[row].as_py()) for row in rows]
    rank = [-1 if code == UNKNOWN else int(code != pred) for code in true]
    columns: dict[str, Any] = {
        "sample_id": [str(data.records.sample_id(row)) for row in rows],
        "image_path": [data.records.image_path(row) for row in rows],
        "group": [""] * len(rows),
        "box": items.box_numbers.astype(np.int32),
        "true_code": true,
        "pred_code": [pred] * len(rows),
        "confidence": np.full(len(rows), confidence, np.float32),
        "score": np.full(len(rows), confidence, np.float32),
        "accepted": np.full(len(rows), accepted),
        "rank": np.array(rank, np.int32),
        "top5_codes": [[pred, next(code for code in KNOWN if code != pred)]] * len(rows),
        "top5_confidences": [[confidence, 1 - confidence]] * len(rows),
    }
    return PredictionTable(**columns)
