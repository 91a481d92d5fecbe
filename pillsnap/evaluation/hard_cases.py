"""The hard cases of a judgement (DAT-6): what was wrong, refused, routed aside or said without being sure.

They are collected from the tables of answers (`prediction_table`) and from what mode auto answered for some pictures.
Only val and unknown drugs feed them: whoever looks at cases of the test split tunes on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pillsnap.data import columns
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.items import NO_BOX, classification_items
from pillsnap.data.preprocess import crop_resize, frame_square
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError
from pillsnap.evaluation.prediction_table import PredictionTable
from pillsnap.inference.hard_case import HardCase, Reading, case_of_answer, label_reasons, reading_of, routing_reasons
from pillsnap.inference.hard_cases import (
    CROP_PX,
    REFERENCES,
    SUMMARY,
    THUMBNAILS,
    HardCaseOptions,
    HardCases,
    crop_of,
    save_jpeg,
)
from pillsnap.jsonfile import save_json

logger = logging.getLogger("pillsnap")

FALLBACKS = ("low_confidence", "multi_object_hint", "manual_combo")
NUM_ROUTED = 200  # pictures of a split that mode auto answers: 30 s on two cores

Answer = Mapping[str, Any]
"""What `Pipeline.predict` returned."""


class Predictor(Protocol):
    """The part of `Pipeline` that is used here."""

    def predict(self, image: RgbImage, mode: str) -> Any:
        """Answer one photograph."""


def auto_answers(pipeline: Predictor, data: TwoStageData, split: str, most: int = NUM_ROUTED) -> dict[str, Answer]:
    """Let mode auto answer pictures of a split, spread evenly over all of them.

    Args:
        pipeline: The models to be judged.
        data: The run's data.
        split: "val" or "unknown".
        most: Pictures at most.

    Returns:
        Path of each picture (relative to the data root) -> its answer; broken pictures are left out.
    """
    rows = data.rows(split)
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    answers: dict[str, Answer] = {}
    for row in rows[chosen].tolist():
        path = data.records.image_path(row)
        try:
            answers[path] = pipeline.predict(decode_rgb(data.root / path), "auto")
        except BrokenImageError as error:
            logger.warning("mode auto could not be asked about a picture: %s", error)
    return answers


def gating_figures(answers: Iterable[Answer]) -> dict[str, float]:
    """Return the means that TensorBoard shows under `gate/` (DAT-6).

    Args:
        answers: Of mode auto.

    Returns:
        `gating_score` and `single_confidence` (means over the answers that have one), and the share of answers with
        each `fallback_<reason>`; empty without answers.
    """
    found = list(answers)
    if not found:
        return {}
    figures = {}
    for name in ("gating_score", "single_confidence"):
        values = [float(answer[name]) for answer in found if answer.get(name) is not None]
        if values:
            figures[name] = float(np.mean(values))
    reasons = Counter(answer.get("fallback_reason") for answer in found)
    return figures | {f"fallback_{reason}": reasons[reason] / len(found) for reason in FALLBACKS}


def collect_hard_cases(
    exp_dir: Path,
    data: TwoStageData,
    tables: Mapping[str, PredictionTable],
    answers: Mapping[str, Answer],
    options: HardCaseOptions,
) -> dict[str, Any]:
    """Write the hard cases of judged splits, and a picture of every drug they mention.

    Args:
        exp_dir: The experiment.
        data: Its data.
        tables: Split ("val", "unknown") -> the answers of the classifier.
        answers: `auto_answers` of those splits, put together; may be empty.
        options: `logging.hard_cases`.

    Returns:
        `splits`: for each, how many cases were `found` and `kept`, and how many were found for each reason (also in
        `hard_cases/summary.json`). Empty where cases are not kept, or there is no table.

    Raises:
        ValueError: Cases of another split than val and unknown are asked for.
        PillError: The folder cannot be written.
    """
    if set(tables) - {"val", "unknown"}:
        raise ValueError(
            f"hard cases of {sorted(tables)} were asked for; wanted val and unknown alone, because who looks at cases "
            "of the test split tunes on it. Leave it out."
        )
    if not options.enabled or not tables:
        return {}
    writer = HardCases(exp_dir, options)
    splits, mentioned = {}, set()
    for split, table in tables.items():
        cases = _Collector(data, table, answers, options.confidence).cases(split)
        kept = writer.replace(split, cases, lambda case: decode_rgb(data.root / case.image_path))
        reasons = Counter(reason for case in cases for reason in case.reasons)
        splits[split] = {"found": len(cases), "kept": len(kept), "reasons": dict(reasons.most_common())}
        mentioned |= {code for case in kept for code in (case.true_code, case.pred_code) if code}
    summary = {"splits": splits}
    save_json(writer.folder / SUMMARY, summary)
    if options.thumbnails:
        _write_references(writer.folder, data, mentioned)
    return summary


@dataclass(frozen=True, slots=True)
class _Collector:
    """Finds the cases of one split."""

    data: TwoStageData
    table: PredictionTable
    answers: Mapping[str, Answer]
    least_confidence: float

    def cases(self, split: str) -> list[HardCase]:
        """Return all of them, in the order of the table; then those of combinations that mode auto answered."""
        paths = np.array(self.table.image_path, object)
        is_asked = np.isin(paths, list(self.answers))
        has_wrong = self.table.is_known & (~self.table.is_right | ~self.table.accepted)
        is_hard = has_wrong | (~self.table.is_known & self.table.accepted)
        places = np.flatnonzero(is_hard | is_asked | (self.table.confidence < self.least_confidence))
        rows = self._rows_of([*paths[places], *self.answers])
        is_combo = columns.equals(self.data.records, "task", COMBO)
        found = [self._of_pill(int(place), rows, is_combo) for place in places]
        sides = self.data.split
        for path, answer in self.answers.items():
            row = rows.get(path)
            if row is not None and is_combo[row] and sides[row] == split:
                found.append(case_of_answer(answer, path, "auto", self.least_confidence, shows_one=False))
        return [case for case in found if case is not None]

    def _rows_of(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the rows of pictures in the table of records."""
        wanted = list(dict.fromkeys(paths))
        places = columns.find(self.data.records, "image_path", wanted)
        return {wanted[places[row]]: int(row) for row in np.flatnonzero(places != columns.ABSENT)}

    def _of_pill(self, place: int, rows: Mapping[str, int], is_combo: NDArray[np.bool_]) -> HardCase | None:
        """Return the case of one row of the table of answers, if it is one."""
        table, path = self.table, self.table.image_path[place]
        row, confidence = rows[path], float(table.confidence[place])
        is_one, accepted = not is_combo[row], bool(table.accepted[place])
        true_code, pred_code = table.true_code[place], table.pred_code[place]
        answer = self.answers.get(path) if is_one else None
        reading, num_pills = self._reading(answer, confidence, is_one=is_one)
        reasons = label_reasons(pred_code, true_code, is_known=bool(table.is_known[place]), accepted=accepted)
        reasons += routing_reasons(reading, confidence, self.least_confidence, num_pills=num_pills, shows_one=is_one)
        if not reasons:
            return None
        number, names = int(table.box[place]), self.data.class_map.names
        top5 = zip(table.top5_codes[place], table.top5_confidences[place], strict=True)
        return HardCase(
            image_path=path,
            box=None if number == NO_BOX else self.data.records.boxes_xyxy(row)[number].tolist(),
            **reading.to_dict(),
            true_code=true_code,
            pred_code=pred_code,
            top5=[{"code": code, "name": names.get(code), "confidence": float(value)} for code, value in top5],
            accepted=accepted,
            reasons=reasons,
            true_name=self.data.names.get(true_code),
        )

    def _reading(self, answer: Answer | None, confidence: float, *, is_one: bool) -> tuple[Reading, int]:
        """Return how the picture of a pill was read, and how many pills were answered."""
        if not is_one:
            return Reading(mode_asked="combo", mode_used="combo"), 1
        if answer is None:
            return Reading(mode_asked="single", mode_used="single", single_confidence=confidence), 1
        return reading_of(answer, "auto"), len(answer["pills"])


