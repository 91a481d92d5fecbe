"""Rounds and ratios from the times of turns."""

from __future__ import annotations

import pytest

from benchmarks.rounds import Plan, RoundKeeper, RoundTimes, median


def test_a_round_is_the_sum_of_its_turns_and_the_warm_up_does_not_count() -> None:
    heard: list[int] = []
    keeper = RoundKeeper(Plan(rounds=2, steps=4, turn_steps=2), heard.append)
    seconds = iter(range(1, 100))
    while not keeper.is_done:
        keeper.record({"ours": float(next(seconds))})
    assert keeper.times.seconds == {"ours": [3.0 + 4.0, 5.0 + 6.0]}
    assert heard == [0, 1, 2]


def test_turns_are_taken_in_reversed_order_every_other_time() -> None:
    order: list[str] = []
    keeper = RoundKeeper(Plan(rounds=1, steps=2, turn_steps=1, warmup_rounds=0), lambda number: None)

    def turn(name: str) -> float:
        order.append(name)
        return 1.0

    for _ in range(2):
        keeper.take({"a": lambda: turn("a"), "b": lambda: turn("b")})
    assert order == ["a", "b", "b", "a"]
    assert keeper.is_done


def test_a_ratio_above_one_means_ours_is_faster_and_a_cost_is_what_ours_takes_more() -> None:
    times = RoundTimes()
    times.add({"ours": 2.0, "peer": 3.0, "without": 1.6})
    assert times.ratios("ours", "peer") == [1.5]
    assert times.cost_percent("ours", "without") == [pytest.approx(25.0)]


def test_the_total_ratio_has_every_round_in() -> None:
    times = RoundTimes()
    times.add({"ours": 1.0, "peer": 1.0})
    times.add({"ours": 3.0, "peer": 1.0})
    assert times.total_ratio("ours", "peer") == 0.5


def test_one_disturbed_round_does_not_move_the_median() -> None:
    assert median([1.0, 1.01, 9.0]) == 1.01
