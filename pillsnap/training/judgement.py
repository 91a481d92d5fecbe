"""What becomes of a validation: a new best or not, and whether the task goes on (VAL-3)."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from pillsnap.training.early_stopping import early_stopping

KEPT = ("best", "bad_epochs", "tie_breaker")


class Judgement:
    """Judges the validations of one task, one after the other."""

    def __init__(self, stopping: DictConfig, monitor: str, tie_breaker: tuple[str, float]) -> None:
        """Begin without a best.

        Args:
            stopping: `train.early_stopping`.
            monitor: The figure to watch.
            tie_breaker: Figure that decides between validations with the same monitored one, and its sign: +1 more is
                better, -1 less.
        """
        self._stopping = stopping
        self._monitor = monitor
        self._tie_breaker = tie_breaker
        self._state: dict[str, Any] = {}

    @property
    def best(self) -> float | None:
        """The best value of the monitored figure so far."""
        return self._state.get("best")

    @property
    def is_patience_over(self) -> bool:
        """Whether too many validations in a row brought no improvement, by today's patience."""
        return bool(self._state.get("bad_epochs", 0) >= self._stopping.patience)

    def judge(self, figures: dict[str, float]) -> tuple[bool, bool]:
        """Return (stop, best): whether training should end, and whether these figures are the best so far."""
        self._state["metrics"] = figures
        stop, is_best = early_stopping(
            self._state, self._monitor, self._stopping.mode, self._stopping.patience, self._stopping.min_delta
        )
        # A monitor that has reached 1.0 says nothing about the epochs after; without a second figure the first of them
        # would win.
        key, sign = self._tie_breaker
        value = sign * figures[key]
        is_tie = figures[self._monitor] == self._state["best"]
        if is_best or (is_tie and value > self._state["tie_breaker"]):
            self._state["tie_breaker"] = value
            is_best = True
        return stop, is_best

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {key: self._state[key] for key in KEPT if key in self._state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._state = dict(state)
