"""A disk that is full: it is said, the last good checkpoint stays, and the run goes on once there is space again.

The disk is a real one, a small tmpfs; where this process may not mount one, those tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.errors import CheckpointWriteError
from pillsnap.training.checkpoint import CheckpointStore, load_ckpt, save_ckpt
from tests.faults.disk import PAGE_BYTES, SmallDisk, small_disk
from tests.faults.instants import file_operations, refuse_with_a_full_disk
from tests.faults.processes import train_in_fork
from tests.faults.weights import weights_hash

MOMENT_BYTES = 49_000_000
"""The two checkpoints of the tiny configuration."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a disk for two moments of the tiny run and a half."""
    try:
        mounted = small_disk(tmp_path / "disk", MOMENT_BYTES * 5 // 2)
        small = mounted.__enter__()
    except PermissionError as error:
        pytest.skip(f"needs to mount a tmpfs: {error}")
    yield small
    mounted.__exit__(None, None, None)


def _states(value: int) -> dict[str, dict[str, Any]]:
    return {task: {"weights": torch.full((3000,), float(value))} for task in ("classification", "detection")}


def _value_found(store: CheckpointStore) -> int:
    found = store.load_last()
    assert found is not None
    assert {int(value) for state in found.states.values() for value in state["weights"]} == {found.loop_step}
    return found.loop_step


def _refusal(store: CheckpointStore, value: int) -> str:
    """Save; return what the error says, nothing when there is none."""
    try:
        store.save(_states(value), best=("detection",), loop_step=value)
    except CheckpointWriteError as error:
        return str(error)
    return ""


@pytest.mark.req("CKP-3", "UTL-13")
def test_whatever_does_not_fit_any_more_the_moment_before_stays(disk: SmallDisk) -> None:
    found = []
    for pages in range(14):
        disk.make_room()
        store = CheckpointStore(disk.dir / str(pages))
        assert not _refusal(store, 1)
        disk.leave(pages * PAGE_BYTES)
        refusal = _refusal(store, 2)
        found.append(_value_found(store))
        assert found[-1] == 1 + (refusal == "")
        assert refusal == "" or re.search("No space left on device.* The last good checkpoint is untouched.", refusal)
        assert list(store.dir.rglob(".*.tmp")) == []
        disk.make_room()
        assert not _refusal(store, 3)
        assert _value_found(store) == 3
    assert found == sorted(found)
    assert set(found) == {1, 2}


@pytest.mark.req("CKP-3", "UTL-13")
def test_a_file_operation_that_fails_costs_at_most_the_moment_being_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(_states(1), best=("detection",), loop_step=1)
    value, instant, is_reached = 1, 0, True
    while is_reached:
        with file_operations(store.dir, instant, refuse_with_a_full_disk, min_split_bytes=64) as operations:
            _refusal(store, value + 1)
        assert _value_found(store) in (value, value + 1), operations.labels[instant]
        value = _value_found(store)
        is_reached = instant < len(operations.labels)
        instant += 1
    assert value > 3, "links and the removal of old files can fail after the moment counts"
    assert list(store.dir.rglob(".*.tmp")) == []


@pytest.mark.req("UTL-13")
def test_a_full_disk_is_told_by_its_own_name_and_the_file_before_stays(disk: SmallDisk) -> None:
    save_ckpt(disk.dir / "x.pt", {"weights": torch.zeros(8)})
    disk.leave(2 * PAGE_BYTES)
    with pytest.raises(CheckpointWriteError, match=r"x\.pt could not be written: No space left on device \(0\.0 MB"):
        save_ckpt(disk.dir / "x.pt", {"weights": torch.zeros(100_000)})
    assert len(load_ckpt(disk.dir / "x.pt")["weights"]) == 8


@pytest.mark.req("CKP-2", "CKP-3")
def test_a_run_on_a_full_disk_says_so_and_ends_as_if_it_never_was_once_there_is_space(
    disk: SmallDisk, data_root: Path, expected_hash: str
) -> None:
    exp_dir = disk.dir / "exp"
    child = train_in_fork(exp_dir, data_root)
    assert child.wait() == 1, child.text()
    assert "CheckpointWriteError" in child.text()
    assert "could not be written: No space left on device" in child.text()
    assert "Traceback" not in child.text()
    disk.grow(8 * MOMENT_BYTES)
    child = train_in_fork(exp_dir, data_root, ["train.resume=last"])
    assert child.wait() == 0, child.text()
    assert weights_hash(exp_dir) == expected_hash


@pytest.mark.req("CKP-3")
def test_a_full_disk_under_the_reports_loses_no_training(
    disk: SmallDisk, data_root: Path, expected_hash: str, tmp_path: Path
) -> None:
    exp_dir = tmp_path / "exp"
    exp_dir.mkdir()
    (exp_dir / "reports").symlink_to(disk.dir)
    disk.leave(20 * PAGE_BYTES)  # enough for metrics.json and a small figure
    child = train_in_fork(exp_dir, data_root)
    assert child.wait() == 1, child.text()
    assert "cannot be written: No space left on device" in child.text()
    assert "Traceback" not in child.text()
    disk.make_room()
    child = train_in_fork(exp_dir, data_root, ["train.resume=last"])
    assert child.wait() == 0, child.text()
    assert weights_hash(exp_dir) == expected_hash
