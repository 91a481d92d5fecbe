"""Address fixed by the specification (ADR-1): everything here lives in the package `pillsnap`."""

from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_confusion import plot_confusion_matrix
from pillsnap.evaluation.plot_curves import plot_roc_pr_curves
from pillsnap.evaluation.plot_detections import plot_detection_results
from pillsnap.gates.advisor import OptimizationAdvisor
from pillsnap.gates.go_no_go import STAGE_TARGETS, simple_stage_evaluation
from pillsnap.gates.suggestions import generate_optimization_suggestions

__all__ = [
    "STAGE_TARGETS",
    "OptimizationAdvisor",
    "dump_metrics_json",
    "generate_optimization_suggestions",
    "plot_confusion_matrix",
    "plot_detection_results",
    "plot_roc_pr_curves",
    "simple_stage_evaluation",
]
