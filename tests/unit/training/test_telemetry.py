"""The log, TensorBoard and the step timer."""

from __future__ import annotations

import errno
import io
import logging
import re
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pillsnap.errors import NonFiniteLossError
from pillsnap.training import telemetry
from pillsnap.training.steplog import StepLog, StepReport
from pillsnap.training.telemetry import StepTimer, TBWriter, build_logger

CPU = torch.device("cpu")


@pytest.mark.req("UTL-3")
def test_a_logger_built_twice_writes_a_line_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_logger(tmp_path)
    logger = build_logger(tmp_path)
    logger.info("a line")
    logger.warning("take care")
    captured = capsys.readouterr()
    assert captured.out == "a line\n"
    assert captured.err == "take care\n"
    assert (tmp_path / "logs" / "pillsnap.log").read_text().count("a line") == 1


@pytest.mark.req("UTL-5")
def test_figures_reach_a_tensorboard_file(tmp_path: Path) -> None:
    with TBWriter(tmp_path) as tb:
        tb.add_scalars({"train/loss": 1.5}, 3, "detection/")
        tb.flush()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("detection/train/loss")] == [(3, 1.5)]


@pytest.mark.req("UTL-5")
def test_without_tensorboard_the_methods_do_nothing_after_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "SummaryWriter", None)
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    with TBWriter(tmp_path) as tb:
        tb.add_scalar("train/loss", 1.0, 1)
        tb.flush()
    assert caplog.text.count("tensorboard is not installed") == 1
    assert not (tmp_path / "tb").exists()


@pytest.mark.req("UTL-4")
def test_the_timer_tells_waiting_from_computing() -> None:
    timer = StepTimer(CPU)
    with timer.data():
        time.sleep(0.02)
    with timer.compute():
        time.sleep(0.05)
    [(data_s, compute_s)] = timer.flush()
    assert 0.02 <= data_s < 0.045 < compute_s < 0.5
    assert timer.flush() == []


def _log(tmp_path: Path, interval: int = 2) -> StepLog:
    logger = build_logger(tmp_path)
    return StepLog(
        label="train",
        prefix="",
        epochs=3,
        device=CPU,
        logger=logger,
        tb=TBWriter(tmp_path),
        step_log_interval=interval,
        profile_interval=4,
        warmup_steps=1,
    )


def _record(log: StepLog, step: int, loss: float) -> None:
    with log.timer.data():
        pass
    with log.timer.compute():
        pass
    log.record(StepReport(0, step, 4, step, torch.tensor(loss), 2e-4, [step, 100 + step]), checkpoint="here.pt")


@pytest.mark.req("LOP-1", "LOP-2")
def test_a_line_every_interval_in_the_specified_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = _log(tmp_path)
    for step in range(1, 5):
        _record(log, step, step / 2)
    lines = capsys.readouterr().out.splitlines()
    pattern = r"\[train\] e=1/3 s=\d/4 loss=\d\.\d{4} lr=2\.00e-04 data=0\.\d{3}s comp=0\.\d{3}s thr=[\d.]+/s cuda=0MB"
    plain = [line for line in lines if "profile" not in line]
    assert len(plain) == 2
    assert all(re.fullmatch(pattern, line) for line in plain), plain
    assert sum("profile: steps=3 samples=6" in line for line in lines) == 1, "one warm-up step is left out"
    assert log.epoch_loss.mean() == pytest.approx(1.25)


@pytest.mark.req("LOP-4")
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_all_that_is_known(tmp_path: Path, loss: float) -> None:
    log = _log(tmp_path)
    _record(log, 1, 0.5)
    with pytest.raises(NonFiniteLossError, match=r"step 2 \(epoch 1\) is (nan|inf).*Samples: \[2, 102\].*here.pt"):
        _record(log, 2, loss)


@pytest.mark.req("UTL-5")
def test_events_that_cannot_be_written_are_given_up_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)

    class FullDisk:
        def add_scalar(self, *args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with TBWriter(tmp_path) as tb:
        tb._writer = FullDisk()  # type: ignore[assignment]
        tb.add_scalar("train/loss", 1.0, 1)
        tb.add_scalar("train/loss", 1.0, 2)
    assert caplog.text.count("TensorBoard events cannot be written") == 1
    assert "No space left" in caplog.text


class _FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.req("UTL-3")
def test_a_log_file_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = build_logger(tmp_path)
    handler = next(each for each in logger.handlers if isinstance(each, logging.FileHandler))
    before = handler.setStream(_FullDisk())  # type: ignore[arg-type]
    logger.info("one")
    logger.info("two")
    handler.setStream(before)  # type: ignore[arg-type]
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["one", "two"]
    assert shown.err.count("cannot be written") == 1
    assert "Traceback" not in shown.err
