"""The one training loop. Whose turn it is comes from the schedule; what a turn is, from the task."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from pillsnap.training.interrupt import StopRequest
from pillsnap.training.schedule import next_task
from pillsnap.training.task import Task, ValidationResult


@contextmanager
def left_out_of_garbage_collection() -> Iterator[None]:
    """Spare the collector what exists already, while the block runs.

    Half a million objects of libraries and models, none of them garbage, cost a pause of 0.3 s every few dozen steps.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True, slots=True)
class Turns:
    """The order in which tasks take steps, and when that ends though some are left."""

    strategy: str
    interleave_ratio: Sequence[int]
    limit_s: float = math.inf
    """Seconds of training after which no task gets another turn."""


@dataclass
class LoopState:
    """Where the loop stands, over all tasks."""

    step: int = 0
    seconds: float = 0.0
    """Wall time spent in the loop, validation and saving included, added up over resumed processes."""


OnEpoch = Callable[[Task, ValidationResult], None]
OnStep = Callable[[Task], None]


def train(
    tasks: Sequence[Task], turns: Turns, state: LoopState, stop: StopRequest, *, on_epoch: OnEpoch, on_step: OnStep
) -> bool:
    """Give every task its steps until all have finished or the time is up.

    Args:
        tasks: The tasks of the run.
        turns: Whose turn comes when, and the time limit.
        state: Where to begin; kept up to date.
        stop: Looked at after every step.
        on_epoch: Called after each validation (saving is its business).
        on_step: Called after each step.

    Returns:
        Whether all have finished; False when the time limit left some with steps to do.

    Raises:
        InterruptedRunError: A stop was asked for; every task stands between two steps.
    """
    by_name: dict[str, Task] = {task.name: task for task in tasks}
    began = monotonic() - state.seconds
    try:
        while unfinished := [task.name for task in tasks if not task.is_finished]:
            if state.seconds >= turns.limit_s:
                return False
            task = by_name[next_task(turns.strategy, turns.interleave_ratio, state.step, unfinished)]
            with stop.excusing_dead_workers():
                if not task.is_epoch_done:
                    train_step(task)
                    state.step += 1
                    state.seconds = monotonic() - began
                    on_step(task)
                stop.check()
                if task.is_epoch_done:
                    result = task.validate()
                    state.seconds = monotonic() - began
                    on_epoch(task, result)
    finally:
        state.seconds = monotonic() - began  # a turn that was interrupted took its time as well
    return True


def train_step(task: Task) -> None:
    """Give one task one step; a step none of whose pictures could be decoded is passed over."""
    batch = task.next_samples()
    while batch is not None and not task.step(batch):
        batch = task.next_samples()  # memory ran out and steps are smaller now: the same samples, divided anew


def train_epoch(task: Task) -> None:
    """Give one task the rest of its current epoch, without validation."""
    while not task.is_epoch_done:
        train_step(task)
