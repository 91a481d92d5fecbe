"""Whose turn it is: interleaved and sequential training are two orders of the same steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

TaskName = Literal["classification", "detection"]
CLASSIFICATION: TaskName = "classification"
DETECTION: TaskName = "detection"


def next_task(strategy: str, interleave_ratio: Sequence[int], step: int, unfinished: Collection[str]) -> str:
    """Return the task that does global step `step` (INT-1, INT-2).

    Args:
        strategy: `interleaved` or `sequential` (classification first).
        interleave_ratio: (d, c): of every d + c steps the first d train detection.
        step: Global step, counted over both tasks from 0.
        unfinished: Tasks with steps left; when one side has finished, the other takes every turn.

    Raises:
        ValueError: Nothing is unfinished.
    """
    if not unfinished:
        raise ValueError("no task has steps left; check `unfinished` before asking whose turn it is.")
    if strategy == "sequential":
        wanted = CLASSIFICATION
    else:
        d, c = interleave_ratio
        wanted = DETECTION if step % (d + c) < d else CLASSIFICATION
    return wanted if wanted in unfinished else next(iter(unfinished))
