"""Judging the best models of an experiment on one split, and drawing what they did.

Classification on single pictures, detection on labelled photographs, and end to end (right box and right drug) on
combination pictures. Figures come from the models as they will be used: averaged weights where EMA is on, fp32, the
shared preprocessing and the shared NMS.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from sklearn.metrics import confusion_matrix
from torch import nn

from pillsnap.data.images import decode_rgb
from pillsnap.data.loaders import classification_evaluation_loader, detection_evaluation_loader
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError
from pillsnap.evaluation.classification import evaluate_classification_metrics
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.end_to_end import evaluate_end_to_end
from pillsnap.evaluation.plot_confusion import plot_confusion_matrix
from pillsnap.evaluation.plot_curves import plot_roc_pr_curves
from pillsnap.evaluation.plot_detections import plot_detection_results
from pillsnap.evaluation.predictions import DetectionPredictions, classify_loader, detect_loader
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


@dataclass(frozen=True, slots=True)
class SplitEvaluation:
    """Judges the best models of one experiment."""

    cfg: DictConfig
    data: TwoStageData
    exp_dir: Path
    device: torch.device

    def run(self, split: str) -> dict[str, Any]:
        """Evaluate what was trained on `split` and draw its pictures into `reports/`.

        Returns:
            The split's name, and `classification`, `detection`, `end_to_end` figures for what was trained and labelled.
        """
        figures: dict[str, Any] = {"split": split}
        classifier = self._classifier() if "classification" in self.cfg.train.tasks else None
        detector = self._detector() if "detection" in self.cfg.train.tasks else None
        if classifier is not None:
            figures["classification"] = self._classification(classifier, split)
        if detector is not None:
            figures["detection"] = self._detection(detector, split)
        if classifier is not None and detector is not None:
            figures["end_to_end"] = self._end_to_end(classifier, detector, split)
        return figures

    def _classifier(self) -> ClassifierEngine:
        path = self.exp_dir / CLASSIFIER_FILE
        return load_classifier(read_checkpoint(path, "classification"), path, self.device)

    def _detector(self) -> DetectorEngine:
        path = self.exp_dir / DETECTOR_FILE
        return load_detector(read_checkpoint(path, "detection"), path, self.device)

    def _classification(self, engine: ClassifierEngine, split: str) -> dict[str, Any]:
        loader = classification_evaluation_loader(self.data, self.cfg, engine.spec, split)
        found = classify_loader(engine.model, loader, engine.spec, nn.CrossEntropyLoss())
        y_pred = found.y_prob.argmax(1)
        figures = evaluate_classification_metrics(found.y_true, y_pred, found.y_prob)
        reports, codes = self.exp_dir / "reports", list(engine.class_map.codes)
        names = [engine.class_map.names.get(code, code) for code in codes]
        matrix = confusion_matrix(found.y_true, y_pred, labels=np.arange(len(codes)))
        plot_confusion_matrix(matrix, names, reports / "confusion_matrix.png")
        plot_roc_pr_curves(np.eye(len(codes), dtype=np.int64)[found.y_true], found.y_prob, reports)
        return {
            "acc": figures["accuracy"],
            "macro_f1": figures["macro_f1"],
            "top5": figures["top5"],
            "confidence": figures["confidence"],
            "loss": found.loss,
            "n": figures["n"],
            "n_broken": len(found.broken),
        }

    def _detection(self, engine: DetectorEngine, split: str) -> dict[str, Any]:
        options = self.cfg.inference
        loader = detection_evaluation_loader(self.data, self.cfg, split)
        found = detect_loader(
            engine.model, loader, iou_threshold=options.iou_threshold, max_detections=options.max_detections
        )
        self._draw_detections(found)
        figures = evaluate_detection_metrics(
            found.predictions, found.targets, conf_threshold=self.cfg.inference.conf_threshold
        )
        return {**figures, "n_broken": len(found.broken)}

    def _draw_detections(self, found: DetectionPredictions) -> None:
        # Spread over the split, so that not all pictures show the same drugs.
        chosen = np.linspace(0, len(found.rows) - 1, min(NUM_PICTURES_DRAWN, len(found.rows))).round().astype(int)
        images, predictions = [], []
        for index in dict.fromkeys(int(number) for number in chosen):
            images.append(decode_rgb(self.data.root / self.data.records.image_path(found.rows[index])))
            scores = found.predictions[index]["scores"]
            confident = scores >= self.cfg.inference.conf_threshold
            predictions.append(
                {
                    "boxes_xyxy": found.predictions[index]["boxes_xyxy"][confident],
                    "scores": scores[confident],
                    "targets": found.targets[index]["boxes_xyxy"],
                }
            )
        plot_detection_results(images, predictions, self.exp_dir / "reports" / "detections")

    def _end_to_end(self, classifier: ClassifierEngine, detector: DetectorEngine, split: str) -> dict[str, Any]:
        options = self.cfg.inference
        settings = InferenceSettings(
            iou_threshold=options.iou_threshold,
            max_detections=options.max_detections,
            crop_padding=options.crop_padding,
        )
        pipeline = Pipeline(classifier, detector, settings)
        answers, targets, num_broken = [], [], 0
        for row in self.data.labelled_rows(split, self.cfg.data.detection.images):
            boxes, codes = self.data.records.boxes_xyxy(int(row)), self.data.records.box_codes(int(row))
            if not len(boxes):
                continue
            try:
                image = decode_rgb(self.data.root / self.data.records.image_path(int(row)))
            except BrokenImageError:
                num_broken += 1
                continue
            pills = pipeline.predict(image, "combo", options.conf_threshold)["pills"]
            answers.append(
                (
                    np.array([pill["box_xyxy"] for pill in pills], np.float32).reshape(-1, 4),
                    np.array([pill["detection_confidence"] for pill in pills], np.float32),
                    [pill["code"] for pill in pills],
                )
            )
            targets.append((boxes, codes))
        return {**evaluate_end_to_end(answers, targets), "n_broken": num_broken}
