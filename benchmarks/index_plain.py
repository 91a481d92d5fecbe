"""What one would write instead of the index: `glob` and `json` in a loop; and the least that any reader must do."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pillsnap.data.scan_pool import map_jobs

FILES_PER_JOB = 1000

Row = tuple[Any, ...]


class ReadJob(NamedTuple):
    """Files that one process opens and reads."""

    paths: Sequence[str]


def plain_index(root: Path) -> list[Row]:
    """Read a data set of AI Hub's layout into a list of rows, sorted by path.

    It groups the labels of a combination and has the same paths, classes, boxes, groups and sizes as ours; it does not
    look for damage.
    """
    start = len(str(root)) + 1
    images = {
        os.path.basename(path)[:-4]: path[start:]  # noqa: PTH119 - what is measured is a plain, fast loop
        for path in glob.glob(f"{root}/*/images/**/*.png", recursive=True)  # noqa: PTH207
    }
    found: dict[str, tuple[list[str], list[tuple[float, ...]], int, int]] = {}
    for path in glob.glob(f"{root}/*/labels/**/*.json", recursive=True):  # noqa: PTH207
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            content = json.load(file)
        image = content["images"][0]
        stem = os.path.basename(path)[:-5]  # noqa: PTH119
        codes, boxes, _, _ = found.setdefault(stem, ([], [], int(image["width"]), int(image["height"])))
        for annotation in content["annotations"]:
            x, y, width, height = map(float, annotation["bbox"])
            codes.append(image["dl_mapping_code"])
            boxes.append((x, y, x + width, y + height))
    return sorted(_row(images[stem], stem, *pills) for stem, pills in found.items() if stem in images)


def _row(path: str, stem: str, codes: list[str], boxes: list[tuple[float, ...]], width: int, height: int) -> Row:
    key, _, background, side, light, *_ = stem.split("_")
    is_single = key.count("-") == 1
    group = f"{key}|{background}|{side}|{light}" if is_single else key
    return (
        path,
        "single" if is_single else "combo",
        codes[0] if is_single else None,
        group,
        "aihub576",
        path.partition("/")[0],
        width,
        height,
        boxes,
        codes,
    )


def read_files(paths: Sequence[str], processes: int) -> int:
    """Open and read all files in several processes; return how many bytes they have."""
    jobs = [ReadJob(paths[start : start + FILES_PER_JOB]) for start in range(0, len(paths), FILES_PER_JOB)]
    return sum(map_jobs(read_some, jobs, processes))


def read_some(job: ReadJob) -> int:
    """Open and read some files; return how many bytes they have."""
    total = 0
    for path in job.paths:
        with open(path, "rb") as file:  # noqa: PTH123
            total += len(file.read())
    return total
