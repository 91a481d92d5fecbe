"""The table of predictions from a streamed split: every answer beside the pill it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data import columns
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.records import SINGLE, Records
from pillsnap.evaluation.prediction_table import PredictionTable
from pillsnap.evaluation.streaming import ClassificationPredictions

Numbers = NDArray[np.floating[Any]]


def tabulate(
    found: ClassificationPredictions,
    records: Records,
    items: ClassificationItems,
    codes: Sequence[str],
    *,
    temperature: float = 1.0,
    scores: Numbers | None = None,
    threshold: float | None = None,
) -> PredictionTable:
    """Return one row for each pill that was answered.

    Args:
        found: The answers; with their logits where `temperature` is not 1.
        records: The picture table.
        items: What the loader went through, in order.
        codes: C drug codes by class number.
        temperature: Divides the logits, see `temperature.py`; 1 leaves the model's own confidence.
        scores: (N,) acceptance scores; None takes the confidence.
        threshold: The score an answer needs to be given; None gives all.

    Raises:
        ValueError: The answers are not for these items, or logits are needed and were not kept.
    """
    asked = items.take(answered_items(found, records, items))
    top = calibrated_top(found, temperature)
    confidence = top[:, 0]
    scores = confidence if scores is None else np.asarray(scores, np.float32)
    names = np.asarray(codes, object)
    return PredictionTable(
        sample_id=[str(number) for number in found.sample_ids.tolist()],
        image_path=_column(records, "image_path", asked.rows),
        group=groups_of(records, asked),
        box=asked.box_numbers.astype(np.int32),
        true_code=_true_codes(records, asked, codes),
        pred_code=names[found.y_pred].tolist(),
        confidence=confidence,
        score=scores,
        accepted=np.ones(len(found), bool) if threshold is None else scores >= threshold,
        rank=found.ranks,
        top5_codes=names[found.top_classes].tolist(),
        top5_confidences=top.tolist(),
    )


def calibrated_top(found: ClassificationPredictions, temperature: float) -> NDArray[np.float32]:
    """Return the probabilities of the most probable classes at a temperature, (N, K) float32.

    Raises:
        ValueError: Logits are needed and were not kept.
    """
    if temperature == 1.0:
        return found.top_probabilities
    if found.logits is None:
        raise ValueError(
            f"confidences at temperature {temperature:.4g} need the logits of all classes, which were not kept; wanted "
            "them beside the answers. Pass keep_logits=True to classify_loader."
        )
    return found.logits.probabilities(found.top_classes, temperature)


def answered_items(found: ClassificationPredictions, records: Records, items: ClassificationItems) -> NDArray[np.int64]:
    """Return the position in `items` of each answer, (N,): all of them but those that could not be decoded.

    Raises:
        ValueError: The answers are not for these items.
    """
    ids = columns.array_of(records, "sample_id").to_numpy()[items.rows]
    if np.array_equal(ids, found.sample_ids) and np.array_equal(items.labels, found.y_true):
        return np.arange(len(items))
    asked = list(zip(ids.tolist(), items.labels.tolist(), strict=True))
    positions, place = np.empty(len(found), np.int64), 0
    for number, answer in enumerate(zip(found.sample_ids.tolist(), found.y_true.tolist(), strict=True)):
        while place < len(asked) and asked[place] != answer:
            place += 1
        if place == len(asked):
            raise ValueError(
                f"answer {number} is for picture {answer[0]} with class {answer[1]}, which does not come next among "
                f"the {len(items)} items; wanted the answers to these items in their order. Pass the items the loader "
                "was built from."
            )
        positions[number] = place
        place += 1
    return positions


def groups_of(records: Records, items: ClassificationItems) -> list[str]:
    """Return the group of each item's picture: pictures of the same shot."""
    return _column(records, "group", items.rows)


def _column(records: Records, name: str, rows: NDArray[np.integer[Any]]) -> list[str]:
    texts: list[str] = columns.array_of(records, name).take(rows).to_pylist()
    return texts


def _true_codes(records: Records, asked: ClassificationItems, codes: Sequence[str]) -> list[str]:
    """Return each pill's drug as it is labelled; drugs the model does not know have a code too."""
    is_single = columns.equals(records, "task", SINGLE)[asked.rows]
    singles = _column(records, "code", asked.rows)
    found = []
    for number, label in enumerate(asked.labels.tolist()):
        if label >= 0:
            found.append(codes[label])
        elif is_single[number] or asked.box_numbers[number] == NO_BOX:
            found.append(singles[number])
        else:
            found.append(records.box_codes(int(asked.rows[number]))[int(asked.box_numbers[number])])
    return found