def _write_references(folder: Path, data: TwoStageData, codes: Iterable[str]) -> None:
    """Write a training picture of each drug of `codes` that has one, and `references.json` (code -> file)."""
    (folder / THUMBNAILS).mkdir(parents=True, exist_ok=True)
    places = _training_pictures(data)
    files = {}
    for code in sorted(codes):
        if code not in places:
            continue
        row, number = places[code]
        try:
            image = decode_rgb(data.root / data.records.image_path(row))
        except BrokenImageError as error:
            logger.warning("no reference picture of %s: %s", code, error)
            continue
        mark = hashlib.blake2b(code.encode(), digest_size=8).hexdigest()
        files[code] = f"{THUMBNAILS}/reference-{mark}.jpg"
        save_jpeg(_portrait(image, data, row, number), folder / files[code])
    for path in (folder / THUMBNAILS).glob("reference-*.jpg"):
        if f"{THUMBNAILS}/{path.name}" not in files.values():
            path.unlink(missing_ok=True)
    save_json(folder / REFERENCES, files)


def _training_pictures(data: TwoStageData) -> dict[str, tuple[int, int]]:
    """Return for each drug the row and box number of a training picture: one of it alone, if there is one."""
    rows, class_map = data.rows("train"), data.class_map
    found: dict[str, tuple[int, int]] = {}
    for task in (SINGLE, COMBO):
        items = classification_items(data.records, rows, class_map, (task,))
        labels, first = np.unique(items.labels, return_index=True)
        for label, place in zip(labels.tolist(), first.tolist(), strict=True):
            found.setdefault(class_map.codes[label], (int(items.rows[place]), int(items.box_numbers[place])))
    return found


def _portrait(image: RgbImage, data: TwoStageData, row: int, number: int) -> RgbImage:
    if number != NO_BOX:
        return crop_of(image, data.records.boxes_xyxy(row)[number].tolist())
    return crop_resize(image, frame_square((image.shape[1], image.shape[0]), "letterbox"), CROP_PX)
