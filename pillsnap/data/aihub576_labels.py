"""One label file of AI Hub data set 576: which pill, and where in the picture.

The files were written by several tools over two years: numbers come as strings, text as null, sizes as 0. Only what
training needs is read, and each value is taken in any form it is known to come in.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pillsnap.data.box_checks import Box

MAX_SIDE_PX = 100_000  # a larger width or height in a label is a slip of the pen
K_CODE = re.compile(r"K-\d+(-\d+)*")


@dataclass(frozen=True, slots=True)
class PillLabel:
    """What one label file says.

    `code` is the pill's K-code, `folder_code` that of its folder (all codes of a combination), None where the file
    does not tell. `size_wh` is in pixels, None where the file has no sensible one. `boxes_xyxy` are in pixels and may
    lie outside the picture.
    """

    code: str | None
    folder_code: str | None
    name: str | None
    size_wh: tuple[int, int] | None
    boxes_xyxy: tuple[Box, ...]


def read_pill_label(path: Path) -> PillLabel:
    """Read a label file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON in UTF-8, or not in the schema of the data set.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where an object was expected")
    image = _first_object(content, "images")
    return PillLabel(
        code=_k_code(image.get("dl_mapping_code")),
        folder_code=_k_code(image.get("drug_N")),
        name=_text(image.get("dl_name")),
        size_wh=_size_wh(image),
        boxes_xyxy=tuple(_boxes(content.get("annotations"))),
    )


def _first_object(content: dict[str, Any], key: str) -> dict[str, Any]:
    values = content.get(key)
    if not isinstance(values, list) or not values or not isinstance(values[0], dict):
        raise ValueError(f'no object in "{key}"')
    return values[0]


def _boxes(annotations: object) -> list[Box]:
    if annotations is None:
        return []
    if not isinstance(annotations, list):
        raise ValueError('"annotations" is not a list')
    boxes = []
    for annotation in annotations:
        bbox = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not bbox:
            continue  # an annotation without a box says that a pill is there, not where: the same as none
        numbers = [_number(value) for value in bbox] if isinstance(bbox, list) else []
        if len(numbers) != 4 or None in numbers:
            raise ValueError(f'"bbox" is {bbox!r}; four numbers x, y, width, height were expected')
        x, y, width, height = (value for value in numbers if value is not None)
        boxes.append((x, y, x + width, y + height))
    return boxes


def _size_wh(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = _number(image.get("width")), _number(image.get("height"))
    if width is None or height is None or not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        return None
    return int(width), int(height)


def _number(value: object) -> float | None:
    """Return a finite number from a number or a string that holds one, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text or None


def _k_code(value: object) -> str | None:
    text = _text(value)
    return text if text and K_CODE.fullmatch(text) else None
