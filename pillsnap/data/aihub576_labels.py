"""One label file of AI Hub data set 576: which pill, and where in the picture.

The files were written by several tools over two years: numbers come as strings, text as null, sizes as 0. Only what
training needs is read, and each value is taken in any form it is known to come in.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any, NamedTuple, cast

import orjson

from pillsnap.data.box_checks import Box

MAX_SIDE_PX = 100_000  # a larger width or height in a label is a slip of the pen
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
    images = content.get("images")
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        raise ValueError('no object in "images"')
    field = images[0].get
    return PillLabel(
        _k_code(field("dl_mapping_code")),
        _k_code(field("drug_N")),
        _text(field("dl_name")),
        _size_wh(images[0]),
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
        numbers = _numbers(bbox) if isinstance(bbox, list) else []
        if len(numbers) != 4 or None in numbers:
            raise ValueError(f'"bbox" is {bbox!r}; four numbers x, y, width, height were expected')
        x, y, width, height = cast(list[float], numbers)
        boxes.append((x, y, x + width, y + height))
    return boxes


def _size_wh(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if not (type(width) is type(height) is int):
        width, height = _number(width), _number(height)
    if width is None or height is None or not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        return None
    return int(width), int(height)


def _numbers(values: list[object]) -> list[float | None]:
    """Return finite numbers from numbers or strings that hold one, None for anything else."""
    try:
        return [float(value) if type(value) is int else _number(value) for value in values]
    except OverflowError:  # a whole number of some hundred digits
        return [_number(value) for value in values]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@lru_cache(maxsize=8192)  # the names and codes in one folder are all the same
def _text_in(text: str) -> str | None:
    text = text.strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell halves of characters, which no file can hold
        return None
    return text or None


def _text(value: object) -> str | None:
    return _text_in(value) if isinstance(value, str) else None


@lru_cache(maxsize=8192)
def _k_code_in(text: str) -> str | None:
    code = text.strip()
    return code if K_CODE.fullmatch(code) else None


def _k_code(value: object) -> str | None:
    return _k_code_in(value) if isinstance(value, str) else None
