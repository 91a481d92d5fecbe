"""The number of workers: chosen by measurement, with real loaders, and nothing of it stays behind."""

from __future__ import annotations

import logging
import multiprocessing
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pillsnap.errors import InterruptedRunError, OutOfMemoryFloorError
from pillsnap.training.workers import Measurement, autotune_num_workers, choose, usable_candidates
from tests.run.tiny_tasks import Scalars

pytestmark = pytest.mark.req("UTL-12", "WRK-1")


class Sleeping(Dataset[int]):
    """Samples that take as long as `seconds` says for the number of workers."""

    def __init__(self, seconds: Callable[[int], float], length: int = 400) -> None:
        self.seconds = seconds
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        time.sleep(self.seconds(1 if info is None else info.num_workers))
        return index


def equal_cost(num_workers: int) -> float:
    return 0.01


def dear_together(num_workers: int) -> float:
    return 0.005 * num_workers**3


def loaders(
    seconds: Callable[[int], float], *, persistent: bool = True, length: int = 400
) -> Callable[[int], DataLoader[int]]:
    def build(num_workers: int) -> DataLoader[int]:
        dataset = Sleeping(seconds, length)
        return DataLoader(dataset, num_workers=num_workers, persistent_workers=persistent, prefetch_factor=2)

    return build


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    caplog.set_level(logging.INFO, logger="pillsnap")
    return caplog


@pytest.mark.parametrize(("seconds", "expected"), [(equal_cost, 2), (dear_together, 1)])
def test_the_number_whose_loader_delivers_fastest_is_chosen(seconds: Callable[[int], float], expected: int) -> None:
    assert autotune_num_workers(loaders(seconds), [1, 2], warmup=4, steps=12, num_cores=4) == expected


def test_every_figure_and_the_choice_are_told(log: pytest.LogCaptureFixture) -> None:
    tb, told = Scalars(), list[tuple[int, str]]()
    chosen = autotune_num_workers(
        loaders(equal_cost), [1, 2], 2, 6, num_cores=3, tb=tb, on_choice=lambda number, why: told.append((number, why))
    )
    figures = [message for message in log.messages if "mean of 6" in message]
    assert [message.split(":")[0] for message in figures] == ["[workers] 1", "[workers] 2"]
    assert tb.values == [("perf/num_workers", chosen, 0)]
    assert told[0][0] == chosen
    assert "fastest" in told[0][1]


@pytest.mark.parametrize("persistent", [True, False])
def test_no_worker_is_left(persistent: bool) -> None:
    seen: list[int] = []
    build = loaders(equal_cost, persistent=persistent)

    def counting(num_workers: int) -> DataLoader[int]:
        seen.append(len(multiprocessing.active_children()))
        return build(num_workers)

    autotune_num_workers(counting, [1, 2], 1, 2, num_cores=2)
    assert seen == [0, 0]
    assert multiprocessing.active_children() == []


def test_a_loader_with_few_steps_is_begun_again() -> None:
    assert autotune_num_workers(loaders(equal_cost, length=3), [1, 2], warmup=2, steps=8, num_cores=4) in (1, 2)


def test_a_slow_loader_is_compared_over_what_it_does_in_the_time(log: pytest.LogCaptureFixture) -> None:
    started = time.perf_counter()
    autotune_num_workers(loaders(equal_cost), [1, 2], 10_000, 10_000, num_cores=4, limit_s=0.3)
    assert time.perf_counter() - started < 3
    assert log.text.count("mean of") == 2


class Counting:
    """A loader without processes that notes each of its steps."""

    def __init__(self, name: int, steps: list[int]) -> None:
        self.name, self.steps = name, steps

    def __iter__(self) -> Any:
        for _ in range(100):
            self.steps.append(self.name)
            yield self.name


def test_warm_up_and_measurement_take_as_many_steps_as_asked_for() -> None:
    steps: list[int] = []
    autotune_num_workers(lambda number: Counting(number, steps), [2, 5], warmup=3, steps=7, num_cores=8)
    assert [steps.count(2), steps.count(5)] == [10, 10]


def test_a_rehearsal_runs_the_largest_candidate_once_more_before() -> None:
    steps: list[int] = []
    autotune_num_workers(lambda number: Counting(number, steps), [2, 5], 3, 7, num_cores=8, rehearse=True)
    assert steps == [5] * 10 + [2] * 10 + [5] * 10


