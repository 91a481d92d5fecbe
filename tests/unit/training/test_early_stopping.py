"""Best and stop, against sequences worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pillsnap.training.early_stopping import early_stopping

pytestmark = pytest.mark.req("VAL-3")


def _judge(values: list[float], **options: Any) -> list[tuple[bool, bool]]:
    state: dict[str, Any] = {}
    found = []
    for value in values:
        state["metrics"] = {"macro_f1": value}
        found.append(early_stopping(state, "macro_f1", **options))
    return found


def test_every_improvement_is_a_best() -> None:
    assert _judge([0.1, 0.3, 0.2, 0.4]) == [(False, True), (False, True), (False, False), (False, True)]


def test_it_stops_after_patience_validations_without_gain() -> None:
    assert [stop for stop, _ in _judge([0.5, 0.4, 0.5, 0.3], patience=3)] == [False, False, False, True]


def test_a_gain_of_min_delta_or_less_is_none() -> None:
    assert [best for _, best in _judge([0.5, 0.55, 0.61], min_delta=0.1)] == [True, False, True]


def test_smaller_is_better_in_mode_min() -> None:
    assert [best for _, best in _judge([0.5, 0.6, 0.4], mode="min")] == [True, False, True]


@pytest.mark.parametrize(
    ("metrics", "options", "error", "says"),
    [
        pytest.param({"acc": 1.0}, {}, KeyError, "macro_f1 is not among", id="not measured"),
        pytest.param({"macro_f1": float("nan")}, {}, ValueError, "needs a finite figure", id="nan"),
        pytest.param({"macro_f1": 0.1}, {"mode": "best"}, ValueError, "wanted max or min", id="mode"),
    ],
)
def test_what_cannot_be_judged_is_an_error(
    metrics: dict[str, float], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        early_stopping({"metrics": metrics}, "macro_f1", **options)
