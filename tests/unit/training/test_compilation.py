"""torch.compile: the real one where it works, and the way back where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pillsnap.training.compilation import try_torch_compile

pytestmark = pytest.mark.req("UTL-9")


def test_mode_none_leaves_the_model_alone() -> None:
    model = nn.Linear(2, 2)
    assert try_torch_compile(model, "none") is model
    assert model._compiled_call_impl is None


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted one of none, reduce-overhead, max-autotune"):
        try_torch_compile(nn.Linear(2, 2), "default")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_model_gives_the_same_numbers_under_the_same_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    names, x = list(model.state_dict()), torch.rand(3, 4)
    expected = model(x)
    compiled = try_torch_compile(model, "reduce-overhead")
    torch.testing.assert_close(compiled(x), expected)
    assert compiled._compiled_call_impl is not None, "it fell back to the plain model"
    assert list(compiled.state_dict()) == names


def _broken_compile(when: str) -> Callable[..., Any]:
    def compile_(target: Any, **_: Any) -> Any:
        if when == "at once":
            raise RuntimeError("no compiler here\nsecond line")

        def call(*_: Any, **__: Any) -> Any:
            raise RuntimeError("backend failed")

        return call

    return compile_


@pytest.mark.parametrize(("when", "says"), [("at once", "no compiler here."), ("in the first step", "backend failed.")])
def test_a_failure_warns_once_and_the_plain_model_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str, says: str
) -> None:
    monkeypatch.setattr(torch, "compile", _broken_compile(when))
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    model, x = nn.Linear(2, 2), torch.rand(3, 2)
    expected = model(x)
    compiled = try_torch_compile(model, "reduce-overhead")
    for _ in range(3):
        torch.testing.assert_close(compiled(x), expected)
    warnings = [record.message for record in caplog.records if "torch.compile" in record.message]
    assert len(warnings) == 1
    assert says in warnings[0]


@pytest.mark.req("OOM-6")
def test_running_out_of_memory_is_no_compile_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(target: Any, **_: Any) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    model = try_torch_compile(nn.Linear(2, 2), "max-autotune")
    with pytest.raises(torch.OutOfMemoryError):
        model(torch.rand(1, 2))
    assert model._compiled_call_impl is not None
