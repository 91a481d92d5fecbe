"""Switching snapshots off, and on again."""

from __future__ import annotations

import pytest

from benchmarks.snapshots import SNAPSHOTTERS, without_snapshots
from pillsnap.training import step


@pytest.mark.parametrize("name", SNAPSHOTTERS)
def test_a_transaction_is_off_within_the_block_only(name: str) -> None:
    before = getattr(step, name)
    with without_snapshots():
        assert getattr(step, name) is not before
        with getattr(step, name)(None):
            pass
    assert getattr(step, name) is before


def test_no_snapshot_is_left_on() -> None:
    # Whoever makes a new one is to say so to the benchmark, or the cost it reports is too low.
    found = {name for name in vars(step) if name.endswith("transaction")}
    assert found == set(SNAPSHOTTERS)
