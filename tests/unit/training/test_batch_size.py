"""The search for a batch size: what it runs, in which order, and what it answers."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import DeviceMemory
from pillsnap.training import batch_size
from pillsnap.training.batch_size import BatchSizeSearch, Candidate, Measured, auto_find_batch_size

SIZES = [1, 2, 4, 8, 16, 32, 64]
RISING = {1: 10.0, 2: 20.0, 4: 40.0, 8: 70.0, 16: 98.0, 32: 100.0, 64: 101.0}  # images/s, as on a GPU


class _Machine:
    """A device with its own clock on which sizes up to `room` fit, at given speeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: float, speeds: Callable[[int], float]) -> None:
        self.now = 0.0
        self.room = room
        self.speeds = speeds
        self.steps: list[int] = []
        monkeypatch.setattr(batch_size, "monotonic", lambda: self.now)
        monkeypatch.setattr(batch_size, "free_memory", lambda: None)  # a tenth of a second, and nothing to free

    def step(self, size: int) -> None:
        """Do one training step."""
        self.steps.append(size)
        self.now += size / self.speeds(size)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def probe(self, size: int) -> Measured:
        self.step(size)
        return Measured(self.speeds(size))

    def search(self, init: int, limit_s: float = 60.0) -> tuple[int | None, list[int]]:
        """Return the answer and the sizes that were run, in order."""
        seen: list[Candidate] = []
        search = BatchSizeSearch(SIZES, init, self.probe, on_candidate=seen.append, limit_s=limit_s)
        answer = search.run()
        assert [candidate.size for candidate in seen] == self.steps
        assert [candidate.fits for candidate in seen] == [size <= self.room for size in self.steps]
        return (None if answer is None else answer.size), self.steps


@pytest.mark.req("BAT-1", "BAT-3")
@pytest.mark.parametrize("init", SIZES)
@pytest.mark.parametrize("room", [0, *SIZES])
def test_wherever_memory_ends_the_answer_was_run_and_fits(
    monkeypatch: pytest.MonkeyPatch, room: int, init: int
) -> None:
    answer, tried = _Machine(monkeypatch, room, RISING.__getitem__).search(init)
    best = max((RISING[size] for size in SIZES if size <= room), default=None)
    expected = None if best is None else min(size for size in SIZES if size <= room and RISING[size] >= 0.97 * best)
    assert answer == expected
    assert answer is None or answer in tried
    assert len(tried) == len(set(tried)), "no size is run twice"


@pytest.mark.req("BAT-1")
def test_it_goes_up_until_it_fails_and_never_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Machine(monkeypatch, 16, RISING.__getitem__).search(4) == (16, [4, 8, 16, 32])


@pytest.mark.req("BAT-1")
def test_after_a_failure_it_goes_down_and_only_down(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Machine(monkeypatch, 8, RISING.__getitem__).search(64) == (8, [64, 32, 16, 8, 4])


@pytest.mark.req("BAT-1")
def test_it_goes_down_as_long_as_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {64: 100.0, 32: 100.0, 16: 98.0, 8: 97.1, 4: 96.9, 2: 200.0, 1: 200.0}
    assert _Machine(monkeypatch, 64, speeds.__getitem__).search(64) == (8, [64, 32, 16, 8, 4])


@pytest.mark.req("BAT-3")
def test_a_size_that_fails_later_rules_out_larger_ones_that_had_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 64, lambda size: 100.0)

    def probe(size: int) -> Measured:
        machine.room = {16: 15, 8: 15}.get(size, 64)  # another program takes memory from the third size on
        return machine.probe(size)

    answer = BatchSizeSearch([8, 16, 32, 64], 64, probe, on_candidate=lambda candidate: None).run()
    assert machine.steps == [64, 32, 16, 8]
    assert answer is not None
    assert answer.size == 8


@pytest.mark.req("BAT-1")
def test_when_time_is_up_the_best_so_far_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Machine(monkeypatch, 64, lambda size: 6.4).search(64, limit_s=20) == (32, [64, 32])


@pytest.mark.req("BAT-1")
def test_a_candidate_that_would_not_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 64, lambda size: 6.4)
    assert machine.search(64, limit_s=19)[1] == [64]
    assert machine.now < 19


@pytest.mark.req("BAT-3")
def test_time_never_ends_a_search_before_something_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Machine(monkeypatch, 2, RISING.__getitem__).search(64, limit_s=0) == (2, [64, 32, 16, 8, 4, 2])


@pytest.mark.req("BAT-2")
def test_the_reason_names_speed_failure_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 32, RISING.__getitem__)
    search = BatchSizeSearch(SIZES, 64, machine.probe, on_candidate=lambda candidate: None, limit_s=1.5)
    search.run()
    assert search.reason() == (
        "the smallest of those run with at least 97% of the best speed, 100.0 images/s at 32; 64 does not fit; the "
        "time for the search was up"
    )


@pytest.mark.req("BAT-2")
def test_a_candidate_is_described_with_speed_memory_and_time() -> None:
    assert str(Candidate(8, 3.14, 412.34, 11_200_000_000)) == "412.3 images/s, peak memory 11.20 GB, 3.1 s"
    assert str(Candidate(8, 3.14, 412.34)) == "412.3 images/s, peak memory not measured, 3.1 s"
    assert str(Candidate(8, 3.14, reason="MemoryError: ")) == "does not fit (MemoryError: ), 3.1 s"


