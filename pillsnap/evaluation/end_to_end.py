"""Figures for the whole answer to a photograph of several pills: the right box AND the right drug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pillsnap.evaluation.arrays import Values, as_floats
from pillsnap.evaluation.detection import box_array, match_boxes, require_targets
from pillsnap.evaluation.intervals import Interval, ratio_intervals

Answer: TypeAlias = tuple[Values, Values, Sequence[str]]  # boxes_xyxy (N, 4) pixels, scores (N,), N drug codes
Target: TypeAlias = tuple[Values, Sequence[str]]  # boxes_xyxy (M, 4) pixels, M drug codes


def evaluate_end_to_end(answers: Sequence[Answer], targets: Sequence[Target]) -> dict[str, float | int]:
    """Count the pills that were found at the right place and named correctly.

    Boxes are paired by place alone (IoU of at least 0.5, see `match_boxes`); a pair is right when both carry the same
    code. Every box of an answer counts, so pass what a user would be shown.

    Args:
        answers: One (boxes_xyxy, scores, codes) a picture.
        targets: One (boxes_xyxy, codes) a picture, in the same order.

    Returns:
        `recall` = right / labelled, `precision` = right / answered, `f1`, `box_recall` = boxes found whatever their
        drug / labelled, `drug_accuracy_on_found` = right / found; a ratio over nothing is 0, which the counts
        `n_boxes` (labelled), `n_answered`, `n_found` and `n_right` tell from a true 0. `n_images`.

    Raises:
        ValueError: Lists of different length, or arrays of the wrong shape.
        DataError: No picture has a labelled box.
    """
    n_boxes, n_answered, n_found, n_right = (int(total) for total in _counts(answers, targets).sum(axis=0))
    return {
        "recall": n_right / n_boxes,
        "precision": _ratio(n_right, n_answered),
        "f1": 2 * n_right / (n_boxes + n_answered),
        "box_recall": n_found / n_boxes,
        "drug_accuracy_on_found": _ratio(n_right, n_found),
        "n_images": len(targets),
        "n_boxes": n_boxes,
        "n_answered": n_answered,
        "n_found": n_found,
        "n_right": n_right,
    }


def end_to_end_intervals(
    answers: Sequence[Answer], targets: Sequence[Target], groups: Sequence[str] | None = None
) -> dict[str, Interval]:
    """Return the intervals of the ratios of `evaluate_end_to_end`, by drawing pictures (or groups of them) again.

    A draw in which nothing was answered, or nothing found, has no such ratio and is left out.

    Args:
        answers: As for `evaluate_end_to_end`.
        targets: As for `evaluate_end_to_end`.
        groups: One a picture: pictures of the same shot; None where each stands for itself.

    Raises:
        ValueError: Lists of different length, or arrays of the wrong shape.
        DataError: No picture has a labelled box.
    """
    labelled, answered, found, right = _counts(answers, targets).T
    ratios = {
        "recall": (right, labelled),
        "precision": (right, answered),
        "f1": (2 * right, labelled + answered),
        "box_recall": (found, labelled),
        "drug_accuracy_on_found": (right, found),
    }
    return ratio_intervals(ratios, groups)


def _counts(answers: Sequence[Answer], targets: Sequence[Target]) -> NDArray[np.int64]:
    """Return (N, 4): boxes of each picture that were labelled, answered, found, and found with the right drug."""
    if len(answers) != len(targets):
        raise ValueError(
            f"end to end cannot be evaluated: got answers for {len(answers)} pictures and targets for {len(targets)}; "
            "wanted one of each for every picture. Pass both lists in the same order."
        )
    require_targets([box_array(boxes, index) for index, (boxes, _) in enumerate(targets)])
    pairs = enumerate(zip(answers, targets, strict=True))
    return np.array([_count_one(answer, target, index) for index, (answer, target) in pairs], np.int64)


def _count_one(answer: Answer, target: Target, picture: int) -> tuple[int, int, int, int]:
    """Return how many boxes of one picture were labelled, answered, found, and found with the right drug."""
    boxes, scores, codes = box_array(answer[0], picture), as_floats(answer[1]).reshape(-1), answer[2]
    target_boxes, target_codes = box_array(target[0], picture), target[1]
    lengths = (len(boxes), len(scores), len(codes))
    if len(set(lengths)) > 1 or len(target_boxes) != len(target_codes):
        raise ValueError(
            f"picture {picture} has {lengths[0]} boxes, {lengths[1]} scores and {lengths[2]} codes answered, and "
            f"{len(target_boxes)} boxes with {len(target_codes)} codes labelled; wanted one score and one code a box. "
            "Pass the lists of the same picture."
        )
    pairs = match_boxes(boxes, scores, target_boxes)
    n_right = sum(codes[pred] == target_codes[labelled] for pred, labelled in pairs)
    return len(target_boxes), len(boxes), len(pairs), n_right


def _ratio(part: int, whole: int) -> float:
    """Return part / whole, or 0 where there is no whole."""
    return part / whole if whole else 0.0
