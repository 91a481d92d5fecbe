"""Taking turns on one machine, and what the times of the turns say.

The machine's speed drifts and other programs disturb it. So the contenders take short turns in one process, every round
is compared within itself, and the median of the rounds is the figure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts this process alone, so other programs on the machine disturb it less; it sums over threads."""
Turn = Callable[[], float]
"""Takes one contender's turn and returns the seconds that count."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and how finely interleaved, the contenders step."""

    rounds: int
    """Rounds that count."""
    steps: int
    """Steps of each contender a round; a multiple of the log interval puts the same number of log lines into each."""
    turn_steps: int
    """Steps of one contender before the next one's turn; divides `steps`."""
    warmup_rounds: int = 1
    """Rounds before, which do not count: allocators, thread pools and chosen algorithms settle in them."""

    @property
    def turns(self) -> int:
        """Turns of each contender a round."""
        return self.steps // self.turn_steps

    @property
    def total_steps(self) -> int:
        """Steps of each contender, warm-up included."""
        return self.steps * (self.rounds + self.warmup_rounds)


@dataclass
class RoundTimes:
    """Seconds of each contender, a round an entry, without the warm-up."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, round_seconds: dict[str, float]) -> None:
        """Take in one finished round."""
        for name, value in round_seconds.items():
            self.seconds.setdefault(name, []).append(value)

    def ratios(self, name: str, other: str) -> list[float]:
        """Return, round by round, how many times as fast `name` is as `other` (its images/s over the other's)."""
        return [theirs / mine for mine, theirs in zip(self.seconds[name], self.seconds[other], strict=True)]

    def total_ratio(self, name: str, other: str) -> float:
        """Return the ratio over all rounds together: a disturbance counts in it, and so does what comes rarely."""
        return sum(self.seconds[other]) / sum(self.seconds[name])

    def cost_percent(self, name: str, without: str) -> list[float]:
        """Return, round by round, how much longer `name` takes than `without`, in per cent of the latter."""
        return [(ratio - 1) * 100 for ratio in self.ratios(without, name)]


class RoundKeeper:
    """Sums turns into rounds and leaves the warm-up out."""

    def __init__(self, plan: Plan, on_round: Callable[[int], None]) -> None:
        """Follow `plan`; `on_round` hears the number of every finished round, the warm-up's being 0 and below."""
        self.plan = plan
        self.times = RoundTimes()
        self._on_round = on_round
        self._round = 1 - plan.warmup_rounds
        self._turns = 0
        self._seconds: dict[str, float] = {}

    @property
    def is_done(self) -> bool:
        """Whether every round is over."""
        return self._round > self.plan.rounds

    def take(self, turns: dict[str, Turn]) -> None:
        """Give every contender its turn; the order is reversed each time (ABBA), so that none always comes first."""
        names = list(turns) if self._turns % 2 == 0 else list(reversed(turns))
        self.record({name: turns[name]() for name in names})

    def record(self, seconds: dict[str, float]) -> None:
        """Take in one turn of every contender."""
        for name, value in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + value
        self._turns += 1
        if self._turns < self.plan.turns:
            return
        if self._round > 0:
            self.times.add(self._seconds)
        self._on_round(self._round)
        self._round, self._turns, self._seconds = self._round + 1, 0, {}


class Stopwatch:
    """Reads a clock when the device has done what it was given."""

    def __init__(self, device: torch.device, clock: str = "wall") -> None:
        """Read `clock`, a key of `CLOCKS`, for work on `device`."""
        self._device = device
        self._clock = CLOCKS[clock]

    def read(self) -> float:
        """Return the clock's seconds, once the device is idle."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()

    def timed(self, steps: Sequence[Callable[[], None]]) -> float:
        """Return the seconds of all `steps` together."""
        start = self.read()
        for step in steps:
            step()
        return self.read() - start


def median(values: Sequence[float]) -> float:
    """Return the median, rounded to what a benchmark can tell."""
    return round(statistics.median(values), 4)
