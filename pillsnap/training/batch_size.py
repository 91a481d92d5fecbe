"""Searching the smallest batch size that is about as fast as the fastest one that fits (UTL-11, BAT-1, BAT-3).

The search only decides what to run next and what to answer; what a candidate runs is the caller's. Nothing is ever
computed from other sizes: the answer is a size that was run, and no size at or above one that failed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import torch

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import GB, MEMORY_ERRORS, describe_failure, free_memory, is_out_of_memory
from pillsnap.training.precision import select_device

logger = logging.getLogger("pillsnap")

SEARCH_LIMIT_S = 60.0
ENOUGH_SPEED = 0.97  # of the best images/s; below the noise of three timed steps, larger is not measurably faster
MIN_GAIN = 1.03  # without an upper limit, a doubling that gains less ends the growth
MOST_DOUBLINGS = 40  # without an upper limit; time or memory run out long before
TIMED_CALLS = 3
TIMED_S = 2.0  # slow steps are timed once or twice: they are noisy by less


@dataclass(frozen=True, slots=True)
class Measured:
    """What running one size gave."""

    images_per_s: float
    peak_bytes: int | None = None
    """Most memory allocated on the GPU, by everything that was resident; None where it cannot be measured."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One size that was run, and what came of it."""

    size: int
    seconds: float
    """That running it took, warm-up included."""
    images_per_s: float | None = None
    """None when it did not fit."""
    peak_bytes: int | None = None
    reason: str = ""
    """Why it did not fit."""

    @property
    def fits(self) -> bool:
        """Whether it ran to its end."""
        return self.images_per_s is not None

    def __str__(self) -> str:
        """Return `412.3 images/s, peak 11.20 GB, 3.1 s`, or why it did not fit."""
        if self.images_per_s is None:
            return f"does not fit ({self.reason}), {self.seconds:.1f} s"
        peak = "not measured" if self.peak_bytes is None else f"{self.peak_bytes / GB:.2f} GB"
        return f"{self.images_per_s:.1f} images/s, peak memory {peak}, {self.seconds:.1f} s"


class BatchSizeSearch:
    """Runs candidates one by one: up from the first while they fit, then down while nothing is lost."""

    def __init__(
        self,
        candidates: Sequence[int],
        init: int,
        probe: Callable[[int], Measured],
        *,
        on_candidate: Callable[[Candidate], None],
        limit_s: float = SEARCH_LIMIT_S,
        min_gain: float = 0.0,
    ) -> None:
        """Prepare a search; `run` does it.

        Args:
            candidates: The sizes to choose from, ascending.
            init: The one to begin with.
            probe: Runs one size and measures it; raises when memory runs out. Any other error ends the search.
            on_candidate: Told of every size that was run.
            limit_s: Seconds. A candidate is not begun where the slowest so far would not end in time, unless nothing
                has fitted yet.
            min_gain: Factor in images/s that a larger size must bring for the next larger one to be tried.
        """
        self._candidates = candidates
        self._init = init
        self._probe = probe
        self._on_candidate = on_candidate
        self._limit_s = limit_s
        self._min_gain = min_gain
        self._started = monotonic()
        self.tried: list[Candidate] = []
        self.is_cut_short = False
        """Whether time was up before there was nothing left to try."""

    def run(self) -> Candidate | None:
        """Return the smallest size that was run and reaches `ENOUGH_SPEED` of the best; None when none fits."""
        while (size := self._next()) is not None:
            self.tried.append(self._try(size))
            self._on_candidate(self.tried[-1])
        fitting = self._fitting()
        enough = ENOUGH_SPEED * max((_speed(candidate) for candidate in fitting), default=0.0)
        return next((candidate for candidate in fitting if _speed(candidate) >= enough), None)

    def reason(self) -> str:
        """Return why `run` answered what it did."""
        fastest = max(self._fitting(), key=_speed)
        text = (
            f"the smallest of those run with at least {ENOUGH_SPEED:.0%} of the best speed, "
            f"{_speed(fastest):.1f} images/s at {fastest.size}"
        )
        failed = [candidate.size for candidate in self.tried if not candidate.fits]
        if failed:
            text += f"; {min(failed)} does not fit"
        return f"{text}; the time for the search was up" if self.is_cut_short else text

    def _next(self) -> int | None:
        """Return the size to run next, or None when the search is over."""
        if not self.tried:
            return self._init
        size = self._worth_trying()
        if size is not None and self._fitting() and self._is_time_up():
            self.is_cut_short = True
            return None
        return size

    def _worth_trying(self) -> int | None:
        sizes = [candidate.size for candidate in self.tried]
        below = max((size for size in self._candidates if size < min(sizes)), default=None)
        above = min((size for size in self._candidates if size > max(sizes)), default=None)
        fitting = self._fitting()
        if not fitting:
            return below
        if above is not None and all(candidate.fits for candidate in self.tried) and self._is_growth_worth_it():
            return above
        is_smallest_fast = _speed(fitting[0]) >= ENOUGH_SPEED * max(map(_speed, fitting))
        return below if is_smallest_fast else None

    def _fitting(self) -> list[Candidate]:
        """Return what fitted, ascending; not what fitted above a size that later failed, when memory had shrunk."""
        lowest_failure = min((candidate.size for candidate in self.tried if not candidate.fits), default=None)
        fitting = (
            candidate
            for candidate in self.tried
            if candidate.fits and (lowest_failure is None or candidate.size < lowest_failure)
        )
        return sorted(fitting, key=lambda candidate: candidate.size)

    def _is_growth_worth_it(self) -> bool:
        *smaller, largest = sorted(self.tried, key=lambda candidate: candidate.size)
        return _speed(largest) >= self._min_gain * max(map(_speed, smaller), default=0.0)

    def _is_time_up(self) -> bool:
        slowest = max(candidate.seconds for candidate in self.tried)
        return monotonic() - self._started + slowest > self._limit_s

    def _try(self, size: int) -> Candidate:
        began = monotonic()
        try:
            measured = self._probe(size)
        except MEMORY_ERRORS as error:
            # What cuDNN and oneDNN raise for lack of workspace and for what they cannot do counts too: either way this
            # size cannot be run, and a smaller one may.
            if not is_out_of_memory(error, is_memory_scarce=True):
                raise
            failure = describe_failure(error)
        else:
            return Candidate(size, monotonic() - began, measured.images_per_s, measured.peak_bytes)
        free_memory()
        return Candidate(size, monotonic() - began, reason=failure)


