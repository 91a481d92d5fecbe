"""One label file of AI Hub data set 576: which pill, and where in the picture.

The files were written by several tools over two years: numbers come as strings, text as null, sizes as 0. Only what
training needs is read, and each value is taken in any form it is known to come in.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from pillsnap.data.box_checks import Box

MAX_SIDE_PX = 100_000  # a larger width or height in a label is a slip of the pen
MAX_PLAIN = 1 << 53  # whole numbers below it are themselves as floats
K_CODE = re.compile(r"K-\d+(-\d+)*")


class PillLabel(NamedTuple):
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


def parse_pill_label(text: bytes) -> PillLabel:
    """Parse the content of a label file.

    Raises:
        ValueError: It is not JSON in UTF-8, or not in the schema of the data set.
    """
    content = _parse(text)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where an object was expected")
    image = _first_object(content, "images")
    return PillLabel(
        _k_code(image.get("dl_mapping_code")),
        _k_code(image.get("drug_N")),
        _text(image.get("dl_name")),
        _size_wh(image),
        tuple(_boxes(content.get("annotations"))),
    )


def _parse(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Slower, but takes what real files hold beyond the standard (a byte order mark, NaN), and says what is wrong.
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


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
    if type(value) is int and abs(value) < MAX_PLAIN:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if text and (text.isascii() or _is_unicode(text)) else None


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written: JSON can spell halves of characters that no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _k_code(value: object) -> str | None:
    return _k_code_in(value) if isinstance(value, str) else None


@lru_cache(maxsize=8192)  # the codes of one folder are all the same
def _k_code_in(text: str) -> str | None:
    code = text.strip()
    return code if K_CODE.fullmatch(code) else None
