"""Bootstrap intervals against textbook ones and against the same draws computed by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pillsnap.evaluation.intervals import classification_intervals, draws, group_numbers, ratio_intervals
from tests.unit.evaluation.classifier_case import answered

pytestmark = pytest.mark.req("VAL-1")


def test_the_interval_of_a_share_is_about_the_textbook_one() -> None:
    right = np.arange(1000) < 800
    interval = ratio_intervals({"share": (right, np.ones(1000))})["share"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)  # normal approximation of the binomial
    assert interval == pytest.approx([0.8 - half, 0.8 + half], abs=0.003)


@pytest.mark.parametrize("value", [0, 1])
def test_shares_without_an_exception_have_the_exact_bound(value: int) -> None:
    # With 10 groups, all right, a share of 0.692 would still give that with a chance of 2.5 %.
    interval = ratio_intervals({"share": (np.full(20, value), np.ones(20))}, np.repeat(np.arange(10), 2))["share"]
    low, high = proportion_by_search(10)
    assert interval == pytest.approx([low, high] if value else [1 - high, 1 - low])


def proportion_by_search(num_groups: int) -> tuple[float, float]:
    shares = np.linspace(0, 1, 1_000_001)
    return float(shares[np.searchsorted(shares**num_groups, 0.025)]), 1.0


def test_a_mean_of_exactly_zero_is_no_share() -> None:
    assert ratio_intervals({"nll": (np.zeros(5), np.ones(5))}, are_shares=False)["nll"] == [0.0, 0.0]


def test_copies_of_a_shot_do_not_narrow_the_interval() -> None:
    right = np.arange(100) < 80
    alone = ratio_intervals({"share": (right, np.ones(100))})["share"]
    copied = ratio_intervals({"share": (np.repeat(right, 9), np.ones(900))}, np.repeat(np.arange(100), 9))["share"]
    assert copied == alone


def test_macro_f1_of_each_draw_equals_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 6, 40)
    pred = np.where(rng.random(40) < 0.7, true, rng.integers(0, 6, 40))
    groups = rng.integers(0, 12, 40)
    found = classification_intervals(answered(true.tolist(), pred.tolist(), 6), groups, num_resamples=50)
    f1, accuracy = [], []
    for drawn in draws(len(np.unique(groups)), 50):
        rows = np.repeat(np.arange(40), drawn[group_numbers(groups, 40)])
        f1.append(f1_score(true[rows], pred[rows], average="macro"))
        accuracy.append(accuracy_score(true[rows], pred[rows]))
    assert found["macro_f1"] == pytest.approx(np.percentile(f1, [2.5, 97.5]))
    assert found["acc"] == pytest.approx(np.percentile(accuracy, [2.5, 97.5]))


def test_the_same_answers_give_the_same_interval() -> None:
    found = answered([0, 1, 1, 2] * 5, [0, 1, 2, 2] * 5, 3)
    assert classification_intervals(found) == classification_intervals(found)


def test_a_single_group_says_nothing_about_chance() -> None:
    found = classification_intervals(answered([0, 1], [0, 0], 2), ["shot", "shot"])
    assert set(found.values()) == {None}


def test_draws_without_what_is_counted_are_left_out() -> None:
    found = ratio_intervals({"recall": (np.array([1, 0, 0]), np.array([2, 0, 0]))})
    assert found["recall"] == [0.5, 0.5]


def test_a_figure_that_no_draw_has_is_none() -> None:
    assert ratio_intervals({"recall": (np.zeros(3), np.zeros(3))}) == {"recall": None}


def test_groups_of_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 2 groups for 3 samples; wanted one a sample"):
        ratio_intervals({"share": (np.ones(3), np.ones(3))}, ["a", "b"])
