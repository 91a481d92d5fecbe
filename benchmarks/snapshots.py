"""Switching the step's transaction off, to learn what its snapshots cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from pillsnap.training import step

SNAPSHOTTERS = ("transaction", "update_transaction")
"""Context managers of `pillsnap.training.step` that copy state when they are entered."""


@contextmanager
def without_snapshots() -> Iterator[None]:
    """Let every step within the block go without copies of what it changes; an interrupted one leaves its traces."""
    with ExitStack() as stack:
        for name in SNAPSHOTTERS:
            stack.enter_context(mock.patch.object(step, name, _nothing))
        yield


@contextmanager
def _nothing(*_args: Any, **_options: Any) -> Iterator[None]:
    yield
