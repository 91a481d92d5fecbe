"""Asking a run to stop."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader

from pillsnap.data.batches import Broken, ClassificationBatch
from pillsnap.errors import InterruptedRunError
from pillsnap.training.interrupt import CheckedLoader, StopRequest, stop_on_signals

DEAD_WORKER = "DataLoader worker (pid 7) is killed by signal: Terminated."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_asks_and_does_not_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as request:
        request.check()
        os.kill(os.getpid(), number)
        with pytest.raises(InterruptedRunError, match=f"stopped by {number.name}"):
            request.check()
    assert signal.getsignal(number) is before


def test_a_second_signal_leaves_at_once() -> None:
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_worker_that_dies_of_the_stop_is_the_stop() -> None:
    request = StopRequest()
    request.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM"), request.excusing_dead_workers():
        raise RuntimeError(DEAD_WORKER)


@pytest.mark.parametrize(("name", "text"), [(None, DEAD_WORKER), ("SIGTERM", "shapes differ")])
def test_other_errors_stay_what_they_are(name: str | None, text: str) -> None:
    request = StopRequest()
    request.signal_name = name
    with pytest.raises(RuntimeError, match=text.split("(")[0]), request.excusing_dead_workers():
        raise RuntimeError(text)


def test_every_check_and_every_validation_batch_tells_the_watchdog() -> None:
    request, beats = StopRequest(), []
    request.on_check = lambda: beats.append(1)
    request.check()
    loader: DataLoader[int] = DataLoader([1, 2, 3])  # type: ignore[arg-type]
    assert len(list(CheckedLoader(loader, request))) == len(loader) == 3
    assert len(beats) == 4


@pytest.mark.req("DAT-2")
def test_broken_pictures_among_the_batches_are_told() -> None:
    whole = ClassificationBatch(torch.zeros(1, 3, 2, 2), torch.zeros(1), [7], [Broken("a.png", "cut")])
    batches: list[object] = [whole, [Broken("b.png", "empty")], "of another loader"]
    loader: DataLoader[object] = DataLoader(batches, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]
    told: list[str] = []
    checked = CheckedLoader(loader, StopRequest(), lambda broken: told.extend(each.image_path for each in broken))
    assert list(checked) == batches
    assert told == ["a.png", "b.png"]


def _as_it_is(batch: object) -> object:
    return batch