def test_a_single_candidate_is_taken_without_a_measurement(log: pytest.LogCaptureFixture) -> None:
    def refused(num_workers: int) -> Iterable[Any]:
        raise AssertionError("was asked for a loader")

    assert autotune_num_workers(refused, [4, 8, 12, 16], num_cores=2) == 2
    assert "4, 8, 12, 16 above the 2 cores this process may use: taken as 2" in log.text
    assert "2 workers: the only candidate; not measured" in log.text


@pytest.mark.parametrize(
    ("candidates", "num_cores", "expected"), [([4, 8, 12, 16], 8, [4, 8]), ([16, 4, 4], 32, [4, 16]), ([2], 1, [1])]
)
def test_candidates_are_taken_down_to_the_cores_and_repetitions_dropped(
    candidates: list[int], num_cores: int, expected: list[int]
) -> None:
    assert usable_candidates(candidates, num_cores) == expected


@pytest.mark.parametrize("candidates", [[], [4, 0]])
def test_candidates_that_are_none_are_refused(candidates: list[int]) -> None:
    with pytest.raises(ValueError, match="wanted one or more positive numbers"):
        autotune_num_workers(loaders(equal_cost), candidates)


def measured(**step_ms: float) -> list[Measurement]:
    return [Measurement(int(key[1:]), value / 1000, 100, 1.0) for key, value in step_ms.items()]


@pytest.mark.parametrize(
    ("found", "expected", "why"),
    [
        (measured(w4=20, w8=10, w12=12), 8, "10.0 ms a step, the fastest (4: 20.0 ms, 12: 12.0 ms)"),
        (measured(w4=10.2, w8=10.1, w12=10), 4, "within 3% of the fastest with fewer processes"),
        (measured(w4=10.4, w8=10.2, w12=10), 8, "within 3% of the fastest"),
    ],
    ids=["fastest", "tie of all", "tie of two"],
)
def test_near_ties_go_to_fewer_processes(found: list[Measurement], expected: int, why: str) -> None:
    number, reason = choose(found)
    assert number == expected
    assert why in reason


def failing_above(largest: int, steps: list[int]) -> Callable[[int], Iterable[Any]]:
    def build(num_workers: int) -> Iterable[Any]:
        if num_workers > largest:
            raise RuntimeError("unable to mmap 113246208 bytes from file </torch_1>: Cannot allocate memory (12)")
        return Counting(num_workers, steps)

    return build


def test_a_number_the_memory_has_no_room_for_is_left_out(log: pytest.LogCaptureFixture) -> None:
    assert autotune_num_workers(failing_above(2, []), [2, 4], 1, 3, num_cores=8) == 2
    assert "[workers] 4: left out, its workers ran out of memory (RuntimeError: unable to mmap" in log.text


def test_without_room_for_any_number_the_run_ends() -> None:
    with pytest.raises(OutOfMemoryFloorError, match="with 2, 4 workers alike.*Cannot allocate.*prefetch_factor"):
        autotune_num_workers(failing_above(1, []), [2, 4], num_cores=8)


def test_other_errors_of_a_loader_are_raised() -> None:
    def broken(num_workers: int) -> Iterable[Any]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        autotune_num_workers(broken, [2, 4], num_cores=8)


def test_a_loader_without_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="with 2 workers yields nothing"):
        autotune_num_workers(lambda number: [], [2, 4], num_cores=8)


def test_a_stop_that_was_asked_for_ends_the_measurement() -> None:
    steps: list[int] = []

    def check() -> None:
        if len(steps) == 4:
            raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        autotune_num_workers(lambda number: Counting(number, steps), [2, 4], num_cores=8, on_step=check)
    assert len(steps) == 4


def test_the_random_generators_are_as_before() -> None:
    class Drawing(Counting):
        def __iter__(self) -> Any:
            torch.rand(1)
            random.random()
            return super().__iter__()

    torch.manual_seed(1)
    random.seed(1)
    expected = (torch.rand(1).item(), random.random())
    torch.manual_seed(1)
    random.seed(1)
    autotune_num_workers(lambda number: Drawing(number, []), [2, 4], 1, 1, num_cores=8)
    assert (torch.rand(1).item(), random.random()) == expected