@pytest.mark.req("BAT-1", "OOM-6")
@pytest.mark.parametrize("error", [ValueError("shape"), RuntimeError("shape"), KeyboardInterrupt()], ids=repr)
def test_any_other_error_ends_the_search_at_once(error: BaseException) -> None:
    steps = []

    def probe(size: int) -> Measured:
        steps.append(size)
        raise error

    with pytest.raises(type(error)):
        BatchSizeSearch(SIZES, 64, probe, on_candidate=lambda candidate: None).run()
    assert steps == [64]


@pytest.mark.req("BAT-1", "OOM-6")
def test_what_a_library_cannot_run_at_one_size_may_run_at_a_smaller_one() -> None:
    def probe(size: int) -> Measured:
        if size > 8:
            raise RuntimeError("could not create a primitive")
        return Measured(float(size))

    answer = BatchSizeSearch(SIZES, 64, probe, on_candidate=lambda candidate: None).run()
    assert answer is not None
    assert answer.size == 8


@pytest.mark.req("UTL-11", "BAT-3")
@pytest.mark.parametrize("room", range(1, 70, 3))
def test_auto_find_answers_a_size_it_ran_that_fits(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    machine = _Machine(monkeypatch, room, lambda size: 10.0 * size)
    found = auto_find_batch_size(machine.step, 8, 1, 48)
    assert found == max(size for size in (1, 2, 4, 8, 16, 32, 48) if size <= room)
    assert machine.steps.count(found) == 1 + batch_size.TIMED_CALLS, "one to warm up, then timed ones"


@pytest.mark.req("UTL-11")
def test_without_an_upper_limit_growth_ends_when_it_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, float("inf"), lambda size: float(min(size, 100)))
    assert auto_find_batch_size(machine.step, 4) == 128
    assert max(machine.steps) == 256, "one doubling that gains nothing shows that it is over"


@pytest.mark.req("UTL-11")
def test_without_an_upper_limit_growth_ends_when_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 300, lambda size: float(size))
    assert auto_find_batch_size(machine.step, 4) == 256
    assert max(machine.steps) == 512


@pytest.mark.req("UTL-11")
def test_the_smallest_size_is_tried_before_giving_up(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 4, lambda size: float(size))
    with pytest.raises(
        OutOfMemoryFloorError, match=r"every batch size from 12 down to min_bs = 5. Last: OutOfMemoryError: CUDA out"
    ):
        auto_find_batch_size(machine.step, 12, 5)
    assert machine.steps == [12, 6, 5]


@pytest.mark.req("UTL-11")
def test_a_failing_step_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine(monkeypatch, 4, lambda size: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        auto_find_batch_size(machine.step, 12)
    assert machine.steps == [12]


@pytest.mark.req("UTL-11")
@pytest.mark.parametrize(
    ("init_bs", "min_bs", "max_bs"), [(4, 5, None), (4, 1, 3), (4, 0, None), (0, 0, None), (-4, -8, 4)]
)
def test_sizes_that_make_no_sense_are_refused(init_bs: int, min_bs: int, max_bs: int | None) -> None:
    with pytest.raises(ValueError, match=f"got min_bs={min_bs}, init_bs={init_bs}, max_bs={max_bs}; wanted whole"):
        auto_find_batch_size(lambda size: None, init_bs, min_bs, max_bs)


@pytest.mark.req("UTL-11")
@pytest.mark.parametrize("is_forced", [True, False])
def test_steps_can_be_forced_to_float16(is_forced: bool) -> None:
    types = set()

    def step(size: int) -> None:
        types.add(torch.mm(torch.ones(size, 2), torch.ones(2, 2)).dtype)

    auto_find_batch_size(step, 1, 1, 1, is_forced)
    assert types == {torch.float16 if is_forced else torch.float32}


@pytest.mark.req("BAT-2")
def test_every_candidate_and_the_reason_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    caplog.set_level(logging.INFO, "pillsnap")
    auto_find_batch_size(_Machine(monkeypatch, 8, lambda size: 10.0 * size).step, 8, 8, 16)
    assert [line.split(" (")[0] for line in caplog.messages] == [
        "[auto batch] 8: 80.0 images/s, peak memory not measured, 0.4 s",
        "[auto batch] 16: does not fit",
        "[auto batch] 8: the smallest of those run with at least 97% of the best speed, 80.0 images/s at 8; "
        "16 does not fit",
    ]


@pytest.mark.req("UTL-11", "BAT-1")
def test_a_real_allocation_that_fails_is_found() -> None:
    steps = []

    def step(size: int) -> None:
        steps.append(size)
        torch.empty(size * 1_000_000_000, dtype=torch.uint8)

    with DeviceMemory(torch.device("cpu"), limit_gb=20).enforced(0.88):
        found = auto_find_batch_size(step, 1, 1, 32)
    assert max(steps) == 32, "which do not fit into 17.6"
    assert found in steps
    assert found <= 16


@pytest.mark.req("BAT-1", "INT-4")
def test_a_backward_pass_that_failed_on_a_cpu_keeps_no_activations() -> None:
    """PyTorch keeps what the pass had still to do until the next one of the same thread."""
    kept: list[weakref.ref[torch.Tensor]] = []

    class OutOfMemoryInBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def probe(size: int) -> Measured:
        if size == 2:
            start = torch.ones(4, requires_grad=True)
            activation = start.exp()
            kept.append(weakref.ref(activation))
            branch = activation * activation
            (branch + OutOfMemoryInBackward.apply(start)).sum().backward()
        assert all(activation() is None for activation in kept)
        return Measured(1.0)

    answer = BatchSizeSearch([1, 2], 2, probe, on_candidate=lambda candidate: None).run()
    assert answer is not None
    assert answer.size == 1
