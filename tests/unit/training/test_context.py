"""The look at memory before an epoch."""

from __future__ import annotations

import logging

import pytest
import torch

from pillsnap.data.batches import Broken
from pillsnap.memory import GB, DeviceMemory
from pillsnap.training.context import RunContext
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.recovery import Cut
from pillsnap.training.telemetry import TBWriter

pytestmark = pytest.mark.req("OOM-1")


class _Scalars(TBWriter):
    def __init__(self) -> None:
        self.values: dict[str, tuple[float, int]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.values[tag] = (value, step)


def _context(tb: TBWriter, monkeypatch: pytest.MonkeyPatch, used_gb: float) -> RunContext:
    memory = DeviceMemory(torch.device("cpu"), limit_gb=10)
    monkeypatch.setattr(DeviceMemory, "used_bytes", lambda self: int(used_gb * GB))
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    return RunContext(logging.getLogger("pillsnap"), tb, StopRequest(), "none", memory)


def test_use_and_batch_size_are_recorded_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tb = _Scalars()
    _context(tb, monkeypatch, 7.9).watch_memory(Cut(16, 4), 3, "train/detection", "detection/")
    assert tb.values == {"detection/perf/memory_use": (0.79, 3), "detection/perf/batch_size": (16.0, 3)}
    assert caplog.text == ""


def test_above_80_percent_there_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    tb = _Scalars()
    _context(tb, monkeypatch, 8.1).watch_memory(Cut(16, 4), 3, "train", "")
    assert tb.values["oom/memory_warning"] == (0.81, 3)
    assert "[train] 81% of 10.0 GB are in use before epoch 4 (micro-batches 16 x 4)" in caplog.text


@pytest.mark.req("DAT-2")
def test_a_broken_picture_is_named_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    context = _context(_Scalars(), monkeypatch, used_gb=1)
    for place, label in (("classification", "train"), ("classification", "train"), ("detection", "val/detection")):
        context.note_broken([Broken("a.png", "a.png is cut off")], place, label)
    assert caplog.messages == ["[train] left out: a.png is cut off"]
    assert len(context.damage) == 1
