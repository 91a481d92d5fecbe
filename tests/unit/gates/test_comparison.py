from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from pillsnap.errors import DataError
from pillsnap.evaluation.prediction_table import PredictionTable, write_predictions
from pillsnap.gates.comparison import (
    compare_experiments,
    difference_interval,
    group_bootstrap,
    mcnemar_p,
    pair_answers,
)
from tests.unit.gates.experiment_case import predictions


def experiment(folder: Path, table: PredictionTable) -> Path:
    (folder / "reports").mkdir(parents=True)
    write_predictions(folder / "reports" / "predictions_val.arrow", table)
    return folder


@pytest.mark.req("GNG-1")
def test_runs_on_the_same_pictures_are_compared_picture_by_picture(tmp_path: Path) -> None:
    a = experiment(tmp_path / "a", predictions(80, num=100))
    b = experiment(tmp_path / "b", predictions(90, num=100))
    found = compare_experiments(a, b)
    assert (found["kind"], found["reason"]) == ("paired", None)
    assert found["difference"] == pytest.approx(0.1)
    assert found["interval"][0] < 0.1 < found["interval"][1]
    pairs = found["pairs"]
    assert [pairs[key] for key in ("both_right", "both_wrong", "only_a_right", "only_b_right")] == [80, 10, 0, 10]
    assert pairs["p_value"] == pytest.approx(2 / 2**10)


@pytest.mark.req("GNG-1")
def test_runs_on_other_pictures_are_laid_side_by_side_and_it_is_said(tmp_path: Path) -> None:
    a = experiment(tmp_path / "a", predictions(80, num=100))
    b = experiment(tmp_path / "b", predictions(45, num=50, first=1000))
    found = compare_experiments(a, b)
    assert (found["kind"], found["pairs"]) == ("unpaired", None)
    assert found["reason"] == "the val splits differ: 0 pills are in both, of 100 and 50"
    assert found["difference"] == pytest.approx(0.1)


@pytest.mark.req("GNG-1")
def test_the_pictures_two_splits_share_are_compared_too(tmp_path: Path) -> None:
    a = experiment(tmp_path / "a", predictions(80, num=100))
    b = experiment(tmp_path / "b", predictions(40, num=50))
    found = compare_experiments(a, b)
    assert found["kind"] == "unpaired"
    assert (found["pairs"]["n"], found["pairs"]["only_a_right"]) == (50, 10)


def test_a_pill_with_another_label_is_no_pair() -> None:
    a = predictions(10, num=10)
    b = replace(a, true_code=["K-999999", *a.true_code[1:]])
    paired = pair_answers(a, b)
    assert (len(paired), paired.is_same_split) == (9, False)


def test_pills_only_one_named_rightly_are_found_in_any_order() -> None:
    a = predictions(6, num=10)
    order = np.arange(10)[::-1]
    b = predictions(8, num=10)
    b = replace(
        b,
        sample_id=[b.sample_id[row] for row in order],
        image_path=[b.image_path[row] for row in order],
        true_code=[b.true_code[row] for row in order],
        rank=b.rank[order],
    )
    paired = pair_answers(a, b)
    assert paired.is_same_split
    assert [a.image_path[paired.rows_a[pill]] for pill in paired.only_b_right] == ["pictures/6.png", "pictures/7.png"]
    assert len(paired.only_a_right) == 0


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (20, 5), (7, 7)])
def test_mcnemars_test_is_the_exact_binomial_one(only_a: int, only_b: int) -> None:
    n, few = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * binom.cdf(few, n, 0.5)) if n else 1.0
    assert mcnemar_p(only_a, only_b) == pytest.approx(expected)


def test_the_interval_of_independent_shares_is_newcombes() -> None:
    # Newcombe 1998, table II, case (a): 56/70 and 48/80, 0.0524 to 0.3339
    low, high = difference_interval(48, 80, 56, 70)
    assert [low, high] == pytest.approx([0.0524, 0.3339], abs=5e-5)


def test_pictures_of_a_group_are_drawn_together() -> None:
    values = np.repeat(np.array([0.0, 1.0] * 20), 10)
    alone = group_bootstrap(values, [str(index) for index in range(400)])
    together = group_bootstrap(values, [str(index // 10) for index in range(400)])
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_the_bootstrap_repeats_itself_and_has_the_width_of_theory() -> None:
    values = np.tile([0.0, 1.0], 500)
    groups = [str(index) for index in range(1000)]
    low, high = group_bootstrap(values, groups)
    assert group_bootstrap(values, groups) == (low, high)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 1000), rel=0.1)


def test_an_experiment_without_answers_is_refused(tmp_path: Path) -> None:
    a = experiment(tmp_path / "a", predictions(0, num=0))
    with pytest.raises(DataError, match="holds no answers"):
        compare_experiments(a, a)
