"""Which pills the classifier sees, as arrays that cost a worker process nothing.

With 2.6 million pictures the list takes 30 MB. A forked worker shares it with its parent; a spawned one maps the file
that `ClassificationItems.saved` wrote, and all of them share the page cache.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path
from pillsnap.data import columns
from pillsnap.data.cache_files import remove_old_files
from pillsnap.data.classes import ClassMap
from pillsnap.data.records import COMBO, SINGLE, Records
from pillsnap.errors import PillError

logger = logging.getLogger("pillsnap")

NO_BOX = -1
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class ClassificationItems:
    """Which pills the classifier sees: parallel arrays of table row, box number (`NO_BOX`: whole frame) and class."""

    rows: IntArray
    box_numbers: IntArray
    labels: IntArray
    path: Path | None = field(default=None, compare=False)
    """The file these arrays are mapped from, which is all that travels to another process; None: they do."""

    def __len__(self) -> int:
        """Return the number of pills."""
        return len(self.rows)

    def __reduce__(self) -> tuple[Callable[..., ClassificationItems], tuple[Any, ...]]:
        """Send the path of the file where there is one."""
        if self.path is not None:
            return ClassificationItems.load, (self.path,)
        return ClassificationItems, (self.rows, self.box_numbers, self.labels)

    def take(self, indices: NDArray[np.int64]) -> ClassificationItems:
        """Return the items at `indices`."""
        return ClassificationItems(self.rows[indices], self.box_numbers[indices], self.labels[indices])

    def saved(self, folder: Path) -> ClassificationItems:
        """Return the same items mapped from a file in `folder`, whose name is a hash of its content.

        The list works without the file: where it cannot be written, these items are returned and the log says so.
        """
        content = np.stack([self.rows, self.box_numbers, self.labels]).astype(np.int32)
        digest = hashlib.blake2b(content.tobytes(), digest_size=12).hexdigest()
        path = folder / f"items-{digest}.npy"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = _held(path, content)
            remove_old_files(folder, "items-*.npy")
            return found
        except (OSError, ValueError, PillError) as error:
            logger.warning("the list of pills stays in memory, in each worker of its own: %s", error)
            return self

    @classmethod
    def load(cls, path: Path) -> ClassificationItems:
        """Map what `saved` wrote."""
        rows, box_numbers, labels = np.asarray(np.load(path, mmap_mode="r"))
        return cls(rows, box_numbers, labels, path)


def classification_items(
    records: Records, rows: NDArray[np.int64], class_map: ClassMap, tasks: tuple[str, ...] = (SINGLE, COMBO)
) -> ClassificationItems:
    """List the pills of the pictures in `rows` whose class is known: one a single picture, one a box of a combo.

    Args:
        records: The picture table.
        rows: Row numbers to look at.
        class_map: Pills of other classes are left out.
        tasks: Kinds of pictures to use.

    Returns:
        The pills, int32, in the order of `rows` and of the boxes in a picture.
    """
    pills = _pills(records, rows, class_map.codes, tasks)
    return pills.take(np.flatnonzero(pills.labels != columns.ABSENT))


def unknown_items(
    records: Records,
    rows: NDArray[np.int64],
    class_map: ClassMap,
    *,
    ignore: frozenset[str] = frozenset(),
    tasks: tuple[str, ...] = (SINGLE, COMBO),
) -> ClassificationItems:
    """List the pills of the pictures in `rows` whose class the models do not know; their label is `columns.ABSENT`.

    Args:
        records: The picture table.
        rows: Row numbers to look at.
        class_map: Pills of these classes are left out: a combination may hold both.
        ignore: Class keys that are no drugs are left out too.
        tasks: Kinds of pictures to use.
    """
    pills = _pills(records, rows, [*class_map.codes, *sorted(ignore)], tasks)
    return pills.take(np.flatnonzero(pills.labels == columns.ABSENT))


def _pills(
    records: Records, rows: NDArray[np.int64], codes: Sequence[str], tasks: tuple[str, ...]
) -> ClassificationItems:
    """List all pills of the pictures in `rows` with their place in `codes`; `ABSENT`: it is not there."""
    is_single = columns.equals(records, "task", SINGLE)[rows]
    box_labels, offsets = columns.find_box_codes(records, codes)
    num_pills = np.where(is_single, SINGLE in tasks, 0)
    if COMBO in tasks:
        num_pills = np.where(columns.equals(records, "task", COMBO)[rows], np.diff(offsets)[rows], num_pills)
    ends = np.cumsum(num_pills)
    numbers = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - num_pills, num_pills)
    rows_of = np.repeat(rows, num_pills)
    is_whole = np.repeat(is_single, num_pills)
    labels = np.full(len(numbers), columns.ABSENT, np.int32)
    labels[is_whole] = columns.find(records, "code", codes)[rows_of[is_whole]]
    labels[~is_whole] = box_labels[offsets[rows_of[~is_whole]] + numbers[~is_whole]]
    has_box = ~is_whole | (columns.num_boxes(records) > 0)[rows_of]
    numbers[~has_box] = NO_BOX
    return ClassificationItems(rows_of.astype(np.int32), numbers.astype(np.int32), labels)


def _held(path: Path, content: NDArray[np.int32]) -> ClassificationItems:
    """Return the items of the file at `path`, which is written (again) where it does not hold `content`."""
    try:
        found = ClassificationItems.load(path)
        if np.array_equal(np.stack([found.rows, found.box_numbers, found.labels]), content):
            path.touch()  # newly used
            return found
        logger.warning("%s is damaged; it is written again", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s is damaged (%s); it is written again", path, error)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, content)
    return ClassificationItems.load(path)
