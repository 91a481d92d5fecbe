"""`kill -9` at any instant: the run goes on from a whole checkpoint and ends with the weights it would have had.

Fifty random kills of real runs, which take minutes: `python -m tests.faults.kill --kills 50`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.training.checkpoint import CheckpointStore, load_ckpt
from tests.faults.instants import Instant, file_operations
from tests.faults.processes import KILLED, fork, train_in_fork
from tests.faults.weights import weights_hash

SPLIT_BYTES = 64  # smaller writes are torch's padding
TASKS = ("classification", "detection")
ALWAYS = {"manifest.json", "manifest.copy.json", "last.pt", "detection_last.pt", "moments"}


def _states(value: int) -> dict[str, dict[str, Any]]:
    return {task: {"task": task, "weights": torch.full((4,), float(value))} for task in TASKS}


def _experiment(exp_dir: Path, num_saves: int) -> CheckpointStore:
    store = CheckpointStore(exp_dir)
    for number in range(1, num_saves + 1):
        store.save(_states(number), best=("detection",), loop_step=number)
    return store


def _save_until(exp_dir: Path, value: int, instant: Instant | None) -> int:
    """Save in another process, which is killed at `instant`; return how it ended."""

    def save() -> int:
        with file_operations(exp_dir / "checkpoints", instant, min_split_bytes=SPLIT_BYTES):
            CheckpointStore(exp_dir).save(_states(value), best=("detection",), loop_step=value)
        return 0

    return fork(save, exp_dir.with_name("output")).wait()


def _value_found(exp_dir: Path) -> int:
    """Return the value that all tasks of the moment to resume from agree on; 0 when there is no checkpoint."""
    found = CheckpointStore(exp_dir).load_last()
    if found is None:
        return 0
    values = {int(value) for state in found.states.values() for value in state["weights"]}
    assert values == {found.loop_step}, "two moments were mixed"
    return found.loop_step


def _best(exp_dir: Path) -> int:
    return int(load_ckpt(exp_dir / "checkpoints" / "detection_best.pt")["weights"][0])


@pytest.mark.req("CKP-3", "UTL-13")
@pytest.mark.parametrize("earlier", [1, 3], ids=["second save", "fourth save"])
def test_a_save_killed_at_any_instant_leaves_the_moment_before_or_the_new_one(tmp_path: Path, earlier: int) -> None:
    _experiment(tmp_path / "template", earlier)
    shutil.copytree(tmp_path / "template", tmp_path / "exp")
    with file_operations(tmp_path / "exp" / "checkpoints", min_split_bytes=SPLIT_BYTES) as operations:
        CheckpointStore(tmp_path / "exp").save(_states(earlier + 1), best=("detection",), loop_step=earlier + 1)
    found = []
    for instant in range(len(operations.labels)):
        shutil.rmtree(tmp_path / "exp")
        shutil.copytree(tmp_path / "template", tmp_path / "exp")
        assert _save_until(tmp_path / "exp", earlier + 1, instant) == KILLED
        found.append(_value_found(tmp_path / "exp"))
        assert _best(tmp_path / "exp") == found[-1], f"the best was lost: {operations.labels[instant]}"
    assert set(found) == {earlier, earlier + 1}
    assert found == sorted(found), "there is one instant from which on the new moment counts"


@pytest.mark.req("CKP-2", "CKP-3")
def test_a_first_save_killed_at_any_instant_can_be_done_again(tmp_path: Path) -> None:
    instants = 0
    found = []
    while _save_until(tmp_path / str(instants), 1, instants) == KILLED:
        found.append(_value_found(tmp_path / str(instants)))
        assert _save_until(tmp_path / str(instants), 2, None) == 0
        assert _value_found(tmp_path / str(instants)) == 2
        instants += 1
    assert set(found) == {0, 1}


@pytest.mark.req("CKP-3")
def test_what_killed_saves_leave_behind_does_not_pile_up(tmp_path: Path) -> None:
    exp_dir = tmp_path / "exp"
    _experiment(exp_dir, 2)
    for instant in ("write 000003-classification.pt.tmp", "link last.pt.tmp", "replace manifest.json"):
        assert _save_until(exp_dir, 3, instant) == KILLED
    assert list(exp_dir.rglob(".*.tmp")) != []
    value = _value_found(exp_dir)
    CheckpointStore(exp_dir).save(_states(value + 1), best=TASKS, loop_step=value + 1)
    names = {path.name for path in (exp_dir / "checkpoints").iterdir()}
    assert names == ALWAYS | {"best.pt", "classification_best.pt", "detection_best.pt"}
    assert len(list((exp_dir / "checkpoints" / "moments").iterdir())) == 4


@pytest.mark.req("CKP-3")
def test_the_leftover_of_a_task_that_does_not_go_on_goes_as_well(tmp_path: Path) -> None:
    store = _experiment(tmp_path / "exp", 2)
    assert _save_until(tmp_path / "exp", 3, "write 000003-classification.pt.tmp") == KILLED
    store.save({"detection": _states(3)["detection"]}, best=(), loop_step=3)
    assert list(store.dir.rglob(".*.tmp")) == []


@pytest.mark.req("CKP-2", "CKP-3", "INT-4")
def test_a_run_killed_again_and_again_ends_with_the_weights_of_the_uninterrupted_run(
    data_root: Path, expected_hash: str, tmp_path: Path
) -> None:
    exp_dir, resume = tmp_path / "exp", "train.resume=last"
    _assert_killed(exp_dir, data_root, "write 000001-detection.pt.tmp")  # the classifier's file is there already
    said = _assert_killed(exp_dir, data_root, "replace 000002-detection.pt", resume)
    assert "holds no checkpoint: starting anew" in said
    _assert_killed(exp_dir, data_root, "link best.pt.tmp", resume)  # the moment counts, its best has no name yet
    _assert_killed(exp_dir, data_root, "replace manifest.json", resume)  # its copy is newer
    _assert_killed_with_its_worker(exp_dir, data_root, "[train] e=2/2 s=7/9")
    _assert_killed(exp_dir, data_root, "unlink 0000??-detection.pt", resume)
    child = train_in_fork(exp_dir, data_root, [resume])
    assert child.wait() == 0, child.text()
    assert weights_hash(exp_dir) == expected_hash
    assert list((exp_dir / "checkpoints").rglob(".*.tmp")) == []


def _assert_killed(exp_dir: Path, data_root: Path, instant: Instant, *overrides: str) -> str:
    """Train until a file operation of a save kills the process; return what the run said."""
    child = train_in_fork(exp_dir, data_root, overrides, instant=instant)
    assert child.wait() == KILLED, child.text()
    return child.text()


def _assert_killed_with_its_worker(exp_dir: Path, data_root: Path, text: str) -> None:
    """Go on with a loader worker and kill both when the run says `text`."""
    child = train_in_fork(exp_dir, data_root, ["train.resume=last", "dataloader.num_workers=1"])
    child.wait_for_text(text)
    child.kill()
    assert child.wait() == KILLED
