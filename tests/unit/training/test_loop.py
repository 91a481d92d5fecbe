"""Turns, the time they take, and what ends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from pillsnap.errors import InterruptedRunError
from pillsnap.training import loop
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.loop import LoopState, Turns, train, train_step
from pillsnap.training.schedule import CLASSIFICATION, DETECTION, TaskName
from pillsnap.training.task import Task, ValidationResult

STEP_S, VALIDATION_S = 10.0, 100.0


@dataclass
class Clock:
    """A clock that moves when something is done."""

    now_s: float = 1e6


@dataclass
class FakeTask:
    """A task of one epoch whose steps do nothing but take their time."""

    name: TaskName
    clock: Clock
    num_steps: int = 3
    refusals: list[bool] = field(default_factory=list)
    """What `step` answers before it answers True."""
    steps: int = 0
    fetched: int = 0
    is_finished: bool = False

    @property
    def is_epoch_done(self) -> bool:
        return self.steps == self.num_steps

    def next_samples(self) -> str:
        self.fetched += 1
        return "samples"

    def step(self, batch: str) -> bool:
        self.clock.now_s += STEP_S
        if self.refusals:
            return self.refusals.pop()
        self.steps += 1
        return True

    def validate(self) -> ValidationResult:
        self.clock.now_s += VALIDATION_S
        self.is_finished = True
        return ValidationResult({})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "monotonic", lambda: clock.now_s)
    return clock


def _train(tasks: list[FakeTask], state: LoopState, stop: StopRequest | None = None, **limit: float) -> bool:
    return train(
        [cast(Task, task) for task in tasks],
        Turns("interleaved", (1, 1), **limit),
        state,
        stop or StopRequest(),
        on_epoch=lambda task, result: None,
        on_step=lambda task: None,
    )


def _tasks(clock: Clock) -> list[FakeTask]:
    return [FakeTask(CLASSIFICATION, clock), FakeTask(DETECTION, clock)]


@pytest.mark.req("STG-4")
def test_the_time_of_steps_and_validations_is_added_to_that_of_former_processes(clock: Clock) -> None:
    state = LoopState(step=0, seconds=1000.0)
    assert _train(_tasks(clock), state)
    assert state.step == 6
    assert state.seconds == 1000.0 + 6 * STEP_S + 2 * VALIDATION_S


@pytest.mark.req("STG-4")
def test_a_limit_ends_the_turns_once_it_is_reached(clock: Clock) -> None:
    tasks, state = _tasks(clock), LoopState()
    assert not _train(tasks, state, limit_s=3.5 * STEP_S)
    assert [task.steps for task in tasks] == [2, 2]
    assert not _train(tasks, state, limit_s=3.5 * STEP_S), "no time is left, and no turn is taken"
    assert [task.steps for task in tasks] == [2, 2]
    assert _train(tasks, state)
    assert all(task.is_finished for task in tasks)


@pytest.mark.req("STG-4")
def test_a_limit_reached_with_the_last_turn_ends_nothing(clock: Clock) -> None:
    assert _train([FakeTask(CLASSIFICATION, clock)], LoopState(), limit_s=3 * STEP_S + VALIDATION_S)


@pytest.mark.req("STG-4")
def test_the_time_of_an_interrupted_turn_counts(clock: Clock) -> None:
    stop, state = StopRequest(), LoopState()
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError):
        _train(_tasks(clock), state, stop)
    assert state.seconds == STEP_S


@pytest.mark.req("INT-4")
def test_samples_that_did_not_fit_are_fetched_again_within_the_turn(clock: Clock) -> None:
    task = FakeTask(CLASSIFICATION, clock, refusals=[False, False])
    train_step(cast(Task, task))
    assert (task.fetched, task.steps) == (3, 1)
