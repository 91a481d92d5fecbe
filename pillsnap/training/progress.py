"""Progress bars, one a task, where a person is watching; nothing where the output goes to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pillsnap.training.task import Task


class RunProgress:
    """Shows how far each task is."""

    def __init__(self, display: Progress | None, tasks: Sequence[Task]) -> None:
        """Show `tasks` on `display`; without one, do nothing."""
        self._display = display
        self._bars = {}
        if display is not None:
            for task in tasks:
                total = task.cfg.train.epochs * task.steps_per_epoch
                self._bars[task.name] = display.add_task(task.name, total=total, completed=_steps_done(task))

    def update(self, task: Task) -> None:
        """Show a task's new position."""
        if self._display is not None:
            self._display.update(self._bars[task.name], completed=_steps_done(task))


@contextmanager
def run_progress(tasks: Sequence[Task]) -> Iterator[RunProgress]:
    """Show progress bars for the block when standard output is a terminal."""
    if not sys.stdout.isatty():
        yield RunProgress(None, tasks)
        return
    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # The bars stay at the bottom: log lines, which go through sys.stdout, are printed above them.
    with Progress(*columns, console=Console(file=sys.stdout), redirect_stdout=True, redirect_stderr=True) as display:
        yield RunProgress(display, tasks)


def _steps_done(task: Task) -> int:
    return task.clock.epoch * task.steps_per_epoch + task.step_in_epoch
