"""The one training loop. Whose turn it is comes from the schedule; what a turn is, from the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pillsnap.training.interrupt import StopRequest
from pillsnap.training.schedule import next_task
from pillsnap.training.task import Task, ValidationResult


@dataclass(frozen=True, slots=True)
class Turns:
    """The order in which tasks take steps."""

    strategy: str
    interleave_ratio: Sequence[int]


@dataclass
class LoopState:
    """Where the loop stands, over all tasks."""

    step: int = 0


OnEpoch = Callable[[Task, ValidationResult], None]
OnStep = Callable[[Task], None]


def train(
    tasks: Sequence[Task], turns: Turns, state: LoopState, stop: StopRequest, *, on_epoch: OnEpoch, on_step: OnStep
) -> None:
    """Give every task its steps until all have finished.

    Args:
        tasks: The tasks of the run.
        turns: Whose turn comes when.
        state: Where to begin; kept up to date.
        stop: Looked at after every step.
        on_epoch: Called after each validation (saving is its business).
        on_step: Called after each step.

    Raises:
        InterruptedRunError: A stop was asked for; every task stands between two steps.
    """
    by_name: dict[str, Task] = {task.name: task for task in tasks}
    while unfinished := [task.name for task in tasks if not task.is_finished]:
        task = by_name[next_task(turns.strategy, turns.interleave_ratio, state.step, unfinished)]
        with stop.excusing_dead_workers():
            if not task.is_epoch_done:
                train_step(task)
                state.step += 1
                on_step(task)
            stop.check()
            if task.is_epoch_done:
                on_epoch(task, task.validate())


def train_step(task: Task) -> None:
    """Give one task one step; a step none of whose pictures could be decoded is passed over."""
    batch = task.next_samples()
    if batch is not None:
        task.step(batch)


def train_epoch(task: Task) -> None:
    """Give one task the rest of its current epoch, without validation."""
    while not task.is_epoch_done:
        train_step(task)
