"""What is looked at again after a judgement: hard cases, and how mode auto would have read the pictures (DAT-6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation.hard_cases import Answer, auto_answers, collect_hard_cases, gating_figures
from pillsnap.evaluation.prediction_table import read_predictions
from pillsnap.inference.checkpoints import CLASSIFIER_FILE, DETECTOR_FILE
from pillsnap.inference.hard_cases import HardCaseOptions
from pillsnap.inference.pipeline import Pipeline

SPLITS = ("val", "unknown")


def review(cfg: DictConfig, data: TwoStageData, exp_dir: Path, device: torch.device) -> dict[str, Any]:
    """Collect the hard cases of the splits that were judged, and let mode auto answer some of their pictures.

    Args:
        cfg: The run's configuration.
        data: Its data.
        exp_dir: The experiment, with `reports/predictions_<split>.arrow` of what was judged.
        device: Where the models run.

    Returns:
        `hard_cases` (see `collect_hard_cases`) and `gate` (see `gating_figures`); empty where they are off or nothing
        was judged.

    Raises:
        PillError: A table or model cannot be read, or a file cannot be written.
    """
    options = HardCaseOptions.from_config(cfg)
    paths = {split: exp_dir / "reports" / f"predictions_{split}.arrow" for split in SPLITS}
    tables = {split: read_predictions(path) for split, path in paths.items() if path.is_file()}
    if not options.enabled or not tables:
        return {}
    answers: dict[str, Answer] = {}
    if all((exp_dir / name).is_file() for name in (CLASSIFIER_FILE, DETECTOR_FILE)):
        pipeline = Pipeline.from_experiment(exp_dir, device)
        for split in tables:
            answers |= auto_answers(pipeline, data, split)
    found = {"hard_cases": collect_hard_cases(exp_dir, data, tables, answers, options)}
    return found | ({"gate": gating_figures(answers.values())} if answers else {})
