"""When the judged model says "unknown": fitted on val, measured on val, test and drugs that were never trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from pillsnap.data.items import ClassificationItems
from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation.acceptance import Evidence, Threshold, choose_threshold, fit_acceptance
from pillsnap.evaluation.answer_table import answered_items, calibrated_top, tabulate
from pillsnap.evaluation.calibration_error import ReliabilityBins, reliability_bins
from pillsnap.evaluation.classification_report import MAIN_SPLIT, calibrated_figures
from pillsnap.evaluation.looks import describe_items, reference_items
from pillsnap.evaluation.plot_calibration import plot_calibration
from pillsnap.evaluation.plot_risk_coverage import plot_risk_coverage
from pillsnap.evaluation.prediction_table import PredictionTable, write_predictions
from pillsnap.evaluation.streaming import ClassificationPredictions
from pillsnap.evaluation.temperature import fit_temperature
from pillsnap.evaluation.unknown import evaluate_unknown
from pillsnap.inference.appearance import Appearance
from pillsnap.inference.calibration import Calibration
from pillsnap.inference.checkpoints import CLASSIFIER_FILE
from pillsnap.jsonfile import save_json

logger = logging.getLogger("pillsnap")

Floats = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Decides for whole splits which answers are given."""

    cfg: DictConfig
    data: TwoStageData
    exp_dir: Path
    frame_fit: str
    """The classifier's, see `ClassifierInput`."""

    def fit(self, found: ClassificationPredictions, items: ClassificationItems) -> Calibration:
        """Fit temperature, score and threshold to the answers of val, and save them with the experiment.

        Args:
            found: Answers to pills of known drugs, with their logits.
            items: What the loader went through.

        Raises:
            PillError: The files cannot be written.
        """
        temperature = fit_temperature(_logits_of(found), found.y_true)
        references = reference_items(self.data, self.cfg)
        looks = describe_items(self.data, references, self.cfg, self.frame_fit)
        is_seen = np.isfinite(looks).all(axis=1)
        appearance = Appearance.fit(looks, references.labels) if is_seen.any() else None
        asked = items.take(answered_items(found, self.data.records, items))
        seen = describe_items(self.data, asked, self.cfg, self.frame_fit)
        known = Evidence(
            calibrated_top(found, temperature)[:, 0], _distances(appearance, seen, found.y_pred), found.ranks == 0
        )
        # Answered as surely as the pill itself: see `acceptance.py`.
        foreign = _distances(appearance, seen, without_their_own(found))
        strangers = Evidence(known.confidence, foreign, np.zeros(len(found), bool))
        acceptance = fit_acceptance(known, strangers)
        wanted = float(self.cfg.inference.wanted_error)
        threshold = choose_threshold(
            acceptance.score(known.confidence, known.distance),
            known.is_right,
            acceptance.score(strangers.confidence, strangers.distance),
            wanted,
        )
        _tell(threshold, wanted, len(found))
        before, after = (reliability_bins(one, known.is_right) for one in (found.confidence, known.confidence))
        plot_calibration(before, after, temperature, self.exp_dir / "reports" / "calibration.png")
        calibration = Calibration(
            temperature=temperature,
            acceptance=acceptance,
            threshold=threshold.value,
            appearance=appearance,
            facts={
                "wanted_error": wanted,
                "fitted_on": {"split": "val", "n": len(found), **_facts(threshold)},
                "figures": calibrated_figures(found, temperature),
                "bins": {"before": _rows_of(before), "after": _rows_of(after)},
                "share_without_a_pill": float(np.mean(~np.isfinite(seen).all(axis=1))),
            },
        )
        calibration.save(self.exp_dir, self.exp_dir / CLASSIFIER_FILE)
        return calibration

    def judge(
        self, found: ClassificationPredictions, items: ClassificationItems, split: str, calibration: Calibration | None
    ) -> PredictionTable:
        """Decide which answers of a split are given, and write `reports/predictions_<split>.arrow`.

        Args:
            found: The answers, with their logits.
            items: What the loader went through.
            split: Its name.
            calibration: From `fit`, of the same model; None: the model's own confidence is the score, and all is given.
        """
        path, codes = self.exp_dir / "reports" / f"predictions_{split}.arrow", self.data.class_map.codes
        if calibration is None:
            table = tabulate(found, self.data.records, items, codes)
            write_predictions(path, table)
            return table
        asked = items.take(answered_items(found, self.data.records, items))
        seen = describe_items(self.data, asked, self.cfg, self.frame_fit)
        confidence = calibrated_top(found, calibration.temperature)[:, 0]
        scores = calibration.acceptance.score(confidence, _distances(calibration.appearance, seen, found.y_pred))
        table = tabulate(
            found,
            self.data.records,
            items,
            codes,
            temperature=calibration.temperature,
            scores=scores,
            threshold=calibration.threshold,
        )
        write_predictions(path, table)
        return table

    def report(
        self, known: PredictionTable, strangers: PredictionTable, split: str, calibration: Calibration | None
    ) -> dict[str, Any]:
        """Measure how well strangers are told from the pills of a split; write `reports/unknown.json` for val.

        Args:
            known: The answers to `split`.
            strangers: The answers to drugs that were never trained on.
            split: Its name.
            calibration: Whose threshold counts.

        Returns:
            The figures of `evaluate_unknown` without its curves.
        """
        figures = evaluate_unknown(
            (known.score, known.is_right),
            strangers.score,
            0.0 if calibration is None else calibration.threshold,
            groups_known=known.group,
            drugs_unknown=strangers.true_code,
        )
        if split == MAIN_SPLIT:
            save_json(self.exp_dir / "reports" / "unknown.json", figures)
            wanted = float(self.cfg.inference.wanted_error)
            plot_risk_coverage(figures, self.exp_dir / "reports" / "risk_coverage.png", wanted)
        return {name: value for name, value in figures.items() if name != "risk_coverage"}


