import math
from typing import Any

import numpy as np
import pytest

from pillsnap.errors import ConfigError
from pillsnap.gates.go_no_go import STAGE_TARGETS, simple_stage_evaluation

# D-12: accuracy, p95 in ms, coverage, samples, largest drop
SPECIFIED = {
    1: (0.78, 220, 0.20, 2000, 0.02),
    2: (0.82, 220, 0.40, 5000, 0.02),
    3: (0.85, 200, 0.70, 10000, 0.01),
    4: (0.85, 200, 0.70, 10000, 0.01),
}
# Of the smallest accuracy, 0.002 is forgiven.
LOWEST = {1: 0.778, 2: 0.818, 3: 0.848, 4: 0.848}
ALL = [
    "LATENCY_P95_TOO_HIGH",
    "NOT_ENOUGH_SAMPLES",
    "COVERAGE_TOO_LOW",
    "REGRESSION_TOO_LARGE",
    "ACC_BELOW_TARGET",
    "CRASH_DETECTED",
    "MEMORY_UNSTABLE",
]
NAN = math.nan


def just_enough(stage: int, **changes: Any) -> dict[str, Any]:
    _, latency, coverage, samples, _ = SPECIFIED[stage]
    return {
        "latency_p95_ms": latency,
        "n_eval_samples": samples,
        "class_coverage": coverage,
        "accuracy": LOWEST[stage],
        "no_crashes": True,
        "memory_stable": True,
        **changes,
    }


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize("stage", SPECIFIED)
def test_a_stage_has_the_figures_of_the_specification(stage: int) -> None:
    names = ("min_accuracy", "max_latency_ms", "min_coverage", "min_eval_samples", "max_acc_drop")
    assert tuple(STAGE_TARGETS[stage][name] for name in names) == SPECIFIED[stage]
    assert STAGE_TARGETS[stage]["epsilon_acc"] == 0.002


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize("stage", SPECIFIED)
def test_what_is_just_enough_is_a_go(stage: int) -> None:
    assert simple_stage_evaluation(stage, just_enough(stage)) == (True, [])


BROKEN = [
    ("latency_p95_ms", [220.001, NAN, math.inf, None, "90", True, -1.0], ALL[0]),
    ("n_eval_samples", [1999, 1999.9, NAN, None, "5000", True], ALL[1]),
    ("class_coverage", [0.1999, NAN, None, "1", True, 20.0], ALL[2]),
    ("accuracy", [0.7779, math.nextafter(0.778, 0), NAN, None, "0.9", True, 92.0, -0.5], ALL[4]),
    ("no_crashes", [False, None, "true", 1, NAN], ALL[5]),
    ("memory_stable", [False, None, "true", 1, NAN], ALL[6]),
]
ROWS = [(key, value, reason) for key, values, reason in BROKEN for value in values]


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize(("key", "value", "reason"), ROWS, ids=[f"{key}={value!r}" for key, value, _ in ROWS])
def test_one_condition_that_does_not_hold_is_the_one_reason(key: str, value: object, reason: str) -> None:
    assert simple_stage_evaluation(1, just_enough(1, **{key: value})) == (False, [reason])


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize("key", just_enough(1))
def test_a_missing_figure_is_no_go(key: str) -> None:
    results = just_enough(1)
    del results[key]
    go, reasons = simple_stage_evaluation(1, results)
    assert not go
    assert len(reasons) == 1


@pytest.mark.req("GNG-1")
def test_reasons_have_the_order_of_the_specification() -> None:
    assert simple_stage_evaluation(1, {}, {"accuracy": 0.9}) == (False, ALL)


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize(
    ("stage", "accuracy", "before", "reasons"),
    [
        (1, 0.88, 0.90, []),
        (1, 0.8799, 0.90, ["REGRESSION_TOO_LARGE"]),
        (2, 0.83, 0.85, []),
        (3, 0.89, 0.90, []),
        (3, 0.8899, 0.90, ["REGRESSION_TOO_LARGE"]),
        (4, 0.85, 0.86, []),
        (1, 0.778, 0.9, ["REGRESSION_TOO_LARGE"]),
        (1, 0.7, 0.9, ["REGRESSION_TOO_LARGE", "ACC_BELOW_TARGET"]),
        (1, 0.9, NAN, ["REGRESSION_TOO_LARGE"]),
        (1, 0.9, None, ["REGRESSION_TOO_LARGE"]),
    ],
)
def test_accuracy_may_fall_a_little_below_the_baseline(
    stage: int, accuracy: float, before: float | None, reasons: list[str]
) -> None:
    found = simple_stage_evaluation(stage, just_enough(stage, accuracy=accuracy), {"accuracy": before})
    assert found == (not reasons, reasons)


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize("baseline", [None, {}, {"time": "yesterday"}], ids=repr)
def test_without_a_baseline_there_is_nothing_to_fall_behind(baseline: dict[str, Any] | None) -> None:
    assert simple_stage_evaluation(2, just_enough(2), baseline) == (True, [])


def test_figures_of_numpy_count() -> None:
    results = just_enough(1, accuracy=np.float64(0.9), no_crashes=np.True_, n_eval_samples=np.int64(2000))
    assert simple_stage_evaluation(1, results) == (True, [])


@pytest.mark.req("GNG-1")
def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no stage 5"):
        simple_stage_evaluation(5, {})
