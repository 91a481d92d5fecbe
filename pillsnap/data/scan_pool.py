"""One function over many jobs, in this process and in helpers beside it.

The helpers are new processes that import only the function's own module: a fork would inherit the locks of torch's
threads, and `multiprocessing` would import the caller's main module, torch included, in each of them. Starting one
costs 0.03 s (standard library) to 0.15 s (Arrow), so they are started when the first jobs show that it is worth it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, TypeVar

from pillsnap.errors import PillError

Job = TypeVar("Job")
Result = TypeVar("Result")

logger = logging.getLogger("pillsnap")

MAX_PROCESSES = 16
JOBS_AHEAD = 2  # one at work, one waiting: a helper must not wait for this process to look up from its own job
PIPE_BYTES = 1 << 20
# Python is started without its `site`, which takes longer than the standard library's part: the path is told instead.
START = "import sys; sys.path[:] = {path!r}; from pillsnap.data.scan_pool import serve; serve({module!r}, {name!r})"


def num_processes(wanted: int | None = None) -> int:
    """Return how many processes to work in: `wanted`, else one for each core this process may use."""
    return wanted or min(len(os.sched_getaffinity(0)), MAX_PROCESSES)


def map_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], processes: int | None = None, worth_s: float = 0.3
) -> list[Result]:
    """Return `function(job)` for every job, in their order.

    Args:
        function: A function of a module, with a job and a result that pickle.
        jobs: Best some hundred of them, of a hundredth of a second or more each.
        processes: How many work, this one included; None for one per core.
        worth_s: Helpers are started when the first jobs show that all of them would take so many seconds.

    Raises:
        PillError: One of those that the function raised. Whatever else it raises is raised here too.
    """
    work = _Work(function, jobs)
    start = time.perf_counter()
    helpers: list[_Helper] = []
    was_collecting = gc.isenabled()
    gc.disable()  # a million small lists without a cycle among them: looking for one took 7 % of the time
    try:
        while (index := work.next_index()) is not None:
            seconds = time.perf_counter() - start
            if not helpers and index and seconds * (len(jobs) - index) >= worth_s * index:
                count = min(num_processes(processes), len(jobs) - index) - 1
                helpers = [_Helper(work) for _ in range(count)]
            work.finish(index)
        for helper in helpers:
            helper.join()
        while (index := work.next_index()) is not None:  # jobs of helpers that ended before their time
            work.finish(index)
    finally:
        work.stop()
        for helper in helpers:
            helper.stop()
        if was_collecting:
            gc.enable()
    return work.results()


class _Work:
    """The jobs that are left and the results that are there, for several threads."""

    def __init__(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
        self.function = function
        self.jobs = jobs
        self._lock = threading.Lock()
        self._left = list(range(len(jobs) - 1, -1, -1))
        self._results: dict[int, Any] = {}
        self._errors: list[PillError] = []

    def next_index(self) -> int | None:
        with self._lock:
            return None if self._errors or not self._left else self._left.pop()

    def finish(self, index: int) -> None:
        self.take(index, self.function(self.jobs[index]), None)

    def take(self, index: int, result: Any, error: PillError | None) -> None:
        with self._lock:
            self._results[index] = result
            if error is not None:
                self._errors.append(error)

    def put_back(self, index: int) -> None:
        with self._lock:
            self._left.append(index)

    def stop(self) -> None:
        with self._lock:
            self._left.clear()

    def results(self) -> list[Any]:
        if self._errors:
            raise self._errors[0]
        return [self._results[index] for index in range(len(self.jobs))]


class _Helper:
    """A process, and the thread that hands it jobs."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="pillsnap-scan", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def stop(self) -> None:
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        function = self._work.function
        code = START.format(path=sys.path, module=function.__module__, name=function.__name__)
        try:
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            logger.warning("a process for reading the data set cannot be started (%s); it takes longer", error)
            return
        self._process = process
        source, sink = process.stdout, process.stdin
        if source is not None and sink is not None:
            self._feed(source, sink)
            process.kill()  # it holds nothing, and may still be starting
            source.close()
            with contextlib.suppress(OSError):  # what a process that has ended did not take
                sink.close()
        process.wait()

    def _feed(self, source: IO[bytes], sink: IO[bytes]) -> None:
        widen(source)
        asked: deque[int] = deque()
        try:
            while self._ask(sink, asked):
                result, error = pickle.load(source)
                self._work.take(asked.popleft(), result, error)
        except (OSError, EOFError, pickle.UnpicklingError):
            # Killed, or the function failed as it never should: this process does the jobs and sees for itself.
            for index in asked:
                self._work.put_back(index)
            logger.warning("a process that read the data set has ended; its work is done again")

    def _ask(self, sink: IO[bytes], asked: deque[int]) -> bool:
        """Keep jobs ahead of the helper; tell whether any answer is still to come."""
        while len(asked) < JOBS_AHEAD and (index := self._work.next_index()) is not None:
            asked.append(index)
            _send(sink, self._work.jobs[index])
        return bool(asked)


def serve(module: str, name: str) -> None:
    """Answer jobs from standard input on standard output until it closes; what a helper process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent ends this process
    gc.disable()
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not end up between the answers
    function = getattr(importlib.import_module(module), name)
    for job in _jobs(source):
        _send(sink, _outcome(function, job))


def widen(pipe: IO[bytes]) -> None:
    """Let a whole answer lie in a pipe: its reader gets Python's lock once, not once for every 64 KiB."""
    with contextlib.suppress(OSError):  # more than an ordinary user may
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _jobs(source: IO[bytes]) -> Iterator[Any]:
    while True:
        try:
            yield pickle.load(source)
        except EOFError:
            return


def _outcome(function: Callable[[Any], Any], job: Any) -> tuple[Any, PillError | None]:
    try:
        return function(job), None
    except PillError as error:
        return None, error


def _send(sink: IO[bytes], content: Any) -> None:
    pickle.dump(content, sink, protocol=pickle.HIGHEST_PROTOCOL)
    sink.flush()