def without_their_own(found: ClassificationPredictions) -> IntArray:
    """Strike each pill's own drug out of the list, and return the class that is answered then, (N,)."""
    second = np.minimum(1, found.top_classes.shape[1] - 1)
    columns = np.where(found.ranks == 0, second, 0)
    return found.top_classes[np.arange(len(found)), columns].astype(np.int64)


def _logits_of(found: ClassificationPredictions) -> Any:
    assert found.logits is not None
    return found.logits


def _distances(appearance: Appearance | None, seen: NDArray[np.float32], classes: IntArray) -> Floats:
    if appearance is None:
        return np.full(len(seen), np.inf, np.float32)
    return appearance.distances(seen, classes)


def _rows_of(bins: ReliabilityBins) -> list[dict[str, float | int]]:
    """Return the bins that hold answers."""
    edges = zip(bins.edges[:-1].tolist(), bins.edges[1:].tolist(), strict=True)
    columns = zip(edges, bins.counts.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True)
    return [
        {"low": low, "high": high, "n": count, "confidence": confidence, "accuracy": accuracy}
        for (low, high), count, confidence, accuracy in columns
        if count
    ]


def _facts(threshold: Threshold) -> dict[str, Any]:
    return {"error": threshold.error, "coverage": threshold.coverage, "is_proven": threshold.is_proven}


def _tell(threshold: Threshold, wanted: float, num_pills: int) -> None:
    logger.info(
        "refusal: %.1f %% of the val pills are named, %.1f %% of the names wrong where half the pills are strangers",
        100 * threshold.coverage, 100 * threshold.error,
    )  # fmt: skip
    if not threshold.is_proven:
        logger.warning(
            "%d val pills are too few, or too many of their answers wrong, to show an error of %g among the names "
            "given (inference.wanted_error): the threshold holds for val itself and may be too low for new pictures",
            num_pills, wanted,
        )  # fmt: skip
