"""Intervals of the detector's figures, by drawing photographs again (`intervals.py`).

mAP cannot be put together from a figure a photograph, but its matches can be made once: which box takes which pill
does not depend on the other photographs. A draw only weighs them anew. mAP@0.5:0.95 has no interval: it would take ten
times as long, and tells nothing that no other figure tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.evaluation.arrays import Values
from pillsnap.evaluation.detection import (
    MAX_DETECTIONS,
    RECALL_POINTS,
    box_array,
    boxes_and_scores,
    match_boxes,
    require_targets,
)
from pillsnap.evaluation.intervals import (
    NUM_RESAMPLES,
    Interval,
    draws,
    group_numbers,
    interval_of,
    ratio_intervals,
)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Every box that was found in N photographs, the most confident first, and whether it is right at IoU 0.5."""

    scores: NDArray[np.float32]
    """(D,) descending."""
    is_right: NDArray[np.bool_]
    """(D,)."""
    pictures: NDArray[np.int64]
    """(D,) number of each box's photograph."""
    num_labelled: NDArray[np.int64]
    """(N,) labelled boxes a photograph."""

    @classmethod
    def of(cls, predictions: Sequence[Mapping[str, Values]], targets: Sequence[Mapping[str, Values]]) -> Matches:
        """Match photograph by photograph; arguments and errors as for `evaluate_detection_metrics`."""
        if len(predictions) != len(targets):
            raise ValueError(
                f"detections cannot be matched: got predictions for {len(predictions)} pictures and targets for "
                f"{len(targets)}; wanted one of each for every picture. Pass both lists in the same order."
            )
        labelled = [box_array(target["boxes_xyxy"], index) for index, target in enumerate(targets)]
        require_targets(labelled)
        scores, is_right = [], []
        for index, (prediction, target) in enumerate(zip(predictions, labelled, strict=True)):
            boxes, confidences = boxes_and_scores(prediction, index)
            best = np.argsort(-confidences, kind="stable")[:MAX_DETECTIONS]
            right = np.zeros(len(best), bool)
            right[[place for place, _ in match_boxes(boxes[best], confidences[best], target)]] = True
            scores.append(confidences[best])
            is_right.append(right)
        pictures = np.repeat(np.arange(len(targets)), [len(values) for values in scores])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        return cls(
            np.concatenate(scores)[order],
            np.concatenate(is_right)[order],
            pictures[order],
            np.array([len(boxes) for boxes in labelled], np.int64),
        )

    def average_precision(self, times: NDArray[np.integer[Any]]) -> float:
        """Return COCO's 101-point average precision at IoU 0.5, 0..1.

        Args:
            times: (N,) how often each photograph counts.

        Returns:
            NaN where the photographs that count have no labelled box.
        """
        num_labelled = int(times @ self.num_labelled)
        if not num_labelled:
            return float("nan")
        weights = times[self.pictures]
        right = np.cumsum(np.where(self.is_right, weights, 0))
        precision = right / np.maximum(np.cumsum(weights), 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 where that recall is never reached
        places = np.searchsorted(right / num_labelled, RECALL_POINTS, side="left")
        return float(best[places].mean())


def detection_intervals(
    predictions: Sequence[Mapping[str, Values]],
    targets: Sequence[Mapping[str, Values]],
    *,
    conf_threshold: float = 0.3,
    groups: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """Return the intervals of `mAP@0.5`, and of `precision` and `recall` at `conf_threshold`.

    Args:
        predictions: As for `evaluate_detection_metrics`.
        targets: As for `evaluate_detection_metrics`.
        conf_threshold: Boxes scored at least this count for precision and recall.
        groups: One a photograph: photographs of the same shot; None where each stands for itself.
        num_resamples: How many draws.

    Raises:
        ValueError: Lists of different length, or arrays of the wrong shape or with numbers that are not finite.
        DataError: No picture has a labelled box.
    """
    matches = Matches.of(predictions, targets)
    num_pictures = len(matches.num_labelled)
    numbers = group_numbers(groups, num_pictures)
    num_groups = int(numbers.max()) + 1
    is_shown = matches.scores >= conf_threshold
    shown = np.bincount(matches.pictures[is_shown], minlength=num_pictures)
    right = np.bincount(matches.pictures[is_shown & matches.is_right], minlength=num_pictures)
    intervals = ratio_intervals(
        {"precision": (right, shown), "recall": (right, matches.num_labelled)}, numbers, num_resamples=num_resamples
    )
    if num_groups < 2:
        return {"mAP@0.5": None, **intervals}
    values = [matches.average_precision(drawn[numbers]) for drawn in draws(num_groups, num_resamples)]
    return {"mAP@0.5": interval_of(values, num_groups), **intervals}
