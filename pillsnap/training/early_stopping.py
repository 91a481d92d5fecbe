"""When a task stops before its last epoch, and when it has a new best."""

from __future__ import annotations

import math
from typing import Any


def early_stopping(
    state: dict[str, Any], metric_name: str, mode: str = "max", patience: int = 7, min_delta: float = 0.0
) -> tuple[bool, bool]:
    """Judge the newest validation (VAL-3).

    Args:
        state: Carries the newest figures in `metrics`; `best` and `bad_epochs` are kept in it between calls.
        metric_name: The figure to watch, a key of `state["metrics"]`.
        mode: `max` when larger is better, `min` when smaller is.
        patience: Stop after this many validations in a row without an improvement.
        min_delta: An improvement must be larger than this.

    Returns:
        (stop, best): whether training should end, and whether this validation is the best so far.

    Raises:
        KeyError: The figure was not measured.
        ValueError: The figure is not finite, or `mode` is unknown.
    """
    if metric_name not in state["metrics"]:
        raise KeyError(f"{metric_name} is not among the validation figures: {sorted(state['metrics'])}.")
    if mode not in ("max", "min"):
        raise ValueError(f"early_stopping mode is {mode!r}; wanted max or min.")
    value = float(state["metrics"][metric_name])
    if not math.isfinite(value):
        raise ValueError(f"{metric_name} is {value}; early stopping needs a finite figure.")
    best = state.get("best")
    gain = math.inf if best is None else (value - best if mode == "max" else best - value)
    is_best = gain > min_delta
    state["best"] = value if is_best else best
    state["bad_epochs"] = 0 if is_best else state.get("bad_epochs", 0) + 1
    return state["bad_epochs"] >= patience, is_best
