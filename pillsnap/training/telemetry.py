"""What a run says while it works: the log, TensorBoard, and how long each part of a step took."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

try:
    from torch.utils.tensorboard.writer import SummaryWriter
except ImportError:  # TensorBoard is optional: without it TBWriter's methods do nothing
    SummaryWriter = None  # type: ignore[assignment,misc]

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class _CurrentStream(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stdout` or `sys.stderr` is at that moment; progress bars put themselves in its place."""

    def __init__(self, name: str) -> None:
        logging.Handler.__init__(self)
        self._name = name

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        stream: TextIO = getattr(sys, self._name)
        return stream


class _LogFile(logging.FileHandler):
    """The run's log; when it cannot be written (disk full) this is said once, and the run goes on without."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name is logging's
        if not self._has_failed:
            self._has_failed = True
            reason = sys.exc_info()[1]
            sys.stderr.write(f"the log file {self.baseFilename} cannot be written ({reason}); lines are lost there\n")


class _BelowWarning(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


def build_logger(exp_dir: str | Path, name: str = "pillsnap") -> logging.Logger:
    """Return the run's logger: standard output, warnings to standard error, and `exp_dir/logs/pillsnap.log` (UTL-3).

    A second call replaces the handlers of the first, so no line is written twice.

    Args:
        exp_dir: The experiment's folder.
        name: The logger's name.
    """
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    log_dir = Path(exp_dir) / "logs"
    log_dir.mkdir(parents=True, exist_ok=True)
    out, err = _CurrentStream("stdout"), _CurrentStream("stderr")
    out.addFilter(_BelowWarning())
    err.setLevel(logging.WARNING)
    for handler in (out, err, _LogFile(log_dir / "pillsnap.log", encoding="utf-8")):
        is_file = isinstance(handler, logging.FileHandler)
        handler.setFormatter(logging.Formatter(LOG_FORMAT if is_file else "%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


class TBWriter:
    """A TensorBoard session under `exp_dir/tb`; without the package the same methods do nothing (UTL-5)."""

    def __init__(self, exp_dir: str | Path) -> None:
        """Open the session; says once when TensorBoard is not installed."""
        self._writer = None
        if SummaryWriter is None:
            logging.getLogger("pillsnap").warning(
                "The package tensorboard is not installed: no TensorBoard events will be written. "
                "Install it to see curves while training; the report page has them either way."
            )
            return
        with self._giving_up_on_errors():
            self._writer = SummaryWriter(str(Path(exp_dir) / "tb"))

    @contextmanager
    def _giving_up_on_errors(self) -> Iterator[None]:
        """Go on without events when they cannot be written (disk full): no curve is worth a run."""
        try:
            yield
        except OSError as error:
            logging.getLogger("pillsnap").warning("TensorBoard events cannot be written (%s): none from here on", error)
            self._writer = None

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Record one figure."""
        if self._writer is not None:
            with self._giving_up_on_errors():
                self._writer.add_scalar(tag, value, step)

    def add_scalars(self, values: dict[str, float], step: int, prefix: str = "") -> None:
        """Record several figures of one step, each tag led by `prefix`."""
        for tag, value in values.items():
            self.add_scalar(prefix + tag, value, step)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            with self._giving_up_on_errors():
                self._writer.flush()

    def close(self) -> None:
        """Write what is buffered and end the session."""
        if self._writer is not None:
            with self._giving_up_on_errors():
                self._writer.close()

    def __enter__(self) -> TBWriter:
        """Return the session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close the session."""
        self.close()


class StepTimer:
    """Seconds spent waiting for data and computing, step by step (UTL-4).

    On CUDA the compute time is taken between two events on the device; they are read in `flush`, which is the only
    place that waits for it. Call `flush` at logging steps.
    """

    def __init__(self, device: torch.device) -> None:
        """Time steps that run on `device`."""
        self.is_cuda = device.type == "cuda"
        self._data_s: list[float] = []
        self._compute_s: list[float] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def data(self) -> Iterator[None]:
        """Time the wait for the next samples."""
        start = time.perf_counter()
        yield
        self._data_s.append(time.perf_counter() - start)

    def forget_last_wait(self) -> None:
        """Drop the newest wait: no step followed it."""
        self._data_s.pop()

    @contextmanager
    def compute(self) -> Iterator[None]:
        """Time the step itself."""
        if self.is_cuda:
            first, last = _timed_event(), _timed_event()
            first.record()
            yield
            last.record()
            self._events.append((first, last))
            return
        start = time.perf_counter()
        yield
        self._compute_s.append(time.perf_counter() - start)

    def flush(self) -> list[tuple[float, float]]:
        """Return (data seconds, compute seconds) of the steps since the last flush and forget them."""
        if self._events:
            self._events[-1][1].synchronize()
            self._compute_s = [first.elapsed_time(last) / 1000 for first, last in self._events]
        steps = list(zip(self._data_s, self._compute_s, strict=False))
        self._data_s, self._compute_s, self._events = [], [], []
        return steps


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
