"""Judging the best models of an experiment on one split, and drawing what they did.

Classification on single pictures, detection on labelled photographs, end to end (right box and right drug) on
combination pictures, and refusal on drugs that were never trained on. Figures come from the models as they will be
used: averaged weights where EMA is on, fp32, the shared preprocessing and the shared NMS.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from pillsnap.data.batches import Broken
from pillsnap.data.damage import Damage
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.items import ClassificationItems
from pillsnap.data.loaders import classification_evaluation_loader, detection_evaluation_loader
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError
from pillsnap.evaluation.answer_table import answered_items, groups_of
from pillsnap.evaluation.classification_report import calibrated_figures, report_classification
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.detection_intervals import detection_intervals
from pillsnap.evaluation.end_to_end import end_to_end_intervals, evaluate_end_to_end
from pillsnap.evaluation.plot_detections import plot_detection_results
from pillsnap.evaluation.prediction_table import PredictionTable
from pillsnap.evaluation.predictions import DetectionPredictions, classify_loader, detect_loader
from pillsnap.evaluation.refusal import Refusal
from pillsnap.evaluation.streaming import ClassificationPredictions
from pillsnap.inference.calibration import Calibration
from pillsnap.inference.checkpoints import (
    CLASSIFIER_FILE,
    DETECTOR_FILE,
    load_classifier,
    load_detector,
    read_checkpoint,
)
from pillsnap.inference.engines import ClassifierEngine, DetectorEngine
from pillsnap.inference.pipeline import InferenceSettings, Pipeline

logger = logging.getLogger("pillsnap")

NUM_PICTURES_DRAWN = 8
PLACE = "evaluation"
"""Where the damage was met, for its count."""


@dataclass(frozen=True, slots=True)
class SplitEvaluation:
    """Judges the best models of one experiment."""

    cfg: DictConfig
    data: TwoStageData
    exp_dir: Path
    device: torch.device
    damage: Damage = field(default_factory=Damage.unlimited)
    """Told of pictures that cannot be decoded."""

    def run(self, split: str) -> dict[str, Any]:
        """Evaluate what was trained on `split` and draw its pictures into `reports/`.

        Judging val also fits when an answer is refused (`calibration.json`); other splits are judged by that.

        Returns:
            The split's name, and `classification`, `detection`, `end_to_end` and `unknown` figures for what was trained
            and labelled.

        Raises:
            CheckpointError: A best model is missing or damaged.
            DataError: The split cannot be evaluated.
        """
        figures: dict[str, Any] = {"split": split}
        classifier = self._classifier() if "classification" in self.cfg.train.tasks else None
        detector = self._detector() if "detection" in self.cfg.train.tasks else None
        rows = self._rows_with_boxes(split)
        calibration = None
        if classifier is not None and self._holds(split, len(self._items(split)), "pill to classify"):
            figures["classification"], table, calibration = self._classification(classifier, split)
            figures |= self._unknown(classifier, table, split, calibration)
        if detector is not None and self._holds(split, len(rows), "picture with boxes"):
            figures["detection"], found = self._detection(detector, split)
            if classifier is not None:
                pipeline = Pipeline(classifier, detector, self._settings(), calibration)
                figures["end_to_end"] = self._end_to_end(pipeline, rows)
            else:
                self._draw(self._confident(found))
        return figures

    def _holds(self, split: str, count: int, what: str) -> bool:
        if not count:
            logger.warning("the %s split holds no %s: that part is not evaluated", split, what)
        return count > 0

    def _rows_with_boxes(self, split: str) -> list[int]:
        if "detection" not in self.cfg.train.tasks:
            return []
        rows = self.data.labelled_rows(split, self.cfg.data.detection.images)
        return [int(row) for row in rows if len(self.data.records.boxes_xyxy(int(row)))]

    def _classifier(self) -> ClassifierEngine:
        path = self.exp_dir / CLASSIFIER_FILE
        return load_classifier(read_checkpoint(path, "classification"), path, self.device)

    def _detector(self) -> DetectorEngine:
        path = self.exp_dir / DETECTOR_FILE
        return load_detector(read_checkpoint(path, "detection"), path, self.device)

    def _classification(
        self, engine: ClassifierEngine, split: str
    ) -> tuple[dict[str, Any], PredictionTable, Calibration | None]:
        """Return the figures, the answers, and what decides which of them are given."""
        found = self._answers(engine, split)
        figures = report_classification(
            found,
            split,
            self.exp_dir / "reports",
            codes=engine.class_map.codes,
            names=engine.class_map.names,
            groups=self._groups(found, split),
        )
        refusal, items = self._refusal(engine), self._items(split)
        calibration = refusal.fit(found, items) if split == "val" else Calibration.load(self.exp_dir)
        if calibration is not None:
            figures |= calibrated_figures(found, calibration.temperature)
        return figures, refusal.judge(found, items, split, calibration), calibration

    def _unknown(
        self, engine: ClassifierEngine, known: PredictionTable, split: str, calibration: Calibration | None
    ) -> dict[str, Any]:
        """Return how well drugs that were never trained on are told from those of `split`; nothing without any."""
        items = self._items("unknown")
        if not len(items):
            return {}
        refusal = self._refusal(engine)
        strangers = refusal.judge(self._answers(engine, "unknown"), items, "unknown", calibration)
        return {"unknown": refusal.report(known, strangers, split, calibration)}

    def _answers(self, engine: ClassifierEngine, split: str) -> ClassificationPredictions:
        loader = classification_evaluation_loader(self.data, self.cfg, engine.spec, split)
        found = classify_loader(engine.model, loader, engine.spec, nn.CrossEntropyLoss(), keep_logits=True)
        if found.broken:
            logger.warning("[%s] %d pictures left out, first: %s", split, len(found.broken), found.broken[0].reason)
        self.damage.note(found.broken, PLACE)
        return found

    def _refusal(self, engine: ClassifierEngine) -> Refusal:
        return Refusal(self.cfg, self.data, self.exp_dir, engine.spec.frame_fit)

    def _items(self, split: str) -> ClassificationItems:
        return self.data.evaluation_items(split, self.cfg.data.classification.eval_view)

    def _groups(self, found: ClassificationPredictions, split: str) -> list[str]:
        """Return the group of each pill's picture."""
        items = self._items(split)
        return groups_of(self.data.records, items.take(answered_items(found, self.data.records, items)))

    def _groups_of_rows(self, rows: list[int]) -> list[str]:
        """Return the group of each picture."""
        return [str(group) for group in self.data.records.column("group")[rows]]

    def _detection(self, engine: DetectorEngine, split: str) -> tuple[dict[str, Any], DetectionPredictions]:
        options = self.cfg.inference
        loader = detection_evaluation_loader(self.data, self.cfg, split)
        found = detect_loader(
            engine.model, loader, iou_threshold=options.iou_threshold, max_detections=options.max_detections
        )
        self.damage.note(found.broken, PLACE)
        figures = evaluate_detection_metrics(
            found.predictions, found.targets, conf_threshold=self.cfg.inference.conf_threshold
        )
        intervals = detection_intervals(
            found.predictions,
            found.targets,
            conf_threshold=self.cfg.inference.conf_threshold,
            groups=self._groups_of_rows(found.rows),
        )
        return {**figures, "n_broken": len(found.broken), "intervals": intervals}, found

    def _end_to_end(self, pipeline: Pipeline, rows: list[int]) -> dict[str, Any]:
        """Judge whole answers: of each pill the best drug, refused or not, and in `named` those that were given."""
        answers, named, targets, answered, drawn, num_broken = [], [], [], [], [], 0
        to_draw = set(_spread(rows))
        for row in rows:
            try:
                pills = pipeline.predict(self._image(row), "combo", self.cfg.inference.conf_threshold)["pills"]
            except BrokenImageError as error:
                num_broken += 1
                self.damage.note([Broken(self.data.records.image_path(row), str(error), error.kind)], PLACE)
                continue
            boxes = np.array([pill["box_xyxy"] for pill in pills], np.float32).reshape(-1, 4)
            scores = np.array([pill["detection_confidence"] for pill in pills], np.float32)
            codes = [pill["top5"][0]["code"] for pill in pills]
            answers.append((boxes, scores, codes))
            is_named = np.array([not pill["is_unknown"] for pill in pills], bool)
            named.append((boxes[is_named], scores[is_named], np.array(codes, object)[is_named].tolist()))
            targets.append((self.data.records.boxes_xyxy(row), self.data.records.box_codes(row)))
            answered.append(row)
            if row in to_draw:
                drawn.append((row, boxes, scores, codes))
        self._draw(drawn)
        intervals = end_to_end_intervals(answers, targets, self._groups_of_rows(answered))
        figures = evaluate_end_to_end(answers, targets)
        return {
            **figures,
            "named": evaluate_end_to_end(named, targets),
            "n_broken": num_broken,
            "intervals": intervals,
        }

    def _confident(self, found: DetectionPredictions) -> list[tuple[Any, ...]]:
        chosen = []
        for index in _spread(list(range(len(found.rows)))):
            boxes, scores = found.predictions[index]["boxes_xyxy"], found.predictions[index]["scores"]
            is_shown = scores >= self.cfg.inference.conf_threshold
            chosen.append((found.rows[index], boxes[is_shown], scores[is_shown]))
        return chosen

    def _draw(self, found: list[tuple[Any, ...]]) -> None:
        """Draw (row, boxes, scores[, codes]) beside what is labelled."""
        images, predictions = [], []
        for row, boxes, scores, *codes in found:
            images.append(self._image(row))
            prediction = {"boxes_xyxy": boxes, "scores": scores, "targets": self.data.records.boxes_xyxy(row)}
            if codes:
                prediction |= {"codes": codes[0], "target_codes": self.data.records.box_codes(row)}
            predictions.append(prediction)
        plot_detection_results(images, predictions, self.exp_dir / "reports" / "detections")

    def _settings(self) -> InferenceSettings:
        options = self.cfg.inference
        return InferenceSettings(
            conf_threshold=options.conf_threshold,
            iou_threshold=options.iou_threshold,
            max_detections=options.max_detections,
            crop_padding=options.crop_padding,
        )

    def _image(self, row: int) -> RgbImage:
        return decode_rgb(self.data.root / self.data.records.image_path(row))


def _spread(rows: list[int]) -> list[int]:
    """Return a few rows spread over all of them, so that not every picture shows the same drugs."""
    chosen = np.linspace(0, len(rows) - 1, min(NUM_PICTURES_DRAWN, len(rows))).round().astype(int)
    return [rows[index] for index in dict.fromkeys(chosen.tolist())]
