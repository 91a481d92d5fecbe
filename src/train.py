"""Address fixed by the specification (ADR-1): everything here lives in the package `pillsnap`."""

from pillsnap.cli.train import main
from pillsnap.config.stage_overrides import (
    apply_stage_overrides,
    enable_large_dataset_optimizations,
    enable_small_dataset_optimizations,
)
from pillsnap.evaluation.classification import evaluate_classification_metrics
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.final_test import final_test_evaluation
from pillsnap.inference.pipeline import predict_pipeline
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model
from pillsnap.models.detector_yolo11m import build_criterion_detection, build_yolo_model
from pillsnap.training.classification import validate_classification
from pillsnap.training.detection import validate_detection
from pillsnap.training.early_stopping import early_stopping
from pillsnap.training.epochs import (
    train_classification_stage,
    train_detection_stage,
    train_one_epoch_classification,
    train_one_epoch_detection,
)
from pillsnap.training.losses import build_criterion_classification
from pillsnap.training.oom import oom_recovery_state_machine
from pillsnap.training.optim import build_optimizer, build_scheduler

__all__ = [
    "apply_stage_overrides",
    "build_classification_model",
    "build_criterion_classification",
    "build_criterion_detection",
    "build_optimizer",
    "build_scheduler",
    "build_yolo_model",
    "early_stopping",
    "enable_large_dataset_optimizations",
    "enable_small_dataset_optimizations",
    "evaluate_classification_metrics",
    "evaluate_detection_metrics",
    "final_test_evaluation",
    "main",
    "oom_recovery_state_machine",
    "predict_pipeline",
    "train_classification_stage",
    "train_detection_stage",
    "train_one_epoch_classification",
    "train_one_epoch_detection",
    "validate_classification",
    "validate_detection",
]

if __name__ == "__main__":
    raise SystemExit(main())
