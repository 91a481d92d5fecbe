from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillsnap.data.randomness import epoch_order
from pillsnap.data.sampling import SamplingPlan, epoch_samples, occurrences
from pillsnap.errors import DataError

pytestmark = pytest.mark.req("PRC-6")

LABELS = np.repeat([0, 1, 4], [900, 90, 10]).astype(np.int32)
CROPS = np.arange(1000) % 10 == 0


def plan(*, balance: bool = False, combo_share: float | None = None) -> SamplingPlan:
    return SamplingPlan(LABELS, CROPS, balance, combo_share)


def counts(positions: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    return [int((LABELS[positions] == label).sum()) for label in range(5)]


def test_the_natural_order_is_the_epochs_own_bit_for_bit() -> None:
    assert plan().order(42, "classification", 3).tolist() == epoch_order(1000, 42, "classification", 3).tolist()
    assert epoch_samples(1000, 42, "x", 3).tolist() == epoch_order(1000, 42, "x", 3).tolist()


def test_in_a_balanced_epoch_every_class_has_the_same_number_of_places() -> None:
    found = counts(plan(balance=True).order(42, "classification", 0))
    assert sorted(found) == [0, 0, 333, 333, 334]
    assert found[2:4] == [0, 0]


def test_the_place_left_over_goes_to_another_class_in_another_epoch() -> None:
    epochs = [counts(plan(balance=True).order(42, "classification", epoch)) for epoch in range(30)]
    assert {found.index(334) for found in epochs} == {0, 1, 4}


def test_no_sample_of_a_class_comes_twice_before_another_came_once() -> None:
    times = np.bincount(plan(balance=True).order(1, "classification", 0), minlength=1000)
    for label in (0, 1, 4):
        of_class = times[label == LABELS]
        assert of_class.max() - of_class.min() <= 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.333, 0.9, 1.0])
@pytest.mark.parametrize("balance", [False, True])
def test_crops_of_combinations_get_their_share(share: float, balance: bool) -> None:
    order = plan(balance=balance, combo_share=share).order(42, "classification", 0)
    assert len(order) == 1000
    assert abs(CROPS[order].sum() - share * 1000) <= 1


def test_repeated_crops_occur_equally_often() -> None:
    order = plan(combo_share=0.5).order(42, "classification", 0)
    assert set(np.bincount(order, minlength=1000)[CROPS]) == {5}


def test_left_out_singles_change_from_epoch_to_epoch() -> None:
    first, second = (plan(combo_share=0.5).order(42, "classification", epoch) for epoch in (0, 1))
    assert len(set(first)) == 600
    assert set(first) != set(second)


@given(seed=st.integers(0, 9), epoch=st.integers(0, 9), balance=st.booleans(), share=st.sampled_from([None, 0.2]))
@settings(max_examples=30, deadline=None)
def test_an_order_is_a_pure_function_of_seed_task_and_epoch(
    seed: int, epoch: int, balance: bool, share: float | None
) -> None:
    made = plan(balance=balance, combo_share=share)
    order = made.order(seed, "classification", epoch)
    assert order.tolist() == pickle.loads(pickle.dumps(made)).order(seed, "classification", epoch).tolist()
    assert order.tolist() != made.order(seed, "classification", epoch + 1).tolist()
    assert order.tolist() != made.order(seed + 1, "classification", epoch).tolist()


def test_orders_are_plain_arrays() -> None:
    order = plan(balance=True, combo_share=0.3).order(42, "classification", 0)
    assert (order.dtype.name, order.nbytes) == ("int64", 8000)


@pytest.mark.parametrize(("crops", "share", "text"), [(0, 0.2, "a crop of a combination"), (5, 0.2, "a single")])
def test_a_share_that_cannot_be_met_is_an_error(crops: int, share: float, text: str) -> None:
    is_crop = np.arange(5) < crops
    with pytest.raises(DataError, match=f"combo_share is 0.2, but none of the 5 pills to train on is {text}"):
        SamplingPlan(np.zeros(5, np.int32), is_crop, combo_share=share)


def test_a_plan_without_samples_has_empty_epochs() -> None:
    empty = SamplingPlan(np.zeros(0, np.int32), np.zeros(0, bool), combo_share=0.5)
    assert empty.order(42, "classification", 0).tolist() == []


def test_repetitions_are_told_apart() -> None:
    assert occurrences(np.array([5, 2, 5, 5, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]
