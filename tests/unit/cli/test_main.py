"""How the outcome of a command becomes its exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import pytest
import torch

from pillsnap.cli.main import exit_code_of
from pillsnap.errors import GateError, OutOfMemoryFloorError


def _raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.req("OOM-3", "OOM-6")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError("Unable to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory [/x]"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryFloorError("nothing left to try"),
    ],
    ids=["cuda", "python", "cpu", "bracketed", "closing bracket", "system", "floor"],
)
def test_memory_that_runs_out_anywhere_is_exit_code_4(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(_raising(error)) == 4
    assert str(error) in capsys.readouterr().err


def test_a_run_without_the_success_it_was_asked_for_is_exit_code_5() -> None:
    assert exit_code_of(_raising(GateError("classes is 3, wanted 30 or more"))) == 5


@pytest.mark.req("OOM-6")
def test_the_systems_lack_of_memory_needs_no_torch_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert exit_code_of(_raising(OSError(errno.ENOMEM, "Cannot allocate memory"))) == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_full_or_forbidden_place_is_an_error_without_a_traceback(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(_raising(OSError(number, os.strerror(number)))) == 1
    assert f"{os.strerror(number)}. Check the free space" in capsys.readouterr().err


def test_a_file_that_a_bug_looks_for_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        exit_code_of(_raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "nowhere")))


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        exit_code_of(_raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
