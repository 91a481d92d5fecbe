"""Settings of the whole test suite."""

from __future__ import annotations

import torch


def pytest_configure() -> None:
    """Give every test process one thread: on a shared machine, tiny models are faster without a thread pool."""
    torch.set_num_threads(1)
