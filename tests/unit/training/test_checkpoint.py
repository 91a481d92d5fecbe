"""Checkpoints: whole or not there, two tasks from one moment, damaged ones noticed."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.data.twostage import is_training_over
from pillsnap.errors import CheckpointError, CheckpointWriteError
from pillsnap.training.checkpoint import CheckpointStore, load_ckpt, save_ckpt

BOTH = ("classification", "detection")


def _states(value: float, tasks: tuple[str, ...] = BOTH) -> dict[str, dict[str, Any]]:
    return {task: {"task": task, "weights": torch.full((4,), value)} for task in tasks}


def _value(path: Path) -> float:
    return float(load_ckpt(path)["weights"][0])


@pytest.mark.req("UTL-13", "CKP-3")
def test_a_checkpoint_loads_as_it_was_saved(tmp_path: Path) -> None:
    obj: dict[str, Any] = {"a": torch.arange(5), "b": {"c": [1, "two", None, 3.5]}}
    save_ckpt(tmp_path / "deep" / "x.pt", obj)
    found = load_ckpt(tmp_path / "deep" / "x.pt")
    assert torch.equal(found["a"], obj["a"])
    assert found["b"] == obj["b"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.pt"]


@pytest.mark.req("UTL-13")
@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "cannot be read as a checkpoint"), (b"PK\x03\x04 not really", "cannot be read as a checkpoint")],
    ids=["empty", "garbage"],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        load_ckpt(tmp_path / "x.pt")


@pytest.mark.req("UTL-13")
def test_a_missing_file_and_a_file_of_something_else_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_ckpt(tmp_path / "x.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list; a checkpoint .dict. was wanted"):
        load_ckpt(tmp_path / "list.pt")


@pytest.mark.req("CKP-3")
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_ckpt(path, {"weights": torch.zeros(8)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # The kernel refuses to let any file grow past this, which is what a full disk looks like to a writer.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(CheckpointWriteError, match="The last good checkpoint is untouched. Free some space"):
            save_ckpt(path, {"weights": torch.zeros(50_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(load_ckpt(path)["weights"]) == 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.req("CKP-1")
def test_a_moment_has_the_names_of_the_specification(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(_states(1.0), best=BOTH, loop_step=10)
    store.save(_states(2.0), best=("detection",), loop_step=20)
    names = tmp_path / "checkpoints"
    assert _value(names / "last.pt") == _value(names / "detection_last.pt") == 2.0
    assert _value(names / "best.pt") == _value(names / "classification_best.pt") == 1.0
    assert _value(names / "detection_best.pt") == 2.0


@pytest.mark.req("CKP-1", "CKP-2")
def test_resuming_takes_both_tasks_from_the_newest_moment(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in range(1, 5):
        store.save(_states(float(number)), best=(), loop_step=number * 10)
    found = CheckpointStore(tmp_path).load_last()
    assert found is not None
    assert found.loop_step == 40
    assert {float(state["weights"][0]) for state in found.states.values()} == {4.0}
    assert len(list((tmp_path / "checkpoints" / "moments").iterdir())) == 4


@pytest.mark.req("CKP-3")
def test_a_damaged_newest_moment_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    store = CheckpointStore(tmp_path)
    store.save(_states(1.0), best=(), loop_step=10)
    store.save(_states(2.0), best=(), loop_step=20)
    newest = tmp_path / "checkpoints" / "moments" / "000002-detection.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.unlink()
    newest.write_bytes(content)
    found = store.load_last()
    assert found is not None
    assert found.loop_step == 10
    assert "000002-detection.pt is damaged" in caplog.text


@pytest.mark.req("CKP-2")
def test_nothing_to_resume_from_is_told_apart_from_nothing_whole(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.load_last() is None
    store.save(_states(1.0), best=(), loop_step=10)
    for path in (tmp_path / "checkpoints" / "moments").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="does not start over on its own"):
        store.load_last()


@pytest.mark.req("STG-4", "CKP-2")
def test_seconds_of_training_are_kept_with_the_moment(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(_states(1.0), best=(), loop_step=10, loop_seconds=12.5)
    found = CheckpointStore(tmp_path).load_last()
    assert found is not None
    assert found.loop_seconds == 12.5


@pytest.mark.req("CKP-3")
def test_the_manifest_names_a_checksum_for_every_file(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(_states(1.0), best=(), loop_step=10, is_completed=True)
    manifest = json.loads((tmp_path / "checkpoints" / "manifest.json").read_text())
    assert manifest["completed"] is True
    assert all(len(entry["sha256"]) == 64 for entry in manifest["moments"][0]["files"].values())


@pytest.mark.req("CKP-3")
def test_a_name_that_a_kill_prevented_is_given_by_the_resume(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(_states(1.0), best=("classification",), loop_step=10)
    names = tmp_path / "checkpoints"
    for name in ("last.pt", "best.pt", "classification_best.pt"):
        (names / name).unlink()
    assert CheckpointStore(tmp_path).holds("classification"), "a new run would train over it"
    CheckpointStore(tmp_path).load_last()
    assert _value(names / "last.pt") == _value(names / "best.pt") == _value(names / "classification_best.pt") == 1.0
    assert not (names / "detection_best.pt").exists(), "the detector's was not the best"


@pytest.mark.req("CKP-3")
def test_going_on_with_what_is_in_order_writes_nothing(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(_states(1.0), best=BOTH, loop_step=10, is_completed=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    CheckpointStore(tmp_path).load_last()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "the disk may be full"


@pytest.mark.req("UTL-13", "CKP-3")
def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    weights = torch.full((64,), 1.5)
    save_ckpt(tmp_path / "x.pt", {"weights": weights})
    content = bytearray((tmp_path / "x.pt").read_bytes())
    content[content.index(weights.numpy().tobytes()) + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged or cut off \(the checksum of its part .*/data/0 differs\)"):
        load_ckpt(tmp_path / "x.pt")


@pytest.mark.req("CKP-3")
def test_an_error_that_is_not_the_disks_is_not_called_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        save_ckpt(tmp_path / "x.pt", {"weights": _Exploding()})
    assert not isinstance(caught.value, CheckpointWriteError)
    assert list(tmp_path.iterdir()) == []


def _over(exp_dir: Path) -> Path:
    """Make the checkpoints of a training that is over; return their folder."""
    store = CheckpointStore(exp_dir)
    store.save(_states(1.0), best=BOTH, loop_step=10)
    store.save(_states(2.0), best=(), loop_step=20, is_completed=True)
    return store.dir


@pytest.mark.req("CKP-3", "DAT-1")
def test_the_test_split_opens_after_training_at_stage_4_alone(tmp_path: Path) -> None:
    folder = _over(tmp_path)
    assert is_training_over(tmp_path, 4)
    assert not is_training_over(tmp_path, 3)
    assert not is_training_over(tmp_path / "nothing", 4)
    for name in ("best.pt", "detection_best.pt"):
        (folder / name).unlink()
    assert not is_training_over(tmp_path, 4)


@pytest.mark.req("CKP-3", "DAT-1")
@pytest.mark.parametrize("content", [b"", b'{"completed": tr', b"[]", b'{"completed": false}', None])
def test_a_damaged_manifest_does_not_hide_that_training_is_over(tmp_path: Path, content: bytes | None) -> None:
    manifest = _over(tmp_path) / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    assert is_training_over(tmp_path, 4)


@pytest.mark.req("CKP-3", "DAT-1")
def test_without_a_manifest_as_it_was_written_training_is_not_over(tmp_path: Path) -> None:
    folder = _over(tmp_path)
    for name in ("manifest.json", "manifest.copy.json"):
        (folder / name).write_text('{"moments": [], "completed": true}')
    assert not is_training_over(tmp_path, 4), "nobody sealed this"
    for name in ("manifest.json", "manifest.copy.json"):
        (folder / name).write_text('{"completed": tr')
    assert not is_training_over(tmp_path, 4)
    _refuse_to_read(folder, "manifest.json", "manifest.copy.json")
    assert not is_training_over(tmp_path, 4)


def _refuse_to_read(folder: Path, *names: str) -> None:
    """Put a folder in place of each file: opening it is an error of the file system, but not that it is missing."""
    for name in names:
        (folder / name).unlink()
        (folder / name).mkdir()


@pytest.mark.req("CKP-3")
def test_manifests_that_cannot_be_read_now_are_no_empty_ones(tmp_path: Path) -> None:
    folder = _over(tmp_path)
    _refuse_to_read(folder, "manifest.json", "manifest.copy.json")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be read: Is a directory.* try again"):
        CheckpointStore(tmp_path).save(_states(3.0), best=(), loop_step=30)
    assert sorted(folder.rglob("*")) == before, "the moments it names would have been taken for leftovers"


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.req("CKP-3")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM], ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(_states(1.0), best=(), loop_step=10)
    store.save(_states(2.0), best=BOTH, loop_step=20)
    before = _contents(tmp_path)
    real_open = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "000002-detection.pt":
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        says = rf"000002-detection\.pt cannot be read now: {os.strerror(number)}.* try again"
        with pytest.raises(CheckpointError, match=says):
            store.load_last()
    assert _contents(tmp_path) == before
    found = store.load_last()
    assert found is not None
    assert found.loop_step == 20


@pytest.mark.req("CKP-3")
def test_going_back_leaves_the_files_of_the_damaged_moment_until_the_next_save(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(_states(1.0), best=(), loop_step=10)
    store.save(_states(2.0), best=(), loop_step=20)
    moments = tmp_path / "checkpoints" / "moments"
    (moments / "000002-detection.pt").unlink()
    for _ in range(2):
        found = store.load_last()
        assert found is not None
        assert found.loop_step == 10
        assert _value(moments / "000002-classification.pt") == 2.0
    assert _value(tmp_path / "checkpoints" / "last.pt") == 1.0
    store.save(_states(3.0, ("detection",)), best=(), loop_step=30)
    assert not (moments / "000002-classification.pt").exists()


class _Exploding:
    """Raises what the death of a loader worker raises in the middle of whatever the main process does."""

    def __reduce__(self) -> str:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
