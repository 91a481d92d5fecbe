"""The classifier on one split: figures with their intervals, the table of drugs, and the plots."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.evaluation.calibration_error import expected_calibration_error
from pillsnap.evaluation.classification import classification_figures
from pillsnap.evaluation.confusions import Confusions
from pillsnap.evaluation.intervals import classification_intervals
from pillsnap.evaluation.logit_store import LogitStore
from pillsnap.evaluation.per_class import lowest_figures, per_class_figures, write_per_class
from pillsnap.evaluation.plot_confusion import plot_confusions
from pillsnap.evaluation.plot_curves import plot_roc_pr_of_answers
from pillsnap.evaluation.streaming import ClassificationPredictions

logger = logging.getLogger("pillsnap")

MAIN_SPLIT = "val"


def report_classification(
    found: ClassificationPredictions,
    split: str,
    reports: Path,
    *,
    codes: Sequence[str],
    names: Mapping[str, str],
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure the answers to a split; write `per_class_<split>.csv`, the confusion matrix and the ROC and PR curves.

    Plots of another split than val go into a folder of its name, so that those of val stay.

    Args:
        found: Answers to pills of known drugs, with their logits.
        split: Its name.
        reports: Folder to write into.
        codes: C drug codes by class number.
        names: Drug names by code, where they are known.
        groups: One a pill: pictures of the same shot; None where each stands for itself.

    Returns:
        `acc`, `macro_f1`, `top5`, `confidence`, `loss`, `n`, `n_broken`, `nll`, `ece`, `per_class_min_f1`,
        `top1_per_class_min`, and `intervals` of most of them.

    Raises:
        ValueError: Codes, groups or logits that are missing or of other answers.
        NonFiniteLossError: The model's output was not finite.
        PillError: A file cannot be written.
    """
    figures = classification_figures(found)
    rows = per_class_figures(found, codes, names)
    write_per_class(reports / f"per_class_{split}.csv", rows)
    _draw(found, split, reports if split == MAIN_SPLIT else reports / split, _labels(codes, names))
    return {
        "acc": figures["accuracy"],
        **{name: figures[name] for name in ("macro_f1", "top5", "confidence", "nll", "ece", "n")},
        "loss": found.loss,
        "n_broken": len(found.broken),
        **lowest_figures(rows),
        "intervals": classification_intervals(found, groups),
    }


def calibrated_figures(found: ClassificationPredictions, temperature: float) -> dict[str, float]:
    """Return `nll_calibrated` and `ece_calibrated`: likelihood and calibration error at a temperature.

    Args:
        found: Answers to pills of known drugs, with their logits.
        temperature: What the logits are divided by.

    Raises:
        ValueError: The logits were not kept.
    """
    store = _logits(found)
    confidence = np.exp(-store.log_sums(temperature))
    return {
        "nll_calibrated": float(store.likelihoods(found.y_true, temperature).mean(dtype=np.float64)),
        "ece_calibrated": expected_calibration_error(np.minimum(confidence, 1), found.ranks == 0),
    }


def _logits(found: ClassificationPredictions) -> LogitStore:
    if found.logits is None:
        raise ValueError(
            "figures at a temperature need the logits of all classes, which were not kept; wanted them beside the "
            "answers. Pass keep_logits=True to classify_loader."
        )
    return found.logits


def _labels(codes: Sequence[str], names: Mapping[str, str]) -> list[str]:
    return [f"{code} {names.get(code, '')}".strip() for code in codes]


def _draw(found: ClassificationPredictions, split: str, folder: Path, labels: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    confusions = Confusions.of_answers(found.y_true, found.y_pred, found.num_classes)
    plot_confusions(confusions, labels, folder / "confusion_matrix.png")
    if len(np.unique(found.y_true)) > 1:
        plot_roc_pr_of_answers(found, folder, class_names=labels)
    else:
        logger.warning("the %s split holds one class only: ROC and PR curves need two", split)
