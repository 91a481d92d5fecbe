"""The simple go or no-go of a stage (D-12): seven conditions, and the reason of each that does not hold.

A figure that is missing, NaN, out of its range or of the wrong type never leads to a go.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from pillsnap.gates.numbers import exact
from pillsnap.gates.targets import require_stage

STAGE_TARGETS: dict[int, dict[str, float]] = {
    1: {
        "min_accuracy": 0.78,
        "max_latency_ms": 220,
        "min_coverage": 0.20,
        "min_eval_samples": 2000,
        "max_acc_drop": 0.02,
        "epsilon_acc": 0.002,
    },
    2: {
        "min_accuracy": 0.82,
        "max_latency_ms": 220,
        "min_coverage": 0.40,
        "min_eval_samples": 5000,
        "max_acc_drop": 0.02,
        "epsilon_acc": 0.002,
    },
    3: {
        "min_accuracy": 0.85,
        "max_latency_ms": 200,
        "min_coverage": 0.70,
        "min_eval_samples": 10000,
        "max_acc_drop": 0.01,
        "epsilon_acc": 0.002,
    },
    4: {
        "min_accuracy": 0.85,
        "max_latency_ms": 200,
        "min_coverage": 0.70,
        "min_eval_samples": 10000,
        "max_acc_drop": 0.01,
        "epsilon_acc": 0.002,
    },
}
"""What each stage asks for (D-12): shares 0..1, milliseconds, numbers of samples."""

LATENCY = "LATENCY_P95_TOO_HIGH"
SAMPLES = "NOT_ENOUGH_SAMPLES"
COVERAGE = "COVERAGE_TOO_LOW"
REGRESSION = "REGRESSION_TOO_LARGE"
ACCURACY = "ACC_BELOW_TARGET"
CRASH = "CRASH_DETECTED"
MEMORY = "MEMORY_UNSTABLE"


def simple_stage_evaluation(
    stage: int, results: Mapping[str, Any], baseline: Mapping[str, Any] | None = None
) -> tuple[bool, list[str]]:
    """Decide whether a stage may be left, by the conditions of D-12 (GNG-1).

    Boundaries are exact in decimal: an accuracy of 0.778 passes 0.78 less 0.002.

    Args:
        stage: 1 to 4.
        results: `latency_p95_ms`, `n_eval_samples`, `class_coverage` (0..1), `accuracy` (0..1), `no_crashes`,
            `memory_stable`.
        baseline: `accuracy` of the run to compare with; None, or without that key: nothing to fall behind.

    Returns:
        Whether it is a go, and the codes of the conditions that do not hold, in the order of the specification.

    Raises:
        ConfigError: There is no such stage.
    """
    bounds = {name: exact(bound) or Fraction(0) for name, bound in STAGE_TARGETS[require_stage(stage)].items()}
    accuracy = _share(results.get("accuracy"))
    conditions = {
        LATENCY: _is_at_most(results.get("latency_p95_ms"), bounds["max_latency_ms"]),
        SAMPLES: _reaches(exact(results.get("n_eval_samples")), bounds["min_eval_samples"]),
        COVERAGE: _reaches(_share(results.get("class_coverage")), bounds["min_coverage"]),
        REGRESSION: _holds_against(baseline, accuracy, bounds["max_acc_drop"]),
        ACCURACY: _reaches(accuracy, bounds["min_accuracy"] - bounds["epsilon_acc"]),
        CRASH: _is_true(results.get("no_crashes")),
        MEMORY: _is_true(results.get("memory_stable")),
    }
    reasons = [code for code, holds in conditions.items() if not holds]
    return not reasons, reasons


def _share(value: object) -> Fraction | None:
    """Return a value of 0..1; 92 for 92 % is not taken for a share."""
    number = exact(value)
    return number if number is not None and 0 <= number <= 1 else None


def _reaches(number: Fraction | None, bound: Fraction) -> bool:
    return number is not None and number >= bound


def _is_at_most(value: object, bound: Fraction) -> bool:
    number = exact(value)
    return number is not None and 0 <= number <= bound


def _holds_against(baseline: Mapping[str, Any] | None, accuracy: Fraction | None, max_drop: Fraction) -> bool:
    """Tell whether the accuracy is not too far below the baseline's; one that cannot be read proves nothing."""
    if not baseline or "accuracy" not in baseline:
        return True
    before = _share(baseline["accuracy"])
    return before is not None and (accuracy or Fraction(0)) >= before - max_drop


def _is_true(value: object) -> bool:
    return isinstance(value, bool | np.bool_) and bool(value)
