"""Settings of the whole test suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch


def pytest_configure() -> None:
    """Give every test process one thread: on a shared machine, tiny models are faster without a thread pool."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _log_of_no_run() -> Iterator[None]:
    """Take away what a run in a test has set up: pytest listens twice to a logger that does not propagate."""
    yield
    logger = logging.getLogger("pillsnap")
    for handler in list(logger.handlers):
        if type(handler).__module__.startswith("pillsnap"):
            logger.removeHandler(handler)
            handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
