"""Steps and their samples: what an epoch visits, in which cut, and from where it goes on."""

from __future__ import annotations

import numpy as np
import pytest

from pillsnap.data.samplers import OrderedSampler, StepSampler
from pillsnap.data.sampling import SamplingPlan


def _sampler(num_samples: int, *, drop_last: bool = True, batch_size: int = 4, accum: int = 2) -> StepSampler:
    return StepSampler(
        num_samples, batch_size=batch_size, grad_accum_steps=accum, drop_last=drop_last, seed=1, task="classification"
    )


def _positions(sampler: StepSampler) -> list[list[int]]:
    return [[position for _, position, _ in step] for step in sampler]


@pytest.mark.req("LOP-3")
@pytest.mark.parametrize(
    ("num_samples", "drop_last", "expected"),
    [
        pytest.param(16, True, [8, 8], id="even"),
        pytest.param(22, True, [8, 8, 4], id="a partial group keeps its whole micro-batches"),
        pytest.param(22, False, [8, 8, 6], id="nothing dropped"),
        pytest.param(3, True, [3], id="smaller than one micro-batch"),
    ],
)
def test_the_last_partial_group_is_not_lost(num_samples: int, drop_last: bool, expected: list[int]) -> None:
    sampler = _sampler(num_samples, drop_last=drop_last)
    assert [len(step) for step in sampler] == expected
    assert len(sampler) == len(expected)


def test_an_epoch_visits_every_sample_once_in_its_own_order() -> None:
    sampler = _sampler(16)
    first = _positions(sampler)
    assert sorted(position for step in first for position in step) == list(range(16))
    sampler.set_position(1)
    assert _positions(sampler) != first


@pytest.mark.req("CKP-3")
def test_going_on_inside_an_epoch_skips_what_was_done_without_visiting_it() -> None:
    sampler = _sampler(22)
    whole = _positions(sampler)
    sampler.set_position(0, start_sample=2 * sampler.step_size)
    assert _positions(sampler) == whole[2:]


def test_the_epoch_travels_with_every_key() -> None:
    sampler = _sampler(8)
    sampler.set_position(5)
    assert {epoch for step in sampler for epoch, _, _ in step} == {5}


def test_the_cut_does_not_change_the_order() -> None:
    one, other = _sampler(16, batch_size=2, accum=4), _sampler(16, batch_size=8, accum=1)
    assert _positions(one) == _positions(other)


def test_evaluation_covers_everything_in_order() -> None:
    sampler = OrderedSampler(7, 3)
    assert [[position for _, position, _ in batch] for batch in sampler] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(sampler) == 3


def test_a_repeated_sample_is_told_apart_by_its_turn() -> None:
    labels, is_combo = np.array([0, 0, 0, 0, 0, 1]), np.zeros(6, np.bool_)
    plan = SamplingPlan(labels, is_combo, balance=True)
    sampler = StepSampler(6, batch_size=2, grad_accum_steps=1, drop_last=True, seed=1, task="classification", plan=plan)
    keys = [key for step in sampler for key in step]
    assert sorted(turn for _, position, turn in keys if position == 5) == [0, 1, 2]
    assert len(set(keys)) == 6


def test_a_natural_plan_changes_nothing() -> None:
    plan = SamplingPlan(np.zeros(16, np.int64), np.zeros(16, np.bool_))
    planned = StepSampler(
        16, batch_size=4, grad_accum_steps=2, drop_last=True, seed=1, task="classification", plan=plan
    )
    assert list(planned) == list(_sampler(16))
