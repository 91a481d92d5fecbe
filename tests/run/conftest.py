"""One synthetic data set and one finished run that many tests look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.training import loop
from pillsnap.training.ending import RunResult
from pillsnap.training.run import run_training
from tests.run.tiny import tiny_config

HOUR = 3600.0


@contextmanager
def logger_as_before() -> Iterator[None]:
    """Close the log files of the runs in the block and put the logger's state back."""
    logger = logging.getLogger("pillsnap")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    for handler in set(logger.handlers) - set(handlers):
        handler.close()
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    with logger_as_before():
        yield


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw the tiny data set once; runs re-use it."""
    root = tmp_path_factory.mktemp("tiny") / "data with a space 약"
    cfg = tiny_config(root.parent / "exp", root)
    draw_dataset(root, SyntheticSpec(**cfg.data.synthetic), num_processes=1)
    return root


@dataclass(frozen=True)
class FinishedRun:
    """A whole tiny run and the lines it wrote."""

    exp_dir: Path
    result: RunResult
    log: str


@pytest.fixture(scope="session")
def finished_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Train both tiny models once, interleaved, with EMA and class weights."""
    exp_dir = tmp_path_factory.mktemp("finished") / "exp"
    with logger_as_before():
        result = run_training(tiny_config(exp_dir, data_root, "optimization_advisor.run_after_training=true"))
    return FinishedRun(exp_dir, result, (exp_dir / "logs" / "pillsnap.log").read_text(encoding="utf-8"))


@pytest.fixture
def an_hour_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop's clock advance by an hour with every step, and not otherwise."""
    now = [0.0]

    def advancing(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            now[0] += HOUR
            return function(*args)

        return step

    monkeypatch.setattr(loop, "train_step", advancing(loop.train_step))
    monkeypatch.setattr(loop, "monotonic", lambda: now[0])
