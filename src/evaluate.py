"""Address fixed by the specification (ADR-1): everything here lives in the package `pillsnap`."""

from pillsnap.evaluation.metrics_file import dump_metrics_json
from pillsnap.evaluation.plot_confusion import plot_confusion_matrix
from pillsnap.evaluation.plot_curves import plot_roc_pr_curves
from pillsnap.evaluation.plot_detections import plot_detection_results

__all__ = ["dump_metrics_json", "plot_confusion_matrix", "plot_detection_results", "plot_roc_pr_curves"]
