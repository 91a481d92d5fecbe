"""Whose turn it is."""

from __future__ import annotations

import pytest

from pillsnap.training.schedule import next_task


@pytest.mark.req("INT-1")
@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        pytest.param([1, 1], "dcdcdc", id="1:1"),
        pytest.param([2, 1], "ddcddc", id="2:1"),
        pytest.param([1, 3], "dcccdc", id="1:3"),
    ],
)
def test_interleaving_follows_the_ratio(ratio: list[int], expected: str) -> None:
    both = ["classification", "detection"]
    assert "".join(next_task("interleaved", ratio, step, both)[0] for step in range(6)) == expected


@pytest.mark.req("INT-1")
@pytest.mark.parametrize("left", ["classification", "detection"])
def test_the_other_task_takes_every_turn_when_one_has_finished(left: str) -> None:
    assert {next_task("interleaved", [1, 1], step, [left]) for step in range(4)} == {left}


@pytest.mark.req("INT-2")
def test_sequential_finishes_classification_first() -> None:
    both = ["classification", "detection"]
    assert {next_task("sequential", [1, 1], step, both) for step in range(9)} == {"classification"}
    assert next_task("sequential", [1, 1], 9, ["detection"]) == "detection"


def test_nobodys_turn_is_an_error() -> None:
    with pytest.raises(ValueError, match="no task has steps left"):
        next_task("interleaved", [1, 1], 0, [])
