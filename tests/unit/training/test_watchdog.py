"""A run that hangs says where."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from pillsnap.data.batches import Broken
from pillsnap.data.datasets import Key
from pillsnap.data.loaders import LOG_FILE, Loader, _loader
from pillsnap.data.samplers import OrderedSampler
from pillsnap.training import watchdog
from pillsnap.training.telemetry import build_logger
from pillsnap.training.watchdog import StallWatchdog, catches, dump_stacks
from tests.run.conftest import logger_as_before
from tests.run.tiny import tiny_config

STALL_MINUTES = 0.2 / 60
WAIT_S = 60.0


@pytest.fixture
def log_path(tmp_path: Path) -> Iterator[Path]:
    with logger_as_before():
        build_logger(tmp_path)
        yield tmp_path / LOG_FILE


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _wait_in_a_function_worth_finding(log_path: Path, text: str) -> None:
    """Return when the log says `text`."""
    deadline = time.monotonic() + WAIT_S
    while text not in _text(log_path) and time.monotonic() < deadline:
        time.sleep(0.02)


class StuckPictures(Dataset[Any]):
    """Serves two pictures; those after them come when the log of the run has `until`."""

    def __init__(self, log_path: Path, until: str) -> None:
        self.log_path, self.until = log_path, until

    def __getitem__(self, key: Key) -> Broken:
        _, position, _ = key
        _wait_in_a_function_worth_finding(self.log_path, self.until if position > 1 else "")
        return Broken("a.png", "it came at last")


def _loader_with(dataset: Dataset[Any], exp_dir: Path, num_workers: int) -> Loader:
    cfg = tiny_config(exp_dir, exp_dir / "data", f"dataloader.num_workers={num_workers}")
    return _loader(dataset, OrderedSampler(4, batch_size=1), cfg, is_training=False)


def _wait_for_a_batch(batches: Iterator[Any]) -> None:
    next(batches)


def test_a_stall_is_explained_by_the_stacks_of_the_main_process_and_of_its_workers(
    log_path: Path, tmp_path: Path
) -> None:
    loader = _loader_with(StuckPictures(log_path, until="WARNING no step"), tmp_path, num_workers=2)
    batches = iter(loader)
    for _ in range(2):  # one from each worker, which by then is prepared
        next(batches)
    with StallWatchdog(STALL_MINUTES, log_path) as watching:
        watching.beat("classification step 7")
        _wait_for_a_batch(batches)
    log = _text(log_path)
    main, *workers = log.split("---- Process-")
    assert "_wait_for_a_batch" in main
    assert "_wait_in_a_function_worth_finding" not in main
    assert len(workers) == 2
    assert all("_wait_in_a_function_worth_finding" in worker for worker in workers)
    assert f"(last: classification step 7); the stacks of 3 process(es) are in {log_path}" in log


def test_a_stall_is_reported_once_and_the_next_one_again(log_path: Path) -> None:
    with StallWatchdog(STALL_MINUTES, log_path) as watching:
        _wait_in_a_function_worth_finding(log_path, "WARNING no step")
        time.sleep(0.4)
        assert _text(log_path).count("WARNING no step") == 1
        log_path.write_text("")
        watching.beat()
        _wait_in_a_function_worth_finding(log_path, "WARNING no step")
        assert _text(log_path).count("WARNING no step") == 1


def test_beats_keep_the_watchdog_quiet(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(watchdog, "monotonic", lambda: now_s)
    with StallWatchdog(STALL_MINUTES, log_path) as watching:
        for _ in range(10):
            now_s += 0.9 * STALL_MINUTES * 60
            time.sleep(STALL_MINUTES * 60 / 2)  # it looks twice in this time
            watching.beat()
    assert _text(log_path) == ""


@pytest.mark.parametrize("stall_minutes", [0, 15])
def test_the_watchdog_leaves_no_thread_behind(log_path: Path, stall_minutes: float) -> None:
    with StallWatchdog(stall_minutes, log_path):
        names = [thread.name for thread in threading.enumerate() if thread.daemon]
        assert names.count("stall watchdog") == (stall_minutes > 0)
    assert "stall watchdog" not in [thread.name for thread in threading.enumerate()]


def test_a_folder_that_is_gone_is_a_warning_and_no_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with logger_as_before():
        logging.getLogger("pillsnap").propagate = True
        with StallWatchdog(STALL_MINUTES, tmp_path / "gone" / "pillsnap.log"):
            deadline = time.monotonic() + WAIT_S
            while not caplog.text and time.monotonic() < deadline:
                time.sleep(0.02)
    assert "no stacks" in caplog.text


def test_a_process_that_is_not_prepared_is_named_and_lives_on(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), name="unprepared")
    child.start()
    with (tmp_path / "log").open("a", encoding="utf-8") as log:
        assert dump_stacks(log) == 0
    assert child.is_alive()
    child.kill()
    child.join()
    assert f"---- unprepared (process {child.pid}), " in _text(tmp_path / "log")
    assert "not prepared to tell its stacks" in _text(tmp_path / "log")


def test_workers_of_an_experiment_without_a_log_folder_stay_unprepared(tmp_path: Path) -> None:
    loader = _loader_with(StuckPictures(Path(__file__), until="class Stuck"), tmp_path / "exp", num_workers=1)
    batches = iter(loader)
    next(batches)
    with (tmp_path / "log").open("a", encoding="utf-8") as log:
        assert dump_stacks(log) == 0
    assert isinstance(next(batches), list)
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(("mask", "expected"), [("0000000000000200", True), ("\t0000000180014a03", True), ("0", False)])
def test_a_mask_of_caught_signals_is_read_as_the_kernel_writes_it(mask: str, expected: bool) -> None:
    assert catches(mask, signal.SIGUSR1) is expected
