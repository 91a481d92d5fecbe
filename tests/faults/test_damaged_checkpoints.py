"""A thousand damaged folders of checkpoints: a moment that was really saved comes back, or an error to read does."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.errors import CheckpointError
from pillsnap.inference.checkpoints import read_checkpoint
from pillsnap.training.checkpoint import CheckpointStore, Moment, load_ckpt, save_ckpt
from tests.faults.damage import OF_BYTES, SINGLE, Damage, Files, any_swapped

CASES_EACH = 70
CASES_OF_TWO = 240
NEWEST = 3
TASKS = ("classification", "detection")


def _states(number: int) -> dict[str, dict[str, Any]]:
    return {
        task: {"task": task, "weights": torch.linspace(number, place, 16), "history": [{"epoch": number}]}
        for place, task in enumerate(TASKS)
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Save three moments, of which the newest two are kept, and return the content of every file."""
    store = CheckpointStore(tmp_path_factory.mktemp("template"))
    for number in range(1, NEWEST + 1):
        store.save(_states(number), best=TASKS[: number % 3], loop_step=number * 10, loop_seconds=number / 7)
    return {
        path.relative_to(store.dir).as_posix(): path.read_bytes() for path in store.dir.rglob("*") if path.is_file()
    }


def _store_with(files: Files, exp_dir: Path) -> CheckpointStore:
    shutil.rmtree(exp_dir, ignore_errors=True)
    (exp_dir / "checkpoints" / "moments").mkdir(parents=True)
    for name, content in files.items():
        (exp_dir / "checkpoints" / name).write_bytes(content)
    return CheckpointStore(exp_dir)


def _damaged(template: Files, damages: tuple[Damage, ...], chance: random.Random) -> Files:
    files = dict(template)
    for damage in damages:
        damage(files, chance)
    return files


def _two(chance: random.Random) -> tuple[Damage, Damage]:
    return chance.choice((*SINGLE, any_swapped)), chance.choice(OF_BYTES)


def _is_equal(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    rest = {key: value for key, value in found.items() if key != "weights"}
    return torch.equal(found["weights"], expected["weights"]) and rest == {
        key: value for key, value in expected.items() if key != "weights"
    }


def _found(store: CheckpointStore) -> Moment | str | None:
    try:
        return store.load_last()
    except CheckpointError as error:
        return str(error)


def _number_found(store: CheckpointStore) -> int:
    """Return the number of the saved moment that comes back whole, of both tasks; 0 when it is refused."""
    found = _found(store)
    assert found is not None, "training would have started anew, over the checkpoints"
    if isinstance(found, str):
        assert "restore the folder from a copy" in found
        return 0
    number = found.loop_step // 10
    expected = _states(number)
    assert found.loop_seconds == number / 7
    assert found.states.keys() == expected.keys()
    assert all(_is_equal(found.states[task], expected[task]) for task in TASKS)
    return number


@pytest.mark.req("CKP-2", "CKP-3")
@pytest.mark.parametrize("damage", SINGLE, ids=lambda damage: damage.__name__)
def test_one_damage_costs_at_most_the_newest_moment(template: Files, tmp_path: Path, damage: Damage) -> None:
    for case in range(CASES_EACH):
        store = _store_with(_damaged(template, (damage,), random.Random(case)), tmp_path / "exp")
        assert _number_found(store) in (NEWEST - 1, NEWEST), f"case {case}"
        assert _number_found(store) in (NEWEST - 1, NEWEST), f"case {case}, the second time"


@pytest.mark.req("CKP-2", "CKP-3")
def test_two_damages_never_give_other_weights(template: Files, tmp_path: Path) -> None:
    for case in range(CASES_OF_TWO):
        chance = random.Random(case)
        store = _store_with(_damaged(template, _two(chance), chance), tmp_path / "exp")
        assert _number_found(store) in (0, NEWEST - 1, NEWEST), f"case {case}"


@pytest.mark.req("CKP-3")
def test_training_goes_on_saving_whatever_was_damaged_meanwhile(template: Files, tmp_path: Path) -> None:
    for case in range(CASES_EACH):
        chance = random.Random(case)
        store = _store_with(_damaged(template, _two(chance), chance), tmp_path / "exp")
        store.save(_states(7), best=(), loop_step=70, loop_seconds=1.0)
        assert _number_found(store) == 7, f"case {case}"


@pytest.mark.req("CKP-3")
def test_a_damaged_manifest_costs_nothing(template: Files, tmp_path: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        for position in range(0, len(template[name]), 7):
            content = bytearray(template[name])
            content[position] ^= 4
            store = _store_with({**template, name: bytes(content)}, tmp_path / "exp")
            assert _number_found(store) == NEWEST


@pytest.mark.req("CKP-2")
def test_without_any_manifest_training_does_not_start_over(template: Files, tmp_path: Path) -> None:
    rest = {name: content for name, content in template.items() if not name.startswith("manifest")}
    assert _number_found(_store_with(rest, tmp_path / "exp")) == 0
    moments = {name: content for name, content in rest.items() if name.startswith("moments/")}
    assert _number_found(_store_with(moments, tmp_path / "exp")) == 0


@pytest.mark.req("UTL-13", "CKP-3")
def test_a_file_with_any_one_byte_changed_is_refused_or_has_the_same_content(tmp_path: Path) -> None:
    expected = _states(1)["detection"]
    save_ckpt(tmp_path / "x.pt", expected)
    content = (tmp_path / "x.pt").read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        (tmp_path / "x.pt").write_bytes(changed)
        refused += _is_refused(tmp_path / "x.pt", expected)
    # The rest are bytes without a meaning: padding that aligns the tensors, dates, permissions.
    assert refused > len(content) // 3


def _is_refused(path: Path, expected: dict[str, Any]) -> bool:
    try:
        found = load_ckpt(path)
    except CheckpointError:
        return True
    assert _is_equal(found, expected)
    return False


@pytest.mark.req("UTL-13", "CKP-3")
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    save_ckpt(tmp_path / "x.pt", _states(1)["detection"])
    content = (tmp_path / "x.pt").read_bytes()
    for length in range(len(content)):
        (tmp_path / "x.pt").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            load_ckpt(tmp_path / "x.pt")


def _read_for_inference(path: Path) -> object:
    return read_checkpoint(path, "detection")


@pytest.mark.req("CKP-3")
@pytest.mark.parametrize("read", [load_ckpt, _read_for_inference], ids=["training", "inference"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        torch.OutOfMemoryError("CUDA out of memory."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=["cpu", "gpu", "mmap"],
)
def test_memory_that_runs_out_while_a_file_is_read_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], error: Exception
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise error

    save_ckpt(tmp_path / "x.pt", _states(1)["detection"])
    monkeypatch.setattr(torch, "load", run_out)
    with pytest.raises(type(error)) as caught:
        read(tmp_path / "x.pt")
    assert caught.value is error


@pytest.mark.req("CKP-3")
@pytest.mark.parametrize("read", [load_ckpt, _read_for_inference], ids=["training", "inference"])
def test_another_error_of_the_reader_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamReader failed finding central directory")

    save_ckpt(tmp_path / "x.pt", _states(1)["detection"])
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        read(tmp_path / "x.pt")