def auto_find_batch_size(
    fn_train_step: Callable[[int], object],
    init_bs: int,
    min_bs: int = 1,
    max_bs: int | None = None,
    amp_force_fp16: bool = False,
) -> int:
    """Find the smallest batch size that is about as fast as the fastest one that fits (UTL-11).

    Sizes are doubled from `init_bs` as long as they fit, then halved while at least 97 % of the best measured images/s
    remain. Each is called once to warm up and then timed. Only sizes that were run are answered.

    Args:
        fn_train_step: Does one real training step with so many samples, on the GPU when there is one.
        init_bs: The size to begin with.
        min_bs: The smallest size allowed.
        max_bs: The largest size allowed; it is tried even when it is no doubling of `init_bs`. None: no limit, and
            doubling ends when it gains less than 3 % images/s.
        amp_force_fp16: Run the steps under float16 autocast.

    Returns:
        The batch size. The search takes about a minute at most; when time is up, the best so far is the answer.

    Raises:
        OutOfMemoryFloorError: Not even `min_bs` fits.
        ValueError: Not 1 <= min_bs <= init_bs <= max_bs.
    """
    candidates = _doublings(init_bs, min_bs, max_bs)
    device = select_device()

    def run_once(size: int) -> None:
        with torch.autocast(device.type, torch.float16) if amp_force_fp16 else contextlib.nullcontext():
            fn_train_step(size)

    def probe(size: int) -> Measured:
        forget_peak(device)
        run_once(size)
        calls_per_s = timed(lambda: run_once(size), device)
        return Measured(size * calls_per_s, peak_bytes(device))

    search = BatchSizeSearch(
        candidates,
        init_bs,
        probe,
        on_candidate=lambda candidate: logger.info("[auto batch] %d: %s", candidate.size, candidate),
        min_gain=MIN_GAIN if max_bs is None else 0.0,
    )
    answer = search.run()
    if answer is None:
        raise OutOfMemoryFloorError(
            f"A training step ran out of memory at every batch size from {init_bs} down to min_bs = {min_bs}. Last: "
            f"{search.tried[-1].reason}. Close other programs that use the memory, make the model or its input "
            "smaller, or lower min_bs."
        )
    logger.info("[auto batch] %d: %s", answer.size, search.reason())
    return answer.size


def _doublings(init_bs: int, min_bs: int, max_bs: int | None) -> list[int]:
    if not 1 <= min_bs <= init_bs or (max_bs is not None and max_bs < init_bs):
        raise ValueError(
            f"auto_find_batch_size got min_bs={min_bs}, init_bs={init_bs}, max_bs={max_bs}; wanted whole numbers with "
            "1 <= min_bs <= init_bs <= max_bs."
        )
    limit = init_bs * 2**MOST_DOUBLINGS if max_bs is None else max_bs
    sizes = {min_bs, limit}
    sizes.update(init_bs * 2**power for power in range(MOST_DOUBLINGS) if init_bs * 2**power <= limit)
    sizes.update(init_bs // 2**power for power in range(init_bs.bit_length()) if init_bs // 2**power >= min_bs)
    return sorted(sizes)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return how often a second `call` can be made, from a few calls; what it left running on the GPU counts."""
    _wait_for(device)
    began = monotonic()
    calls, seconds = 0, 0.0
    while calls < TIMED_CALLS and seconds < TIMED_S:
        call()
        _wait_for(device)
        calls, seconds = calls + 1, monotonic() - began
    return calls / max(seconds, 1e-9)


def forget_peak(device: torch.device) -> None:
    """Begin anew to look for the most GPU memory allocated."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the most GPU memory allocated since `forget_peak`; None on a CPU, where nobody counts it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _speed(candidate: Candidate) -> float:
    return candidate.images_per_s or 0.0
