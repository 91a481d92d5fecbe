"""A process that is killed while it fills a pixel store leaves each entry whole or absent; the next one finishes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pillsnap.data.store.layout import StoreOptions
from pillsnap.data.store.tiers import PixelStore
from tests.unit.data.store.builders import EVERY, HOTSET, MMAP, fill, layout, missing, opened

pytestmark = pytest.mark.req("DAT-3")

SIDE_PX = 64
NUM_ENTRIES = 60


def _open(folder: Path, options: StoreOptions) -> PixelStore:
    return opened(folder, options, layout(NUM_ENTRIES, side_px=SIDE_PX))


def _fork(action: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return pid


def _fill_and_die(folder: Path, options: StoreOptions, num_calls: int, share: float) -> None:
    """Fill the store until the given write to a file, of which only a share is done; then be killed."""
    write, left = os.pwrite, num_calls

    def counted(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            write(descriptor, data[: int(len(data) * share)], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data, offset)

    store = _open(folder, options)
    os.pwrite = counted  # type: ignore[assignment]
    fill(store, NUM_ENTRIES, side_px=SIDE_PX)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["before", "inside", "after"])
@pytest.mark.parametrize("options", [HOTSET, MMAP], ids=["hotset", "mmap"])
def test_a_kill_at_any_write_leaves_each_entry_whole_or_absent(
    tmp_path: Path, options: StoreOptions, share: float
) -> None:
    for num_calls in range(12):
        pid = _fork(lambda calls=num_calls: _fill_and_die(tmp_path, options, calls, share))  # type: ignore[misc]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        store = _open(tmp_path, options)
        absent = missing(store, NUM_ENTRIES, side_px=SIDE_PX)
        assert len(absent) < NUM_ENTRIES or num_calls < 4
        store.close()
    store = _open(tmp_path, options)
    fill(store, NUM_ENTRIES, side_px=SIDE_PX)
    store.close()
    assert missing(_open(tmp_path, options), NUM_ENTRIES, side_px=SIDE_PX) == []


def _fill_again_and_again(folder: Path, options: StoreOptions) -> None:
    """Fill the store with two processes at once, over and over."""
    store = _open(folder, options)
    while True:
        workers = [_fork(lambda: fill(store, NUM_ENTRIES, side_px=SIDE_PX)) for _ in range(2)]
        for worker in workers:
            os.waitpid(worker, 0)


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_kills_of_all_processes_at_random_instants_leave_each_entry_whole_or_absent(
    tmp_path: Path, options: StoreOptions
) -> None:
    chance = random.Random(1)

    def run() -> None:
        os.setsid()
        _fill_again_and_again(tmp_path, options)

    for _ in range(10):
        pid = _fork(run)
        time.sleep(chance.uniform(0.002, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _kill_group(pid)
        store = _open(tmp_path, options)
        missing(store, NUM_ENTRIES, side_px=SIDE_PX)  # fails where an entry has other pixels
        assert store.counts().damaged == 0
        store.close()
    store = _open(tmp_path, options)
    fill(store, NUM_ENTRIES, side_px=SIDE_PX)
    store.close()
    assert missing(_open(tmp_path, options), NUM_ENTRIES, side_px=SIDE_PX) == []


def _kill_group(group: int) -> None:
    """Kill the workers of a process that led a group of its own, and wait until they have ended."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    while _is_alive(group):
        time.sleep(0.001)


def _is_alive(group: int) -> bool:
    # Whether a process ended is seen in its state; nobody may have asked for its exit code yet.
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def test_workers_that_outlive_their_run_and_the_next_run_write_side_by_side(tmp_path: Path) -> None:
    orphan = _fork(lambda: fill(_open(tmp_path, MMAP), NUM_ENTRIES, side_px=SIDE_PX))
    os.kill(orphan, signal.SIGSTOP)
    store = _open(tmp_path, MMAP)
    os.kill(orphan, signal.SIGCONT)
    fill(store, NUM_ENTRIES, side_px=SIDE_PX)
    os.waitpid(orphan, 0)
    assert missing(store, NUM_ENTRIES, side_px=SIDE_PX) in ([], list(range(NUM_ENTRIES)))
