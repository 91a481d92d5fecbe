"""The pictures behind a comparison: what each of two experiments said to a pill that only one of them named rightly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pillsnap.data.images import decode_rgb
from pillsnap.errors import PillError
from pillsnap.evaluation.prediction_table import PredictionTable
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_pictures import Picture, jpeg_of, picture_of
from pillsnap.evaluation.report_values import share_text
from pillsnap.gates.comparison import PairedAnswers

LONG_SIDE_PX = 320


@dataclass(frozen=True)
class Case:
    """One pill and both answers to it."""

    truth: str
    answer_a: str
    answer_b: str
    path: str
    picture: Picture | None
    """None where the photograph is not at hand."""


def cases_of(
    paired: PairedAnswers, pills: NDArray[np.int64], names: ExperimentFiles, root: Path | None, most: int
) -> list[Case]:
    """Return cases with their pictures, those first in which the right one was surest.

    Args:
        paired: The answers of both.
        pills: Positions in `paired`.
        names: Its class map names the drugs.
        root: The data root that the pictures' paths begin at; None where nobody knows it.
        most: Cases at most.
    """
    surest = np.maximum(paired.a.confidence[paired.rows_a[pills]], paired.b.confidence[paired.rows_b[pills]])
    chosen = pills[np.argsort(-surest, kind="stable")[:most]]
    return [_case(paired, pill, names, root) for pill in chosen.tolist()]


def _case(paired: PairedAnswers, pill: int, names: ExperimentFiles, root: Path | None) -> Case:
    row_a, row_b = int(paired.rows_a[pill]), int(paired.rows_b[pill])
    path, box = paired.a.image_path[row_a], int(paired.a.box[row_a])
    truth = names.drug(paired.a.true_code[row_a])
    return Case(
        truth=truth if box < 0 else f"{truth} (pill {box + 1} of the picture)",
        answer_a=_answer(paired.a, row_a, names),
        answer_b=_answer(paired.b, row_b, names),
        path=path,
        picture=None if root is None else _thumbnail(root / path, f"Photograph of {truth}"),
    )


def _answer(table: PredictionTable, row: int, names: ExperimentFiles) -> str:
    """Return what was answered, how sure it was, and whether it was held back."""
    text = f"{names.drug(table.pred_code[row])}, {share_text(float(table.confidence[row]))}"
    return text if table.accepted[row] else f"{text}; refused"


def _thumbnail(path: Path, alt: str) -> Picture | None:
    """Return a photograph made small; None where it is gone or broken, which is no reason to go without the page."""
    try:
        image = Image.fromarray(decode_rgb(path))
    except (OSError, PillError):
        return None
    image.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
    return picture_of(path.name, jpeg_of(image), alt, "jpeg")
