"""How many worker processes the loaders get: measured before training, with the run's own pictures (WRK-1).

Which samples a step has, their order and their augmentation do not depend on the number of workers, so the choice
changes nothing but speed. What is timed is the bare wait for the next step, without a step in between: how fast the
workers can deliver at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from torch.utils.data import DataLoader

from pillsnap.cores import usable_cores
from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import MEMORY_ERRORS, describe_failure, is_out_of_memory
from pillsnap.training.interrupt import is_dead_worker
from pillsnap.training.reproducibility import rng_state, set_rng_state
from pillsnap.training.telemetry import TBWriter

logger = logging.getLogger("pillsnap")

CANDIDATES = (4, 8, 12, 16)
NEAR_TIE = 0.03  # repetitions of one measurement differ by so much; a process costs memory for certain
LIMIT_S = 60.0
"""Longest measurement of one candidate. Four candidates then take four minutes at most, whatever the disk, before a run
of hours; a loader that needs longer for 130 steps is compared over as many steps as it does in that time."""
WARMUP_SHARE = 1 / 3  # of the limit; the rest measures

BuildLoader = Callable[[int], Iterable[Any]]
OnChoice = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """How fast one number of workers delivered."""

    num_workers: int
    step_s: float
    """Mean seconds until the next step's samples were there."""
    num_steps: int
    """Steps the mean is over."""
    seconds: float
    """What the measurement took, start and end of the workers included."""


def autotune_num_workers(
    build_loader_fn: BuildLoader,
    candidates: Sequence[int] = CANDIDATES,
    warmup: int = 30,
    steps: int = 100,
    *,
    rehearse: bool = False,
    num_cores: int | None = None,
    limit_s: float = LIMIT_S,
    tb: TBWriter | None = None,
    on_step: Callable[[], None] | None = None,
    on_choice: OnChoice | None = None,
) -> int:
    """Choose the number of workers whose loader delivers fastest (UTL-12).

    Args:
        build_loader_fn: Gives a loader with that many workers; anything that can be iterated over. One with fewer steps
            than asked for is begun again, as at an epoch's end. Its workers end before the next one is built. To be
            fair, each should read pictures the ones before have not brought into memory.
        candidates: Numbers to try; those above the cores at hand are taken down to these.
        warmup: Steps before the clock starts: processes begin, queues fill.
        steps: Steps to measure.
        rehearse: Let the largest candidate go first without counting it, where all candidates must read the same
            pictures: else the first would be the only one to wait for the disk.
        num_cores: Cores at hand; None asks the system.
        limit_s: Longest measurement of a candidate, in seconds.
        tb: Gets `perf/num_workers`.
        on_step: Called before each step; may raise to end the measurement.
        on_choice: Told the number chosen and why.

    Returns:
        The candidate with the smallest mean wait; of those within 3 % of it, the smallest number. A single candidate is
        taken without measuring it.

    Raises:
        ValueError: There is no candidate, or one is not positive; or a loader yields nothing.
        OutOfMemoryFloorError: The workers of every candidate ran out of memory.
    """
    usable = usable_candidates(candidates, usable_cores() if num_cores is None else num_cores)
    if len(usable) == 1:
        number, reason = usable[0], "the only candidate; not measured"
    else:
        trial = _Trial(build_loader_fn, warmup, steps, limit_s, on_step or _do_nothing)
        before = rng_state()
        try:
            if rehearse:
                trial.measure(usable[-1])
            number, reason = choose(trial.run(usable))
        finally:
            set_rng_state(before)
    logger.info("[workers] %d workers: %s", number, reason)
    if tb is not None:
        tb.add_scalar("perf/num_workers", number, 0)
    if on_choice is not None:
        on_choice(number, reason)
    return number


def usable_candidates(candidates: Sequence[int], num_cores: int) -> list[int]:
    """Return the different candidates in ascending order, those above `num_cores` taken down to it, with a note.

    Raises:
        ValueError: There is no candidate, or one is not positive.
    """
    if not candidates or min(candidates) < 1:
        raise ValueError(
            f"the candidates for the number of workers are {list(candidates)}; wanted one or more positive numbers. "
            "Set dataloader.autotune_candidates=[4, 8, 12, 16], or dataloader.autotune_workers=false."
        )
    too_many = sorted({number for number in candidates if number > num_cores})
    if too_many:
        logger.info(
            "[workers] %s above the %d cores this process may use: taken as %d",
            ", ".join(map(str, too_many)),
            num_cores,
            num_cores,
        )
    return sorted({min(number, num_cores) for number in candidates})


