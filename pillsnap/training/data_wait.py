"""Why steps wait for data, and which setting would help: worked out from what the loaders' workers say of their work.

Every batch tells how long its samples took to read, to decode and to turn into views, and how much processor time that
was. A window is the steps between two detailed log lines. The wait is the host's: a GPU with steps in its queue may not
have stood still for all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pillsnap.data.batches import LoadStats
from pillsnap.training.recovery import Decide
from pillsnap.training.telemetry import TBWriter

Reason = Literal["decode", "disk", "cores", "view", "bursts"]

TOLERATED_SHARE = 0.05
"""Of the time of the steps, waiting for data; more is reported."""
OFF_CORE_SHARE = 0.25
"""Of the time samples were loaded, neither computing nor reading: the process had no core. Less is the usual jitter."""
BUSY_SHARE = 0.7
"""Of the time of the steps, workers loading samples; with less, they could have delivered more than was asked for."""
WARMUP_STEPS = 10  # workers start, queues fill, libraries choose their algorithms

NUM_WORKERS = "dataloader.num_workers"
PREFETCH = "dataloader.prefetch_factor"
CACHE_POLICY = "dataloader.ram_optimization.cache_policy"
USE_LMDB = "dataloader.ram_optimization.use_lmdb"


@dataclass(slots=True, kw_only=True)
class Window:
    """What some steps in a row took."""

    epoch: int
    """From 0."""
    steps: int = 0
    data_s: float = 0.0
    """Waiting for samples."""
    compute_s: float = 0.0
    load: LoadStats = field(default_factory=LoadStats)
    """What loading these samples took, summed over the workers."""

    @property
    def wait_share(self) -> float:
        """Share of the steps' time spent waiting for data, 0..1."""
        seconds = self.data_s + self.compute_s
        return self.data_s / seconds if seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSetup:
    """What the loading of samples has to work with."""

    num_workers: int
    """Of one loader; 0: the training process loads."""
    num_loaders: int = 1
    """At work at the same time."""
    num_cores: int
    prefetch_factor: int = 1
    cache_policy: str = "none"
    use_lmdb: bool = False
    augment_key: str = "train.classification.augment"
    """The setting of the random views."""

    @property
    def num_processes(self) -> int:
        """Processes that load samples, over all loaders."""
        return max(1, self.num_workers * self.num_loaders)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why steps wait, and what to do."""

    reason: Reason
    text: str
    """The figures it was concluded from, and the advice."""
    key: str
    """The setting that would help."""
    value: int | str | bool | None
    """What to set it to; None: `text` says how."""

    @property
    def setting(self) -> str:
        """`key=value`, or the key alone."""
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return self.key if value is None else f"{self.key}={value}"


@dataclass(frozen=True, slots=True)
class _Shares:
    """Parts of the time samples were loaded, 0..1."""

    read: float
    decode: float
    view: float
    cpu: float
    off_core: float
    from_store: float
    """Of the parts of pictures."""

    @classmethod
    def of(cls, load: LoadStats) -> _Shares:
        waited_s = max(0.0, load.wall_s - load.cpu_s - load.read_s)
        num_parts = sum(load.hits.values())
        return cls(
            read=load.read_s / load.wall_s,
            decode=load.decode_s / load.wall_s,
            view=load.view_s / load.wall_s,
            cpu=load.cpu_s / load.wall_s,
            off_core=waited_s / load.wall_s,
            from_store=load.hits.get("store", 0) / num_parts if num_parts else 0.0,
        )


def diagnose(window: Window, setup: LoaderSetup) -> Diagnosis | None:
    """Say why the steps of a window waited for data; a pure function.

    Args:
        window: What they took.
        setup: What loading has to work with.

    Returns:
        None where the wait is tolerable, or the batches do not say what loading them took.
    """
    if window.wait_share <= TOLERATED_SHARE or window.load.wall_s <= 0:
        return None
    shares = _Shares.of(window.load)
    reason = _reason(window, setup, shares)
    advice, key, value = _ADVICE[reason](window, setup, shares)
    workers = f"{setup.num_processes} worker processes" if setup.num_workers else "the training process"
    text = (
        f"{window.wait_share:.1%} of the time of {window.steps} steps was waiting for data. Reason: {reason}. While "
        f"loading samples, {workers} on {setup.num_cores} cores computed {shares.cpu:.0%} of the time (reading "
        f"{shares.read:.0%}, decoding {shares.decode:.0%}, views {shares.view:.0%}); {shares.from_store:.0%} of the "
        f"pictures came from the store. {advice}"
    )
    return Diagnosis(reason, text, key, value)


def _reason(window: Window, setup: LoaderSetup, shares: _Shares) -> Reason:
    seconds = window.data_s + window.compute_s
    if setup.num_workers and window.load.wall_s < BUSY_SHARE * setup.num_workers * seconds:
        return "bursts"
    if shares.off_core > OFF_CORE_SHARE:
        return "cores"
    parts: dict[Reason, float] = {"disk": shares.read, "decode": shares.decode, "view": shares.view}
    return max(parts, key=lambda reason: parts[reason])


_Advice = tuple[str, str, int | str | bool | None]


def _more_workers(setup: LoaderSetup) -> _Advice | None:
    """Advise more workers where cores are left for them."""
    number = setup.num_cores // setup.num_loaders
    if number <= setup.num_workers or (setup.num_workers == 0 and setup.num_cores == 1):
        return None
    return f"There are cores for more workers: set {NUM_WORKERS}={number}.", NUM_WORKERS, number


def _store(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice | None:
    """Advise to keep decoded pixels where that is not done, or not for enough of them."""
    if setup.cache_policy == "none" and not setup.use_lmdb:
        return f"Keep what was decoded: set {CACHE_POLICY}=auto.", CACHE_POLICY, "auto"
    has_room_in_lmdb = setup.cache_policy == "hotset" and not setup.use_lmdb  # no other policy may be combined with it
    if window.epoch == 0 and shares.from_store < 1:
        advice = "The first epoch fills the store of decoded pictures"
        if has_room_in_lmdb:
            return f"{advice}; if the second waits too, set {USE_LMDB}=true.", USE_LMDB, True
        return f"{advice}; there is nothing to change unless the second waits too.", CACHE_POLICY, None
    if has_room_in_lmdb:
        return f"The hot set is too small for the pictures: set {USE_LMDB}=true for the rest.", USE_LMDB, True
    return None


def _decode(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice:
    fallback = "All cores decode what the store has no room for: give it more disk or memory.", CACHE_POLICY, None
    return _more_workers(setup) or _store(window, setup, shares) or fallback


def _disk(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice:
    return _store(window, setup, shares) or ("Put the data set on a faster disk.", "data.root", None)


def _cores(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice:
    waited = f"For {shares.off_core:.0%} of that time they had no core."
    if setup.num_processes > setup.num_cores:
        number = max(1, setup.num_cores // setup.num_loaders)
        return f"{waited} More processes than cores: set {NUM_WORKERS}={number}.", NUM_WORKERS, number
    return f"{waited} Other programs, or training itself, take the cores: end what need not run.", NUM_WORKERS, None


def _view(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice:
    weaker = f"All cores make random views: weaker {setup.augment_key} or a smaller image_size would help."
    return _more_workers(setup) or (weaker, setup.augment_key, None)


def _bursts(window: Window, setup: LoaderSetup, shares: _Shares) -> _Advice:
    number = 2 * setup.prefetch_factor
    advice = "The workers had time left, so waits come in bursts, as at the beginning of an epoch: set"
    return f"{advice} {PREFETCH}={number}.", PREFETCH, number


_ADVICE: dict[Reason, Callable[[Window, LoaderSetup, _Shares], _Advice]] = {
    "decode": _decode,
    "disk": _disk,
    "cores": _cores,
    "view": _view,
    "bursts": _bursts,
}


class DataWait:
    """Watches how long the steps of one task wait for data, and reports each reason once an epoch."""

    def __init__(
        self,
        setup: LoaderSetup,
        *,
        label: str,
        prefix: str,
        logger: logging.Logger,
        tb: TBWriter,
        decide: Decide,
        warmup_steps: int = 0,
    ) -> None:
        """Begin the first window.

        Args:
            setup: What loading has to work with.
            label: Leads log lines.
            prefix: Leads TensorBoard tags.
            logger: Gets the reports.
            tb: Gets `perf/data_wait_share` of every window.
            decide: Told of what is reported, for the report page.
            warmup_steps: First steps left out beside the usual ones (compilation).
        """
        self._setup = setup
        self._label, self._prefix = label, prefix
        self._logger, self._tb, self._decide = logger, tb, decide
        self._warmup_left = max(WARMUP_STEPS, warmup_steps)
        self._window = Window(epoch=0)
        self._reported: set[tuple[int, Reason]] = set()
        self._found: dict[Reason, tuple[int, float, str]] = {}

    def add(self, data_s: float, compute_s: float, load: LoadStats) -> None:
        """Take in one step."""
        if self._warmup_left > 0:
            self._warmup_left -= 1
            return
        self._window.steps += 1
        self._window.data_s += data_s
        self._window.compute_s += compute_s
        self._window.load.add(load)

    def close_window(self, epoch: int, step: int) -> None:
        """End the window, report what it shows, and begin the next one.

        Args:
            epoch: Of the last step, from 0.
            step: Its number, for TensorBoard.
        """
        window, self._window = self._window, Window(epoch=epoch)
        if not window.steps:
            return
        window.epoch = epoch
        self._tb.add_scalar(f"{self._prefix}perf/data_wait_share", window.wait_share, step)
        diagnosis = diagnose(window, self._setup)
        if diagnosis is None:
            return
        times, worst, _ = self._found.get(diagnosis.reason, (0, 0.0, ""))
        self._found[diagnosis.reason] = (times + 1, max(worst, window.wait_share), diagnosis.setting)
        if (epoch, diagnosis.reason) in self._reported:
            return
        self._reported.add((epoch, diagnosis.reason))
        self._logger.warning("[%s] step %d: %s", self._label, step, diagnosis.text)
        self._decide(
            f"{self._label}: data wait", f"{TOLERATED_SHARE:.0%} at most", f"{window.wait_share:.1%}", diagnosis.text
        )

    def facts(self) -> dict[str, Any]:
        """Return, for each reason, in how many windows it was found, the largest share, and the setting that helps."""
        return {
            reason: {"windows": times, "largest_share": worst, "setting": setting}
            for reason, (times, worst, setting) in self._found.items()
        }
