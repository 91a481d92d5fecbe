"""The two text files of a data set in YOLO format: class names, and the label lines of one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from pillsnap.errors import DataError

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One line of a label file: class number and box, (cx, cy, width, height) as fractions of the picture."""

    class_id: int
    box_cxcywh_norm: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Class number -> name, from which file, and what was wrong with it ("": nothing)."""

    names: dict[int, str]
    file_name: str
    fault: str = ""


def read_class_names(root: Path) -> ClassNames | None:
    """Return the names in `data.yaml` or `classes.txt` below `root`; None where there is neither.

    A `data.yaml` that is not YAML as a whole (people paste notes below it) is read for its `names` alone.

    Raises:
        DataError: The file cannot be read or has no usable `names`.
    """
    path = next((root / name for name in NAMES_FILES if (root / name).is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            lines = [line.strip() for line in text.splitlines()]
            return ClassNames(dict(enumerate(line for line in lines if line)), path.name)
        try:
            return ClassNames(_names_in_yaml(text), path.name)
        except yaml.YAMLError as error:
            fault = f"is not YAML as a whole ({_one_line(error)}); only its names are read"
            return ClassNames(_names_in_yaml(_names_section(text)), path.name, fault)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"The class names in {path} cannot be read ({_one_line(error)}). Wanted: `names:` with a list of names, or "
            "with lines `0: name`, in UTF-8. Correct the file, or delete it to use the class numbers as names."
        ) from error


def parse_label_line(text: str) -> LabelLine:
    """Parse one line of a label file: `class cx cy width height`, or `class x1 y1 x2 y2 x3 y3 ...` for an outline.

    Raises:
        ValueError: It is not a class number with a box or an outline.
    """
    words = text.split()
    numbers = [float(word) for word in words]
    if len(numbers) < 5 or len(numbers) % 2 == 0:
        raise ValueError(f"{len(numbers)} numbers; 5 (a box) or 7, 9, ... (an outline) were expected")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a number is not finite")
    if numbers[0] < 0 or numbers[0] != int(numbers[0]):
        raise ValueError(f"class {words[0]} is not a whole number from 0 up")
    class_id, values = int(numbers[0]), numbers[1:]
    if len(values) == 4:
        return LabelLine(class_id, (values[0], values[1], values[2], values[3]))
    x_min, x_max, y_min, y_max = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    return LabelLine(class_id, ((x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min))


def _names_in_yaml(text: str) -> dict[int, str]:
    # BaseLoader keeps every scalar a string: a drug called `No` or `1e3` stays one.
    content = yaml.load(text, Loader=yaml.BaseLoader)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return {number: name.strip() for number, name in enumerate(names)}
    if isinstance(names, dict) and names:
        return {int(number): str(name).strip() for number, name in names.items()}
    raise ValueError("it has no `names` with something in them")


def _names_section(text: str) -> str:
    """Return the lines from `names:` up to the next key or text at the margin."""
    section: list[str] = []
    for line in text.splitlines():
        if section and line[:1] not in ("", " ", "\t", "-", "#", "]", "}"):
            break
        if section or line.startswith("names:"):
            section.append(line)
    return "\n".join(section)


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