def choose(measured: Sequence[Measurement]) -> tuple[int, str]:
    """Return the number of workers to use, and why, from at least one measurement."""
    fastest = min(measured, key=lambda each: each.step_s)
    chosen = min(
        (each for each in measured if each.step_s <= fastest.step_s * (1 + NEAR_TIE)),
        key=lambda each: each.num_workers,
    )
    others = ", ".join(f"{each.num_workers}: {each.step_s * 1000:.1f} ms" for each in measured if each is not chosen)
    own = f"{chosen.step_s * 1000:.1f} ms a step"
    if chosen is fastest:
        return chosen.num_workers, f"{own}, the fastest ({others})"
    return chosen.num_workers, f"{own}, within {NEAR_TIE:.0%} of the fastest with fewer processes ({others})"


class _Trial:
    """Measures candidates one after the other."""

    def __init__(
        self, build: BuildLoader, warmup: int, steps: int, limit_s: float, on_step: Callable[[], None]
    ) -> None:
        self._build = build
        self._warmup, self._steps, self._limit_s = warmup, steps, limit_s
        self._on_step = on_step
        self._failure = ""

    def run(self, candidates: Sequence[int]) -> list[Measurement]:
        """Measure all candidates and log their figures; those the machine has no room for are left out."""
        measured = []
        for number in candidates:
            found = self.measure(number)
            if found is None:
                continue
            measured.append(found)
            text = f"{found.step_s * 1000:.1f} ms a step, mean of {found.num_steps} ({found.seconds:.1f} s in all)"
            logger.info("[workers] %d: %s", number, text)
        if not measured:
            raise OutOfMemoryFloorError(
                f"Loading samples ran out of memory with {', '.join(map(str, candidates))} workers alike; at least one "
                f"number must fit. Last: {self._failure}. Close other programs, lower dataloader.prefetch_factor, or "
                "set dataloader.autotune_candidates to smaller numbers."
            )
        return measured

    def measure(self, num_workers: int) -> Measurement | None:
        started = perf_counter()
        try:
            waits = self._waits(num_workers)
        except MEMORY_ERRORS as error:
            self._on_step()  # a stop that was asked for kills workers too
            if not is_dead_worker(error) and not is_out_of_memory(error, is_memory_scarce=False):
                raise
            self._failure = describe_failure(error)
        else:
            return Measurement(num_workers, sum(waits) / len(waits), len(waits), perf_counter() - started)
        logger.warning("[workers] %d: left out, its workers ran out of memory (%s)", num_workers, self._failure)
        return None

    def _waits(self, num_workers: int) -> list[float]:
        """Return the seconds each measured step was waited for."""
        waits: list[float] = []
        num_warm = None if self._warmup else 0
        with closing(_endless(self._build(num_workers))) as batches:
            begin = last = perf_counter()
            while num_warm is None or len(waits) < num_warm + self._steps:
                self._on_step()
                if next(batches, _NOTHING) is _NOTHING:
                    raise ValueError(
                        f"the loader with {num_workers} workers yields nothing; at least a step is wanted."
                    )
                now = perf_counter()
                waits.append(now - last)
                last = now
                if num_warm is None and (len(waits) >= self._warmup or now - begin > self._limit_s * WARMUP_SHARE):
                    num_warm = len(waits)
                if now - begin > self._limit_s:
                    break
        # A single step can take longer than the limit; then it is all there is to compare.
        return waits[num_warm:] or waits


_NOTHING = object()


def _endless(loader: Iterable[Any]) -> Generator[Any, None, None]:
    """Yield a loader's batches over and over; nothing when it has none. Closing it ends the loader's workers."""
    try:
        has_any = True
        while has_any:
            has_any = False
            for batch in loader:
                has_any = True
                yield batch
    finally:
        end_workers(loader)


def end_workers(loader: Iterable[Any]) -> None:
    """End the workers that a loader keeps alive between epochs; they end with the last reference to its iterator."""
    if isinstance(loader, DataLoader):
        loader._iterator = None


def _do_nothing() -> None: ...
