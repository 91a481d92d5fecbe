"""What a data set holds and everything that is wrong with it, for `pillsnap data check`.

The readers find what labels, names and file sizes tell. This adds what only decoding every picture tells: truncated
files, and labels made for a picture of another size.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pillsnap.data.images import decode_rgb
from pillsnap.data.index import AUTO, load_index
from pillsnap.data.records import COMBO, SINGLE, Problem, Records
from pillsnap.errors import BrokenImageError, DataError

MAX_PROCESSES = 16
CHUNK = 32  # pictures handed to a process at a time

SizedPath = tuple[str, str, int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """The result of `check_dataset`; all counts are of usable pictures."""

    root: str
    reader: str
    is_decoded: bool
    num_pictures: dict[str, int]  # by task
    num_parts: dict[str, int]  # by the data set's own part
    sizes: dict[str, int]  # "976x1280" -> pictures
    num_groups: int
    num_boxes: int
    pills_per_class: dict[str, int]  # single pictures and boxes in combos, by class key
    singles_per_class: dict[str, int]
    problems: list[Problem]

    @property
    def is_usable_for_classification(self) -> bool:
        """Whether there are two classes or more."""
        return len(self.pills_per_class) >= 2

    @property
    def is_usable_for_detection(self) -> bool:
        """Whether there is any box."""
        return self.num_boxes > 0

    def problems_by_kind(self) -> dict[str, list[Problem]]:
        """Return the problems by kind, the most frequent kind first."""
        by_kind: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            by_kind[problem.kind].append(problem)
        return dict(sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0])))

    def per_class(self) -> dict[str, float]:
        """Return min, median and max of the pills per class."""
        counts = np.array(list(self.pills_per_class.values()) or [0])
        return {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        fields = ("root", "reader", "is_decoded", "num_pictures", "num_parts", "sizes", "num_groups", "num_boxes")
        return {
            **{name: getattr(self, name) for name in fields},
            "is_usable_for_classification": self.is_usable_for_classification,
            "is_usable_for_detection": self.is_usable_for_detection,
            "num_classes": len(self.pills_per_class),
            "pills_per_class": self.per_class(),
            "classes": {
                code: {"pills": pills, "singles": self.singles_per_class.get(code, 0)}
                for code, pills in self.pills_per_class.items()
            },
            "problems": {
                kind: [{"path": problem.path, "detail": problem.detail} for problem in problems]
                for kind, problems in self.problems_by_kind().items()
            },
        }


def check_dataset(
    root: Path,
    reader: str = AUTO,
    *,
    decode: bool = True,
    processes: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read a data set and, if wanted, decode every picture of it.

    Args:
        root: The data root.
        reader: Name of a reader, or "auto".
        decode: Decode every picture (about 20 ms each at 976x1280, per process).
        processes: How many decode; None for one per core, 1 to decode in this process.
        progress: Called with (pictures decoded, pictures in all).

    Returns:
        Counts and problems. Pictures that cannot be decoded are problems and are not counted.

    Raises:
        ConfigError: There is no such reader.
        DataError: The data set is missing, unreadable, or holds no usable picture.
    """
    scan = load_index(root, reader)
    records, problems = scan.records, scan.problems
    if decode:
        found = _decode_all(root, records, processes, progress or _ignore)
        broken = pa.array([problem.path for problem in found if problem.kind == "truncated_image"], pa.string())
        is_usable = pc.invert(pc.is_in(records.table.column("image_path"), broken))
        records, problems = records.select(is_usable.to_numpy()), [*problems, *found]
    if not len(records):
        raise DataError(
            f"None of the {len(scan.records)} pictures in {root} can be decoded; first: {problems[-1].path}: "
            f"{problems[-1].detail}. Complete picture files are wanted. Copy the data set again."
        )
    return _report(root, decode, records, problems)


def _report(root: Path, is_decoded: bool, records: Records, problems: Sequence[Problem]) -> CheckReport:
    table = records.table
    is_combo = pc.equal(table.column("task"), COMBO)
    singles = _counts(table.column("code").drop_null())
    in_combos = _counts(pc.list_flatten(table.column("box_codes").filter(is_combo)))
    sizes = pc.binary_join_element_wise(
        *(pc.cast(table.column(name), pa.string()) for name in ("width", "height")), "x"
    )
    tasks = _counts(table.column("task"))
    return CheckReport(
        root=str(root),
        reader=str(table.column("source")[0].as_py()),
        is_decoded=is_decoded,
        num_pictures={SINGLE: tasks[SINGLE], COMBO: tasks[COMBO]},
        num_parts=dict(sorted(_counts(table.column("part")).items())),
        sizes=dict(_counts(sizes).most_common()),
        num_groups=len(table.column("group").unique()),
        num_boxes=len(pc.list_flatten(table.column("boxes_xyxy"))) // 4,
        pills_per_class=dict(sorted((singles + in_combos).items())),
        singles_per_class=dict(sorted(singles.items())),
        problems=sorted(problems, key=lambda problem: (problem.path, problem.kind)),
    )


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()})


def _decode_all(root: Path, records: Records, processes: int | None, progress: Progress) -> list[Problem]:
    columns = (records.column(name).tolist() for name in ("image_path", "width", "height"))
    paths: Iterable[SizedPath] = ((str(root), *row) for row in zip(*columns, strict=True))
    num_processes = min(processes or os.cpu_count() or 1, MAX_PROCESSES)
    if num_processes == 1:
        return _collect(map(decode_problem, paths), len(records), progress)
    # Not fork: the caller may have threads (torch, logging) whose locks a forked child would inherit.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        return _collect(pool.map(decode_problem, paths, chunksize=CHUNK), len(records), progress)


def _collect(results: Iterable[Problem | None], total: int, progress: Progress) -> list[Problem]:
    found = []
    for number, problem in enumerate(results, start=1):
        progress(number, total)
        if problem:
            found.append(problem)
    return found


def _ignore(_done: int, _total: int) -> None:
    """Show no progress."""


def decode_problem(sized_path: SizedPath) -> Problem | None:
    """Decode one picture; return what is wrong with it, or None.

    Args:
        sized_path: Data root, path of the picture relative to it, width and height in pixels as its label tells.
    """
    root, image_path, width, height = sized_path
    try:
        image = decode_rgb(Path(root) / image_path)
    except BrokenImageError as error:
        return Problem("truncated_image", image_path, f"cannot be decoded ({error.__cause__}); skipped in training")
    if image.shape[:2] != (height, width):
        real = f"{image.shape[1]}x{image.shape[0]}"
        detail = f"is {real} px, but its label is for {width}x{height} px: boxes would lie in the wrong place"
        return Problem("size_mismatch", image_path, detail)
    return None
