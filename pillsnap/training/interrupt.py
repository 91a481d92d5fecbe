"""Ctrl-C and SIGTERM ask a run to stop; it finishes the step, saves, and leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from pillsnap.data.batches import Broken
from pillsnap.data.damage import broken_in
from pillsnap.errors import InterruptedRunError

STANDARD_ERROR = 2


def is_dead_worker(error: BaseException) -> bool:
    """Tell whether an error says that a loader's worker died; it is raised wherever the main process happens to be."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


class StopRequest:
    """Whether someone asked the run to stop."""

    def __init__(self) -> None:
        """Start with nobody having asked."""
        self.signal_name: str | None = None
        self.on_check: Callable[[], None] = _do_nothing
        """Called at every check. A run asks after each step and before each validation batch, so checks that stop
        coming are how the stall watchdog notices that nothing moves any more."""

    def check(self) -> None:
        """Raise where it is safe to stop.

        Raises:
            InterruptedRunError: A stop was asked for.
        """
        self.on_check()
        if self.signal_name is not None:
            raise InterruptedRunError(f"The run was stopped by {self.signal_name}.")

    @contextmanager
    def excusing_dead_workers(self) -> Iterator[None]:
        """Turn the death of a loader's worker into the stop that was asked for.

        A signal to the whole process group can reach a worker that was forked a moment ago and does not yet ignore it.

        Raises:
            InterruptedRunError: A worker died after a stop was asked for.
        """
        try:
            yield
        except RuntimeError as error:
            if not is_dead_worker(error):
                raise
            self.check()
            raise


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request for the block; a second one ends the process at once."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.signal_name is not None:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name
        # Not through the log: the signal may have interrupted the log's own write, which cannot be entered twice.
        text = f"{request.signal_name}: finishing the step and saving; once more to leave at once.\n"
        os.write(STANDARD_ERROR, text.encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class CheckedLoader:
    """A loader that looks, before every batch, whether the run was asked to stop."""

    def __init__(
        self,
        loader: DataLoader[Any],
        request: StopRequest,
        on_broken: Callable[[Iterable[Broken]], object] | None = None,
    ) -> None:
        """Wrap `loader`; its `dataset` stays reachable.

        Args:
            loader: Yields batches, or lists of broken pictures.
            request: Asked before every batch.
            on_broken: Told of pictures that could not be decoded.
        """
        self._loader = loader
        self._request = request
        self._on_broken = on_broken
        self.dataset = loader.dataset

    def __iter__(self) -> Iterator[Any]:
        """Yield the loader's batches.

        Raises:
            InterruptedRunError: A stop was asked for.
        """
        for batch in self._loader:
            self._request.check()
            broken = broken_in(batch)
            if broken and self._on_broken is not None:
                self._on_broken(broken)
            yield batch

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)


def _do_nothing() -> None: ...
