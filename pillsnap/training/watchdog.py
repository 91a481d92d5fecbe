"""Says where a run hangs: when nothing has moved for a while, the stacks of all its processes go to its log.

It only looks: a stalled run is neither stopped nor helped along. Workers must have called `faulthandler.register` for
SIGUSR1 (`pillsnap/data/loaders.py` has them do it); a process that has not is named without its stack. A main process
that is stuck inside a library call which keeps Python's interpreter lock cannot be looked at from here; `py-spy dump`
can do that.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import TextIO

logger = logging.getLogger("pillsnap")

LONGEST_POLL_S = 5.0
SECONDS_A_WORKER = 0.2
"""How long a worker gets to write its stacks before the next one is asked, so that they do not mix."""


class StallWatchdog:
    """Watches, for the length of a `with` block, that `beat` is called now and then."""

    def __init__(self, stall_minutes: float, log_path: Path) -> None:
        """Report a stall after `stall_minutes` without a beat (0: never) into the file `log_path`."""
        self._stall_s = stall_minutes * 60
        self._log_path = log_path
        self._last_beat = monotonic()
        self._last_step = "none yet"
        self._is_over = Event()
        self._thread: Thread | None = None

    def beat(self, step: str | None = None) -> None:
        """Note that something moved; `step` says what, where it was a step of training."""
        self._last_beat = monotonic()
        if step is not None:
            self._last_step = step

    def __enter__(self) -> StallWatchdog:
        """Begin to watch."""
        self.beat()
        if self._stall_s > 0:
            # A daemon: whatever happens to the run, this thread does not keep the process alive.
            self._thread = Thread(target=self._watch, name="stall watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; a report under way is finished first."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        reported_beat: float | None = None  # a stall is reported once; the next beat makes another report possible
        while not self._is_over.wait(min(self._stall_s / 4, LONGEST_POLL_S)):
            last_beat = self._last_beat
            if last_beat != reported_beat and monotonic() - last_beat >= self._stall_s:
                reported_beat = last_beat
                self._report()

    def _report(self) -> None:
        last_step = self._last_step  # of now: the run may go on while the stacks are written
        try:
            with self._log_path.open("a", encoding="utf-8") as log:
                num_processes = 1 + dump_stacks(log)
        except OSError as error:
            logger.warning("no step for %g minutes; no stacks: %s", self._stall_s / 60, error)
            return
        # The stacks come first: if the main process hangs in the middle of a log call (a terminal that takes no more
        # output), this line waits for it as well.
        logger.warning(
            "no step and no validation batch for %g minutes (last: %s); the stacks of %d process(es) are in %s",
            self._stall_s / 60,
            last_step,
            num_processes,
            self._log_path,
        )


def dump_stacks(log: TextIO) -> int:
    """Write the stacks of all threads of this process and of its workers to `log`.

    Args:
        log: A file opened for appending; workers append to the file of their own choice, which should be the same.

    Returns:
        How many workers were asked for theirs.
    """
    _write(log, f"---- stacks of the main process {os.getpid()}, innermost call first ----")
    faulthandler.dump_traceback(log, all_threads=True)
    asked = 0
    for child in sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0):
        if child.pid is not None:
            asked += _ask_child(log, child.pid, child.name)
    _write(log, "---- end of the stacks ----")
    return asked


def _ask_child(log: TextIO, pid: int, name: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it ended a moment ago, or this system has no /proc
        _write(log, f"---- {name} (process {pid}): its state cannot be read ----")
        return False
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    state = fields["State"].strip()  # "D (disk sleep)" alone tells much: the disk does not answer
    # To a process that does not catch it, the signal is deadly; a worker forked a moment ago does not catch it yet.
    if not catches(fields["SigCgt"], signal.SIGUSR1):
        _write(log, f"---- {name} (process {pid}), {state}: not prepared to tell its stacks ----")
        return False
    _write(log, f"---- {name} (process {pid}), {state}, innermost call first ----")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        sleep(SECONDS_A_WORKER)
    return True


def catches(mask_hex: str, number: signal.Signals) -> bool:
    """Tell whether a signal is in a mask as `/proc/PID/status` writes it: hexadecimal, bit n - 1 for signal n."""
    return bool(int(mask_hex, 16) >> (number - 1) & 1)


def _write(log: TextIO, line: str) -> None:
    log.write(line + "\n")
    log.flush()  # faulthandler writes past the file object's buffer
