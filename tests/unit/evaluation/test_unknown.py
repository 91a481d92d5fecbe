import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pillsnap.evaluation.unknown import (
    area_under_risk_coverage,
    auroc,
    auroc_interval,
    evaluate_unknown,
    risk_coverage,
)


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize("seed", range(50))
def test_auroc_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(3, 12, rng.integers(1, 40)) / 9, rng.integers(0, 9, rng.integers(1, 40)) / 9  # ties
    truth = np.repeat([1, 0], [len(known), len(unknown)])
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(truth, np.concatenate([known, unknown])), abs=1e-12)


@pytest.mark.req("FIN-3")
def test_infinite_scores_have_a_place() -> None:
    assert auroc(np.array([0.0, np.inf]), np.array([-np.inf])) == 1.0


@pytest.mark.parametrize(("known", "unknown"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_auroc_needs_numbers_on_both_sides(known: list[float], unknown: list[float]) -> None:
    with pytest.raises(ValueError, match="AUROC needs scores of known and of unknown pills"):
        auroc(np.array(known), np.array(unknown))


@pytest.mark.req("FIN-3")
def test_the_interval_holds_the_figure_and_is_wider_for_few_drugs() -> None:
    rng = np.random.default_rng(0)
    drugs = [str(number) for number in np.repeat(np.arange(4), 30)]
    known, unknown = rng.normal(1, 1, 120), rng.normal(0, 1, 120) + np.repeat(rng.normal(0, 1, 4), 30)
    alone, by_drug = auroc_interval(known, unknown), auroc_interval(known, unknown, None, drugs)
    assert alone is not None
    assert by_drug is not None
    assert alone[0] < auroc(known, unknown) < alone[1]
    assert by_drug[1] - by_drug[0] > alone[1] - alone[0]


def test_one_group_says_nothing_about_chance() -> None:
    assert auroc_interval(np.ones(3), np.zeros(3), ["a"] * 3, None) is None


@pytest.mark.req("FIN-3")
def test_risk_grows_as_worse_answers_are_accepted() -> None:
    coverage, risk = risk_coverage(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False]))
    assert coverage.tolist() == [0.25, 0.75, 1.0]  # equal scores are accepted together
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])


@pytest.mark.req("FIN-3")
def test_the_area_is_the_mean_risk() -> None:
    scores, is_right = np.arange(5.0), np.array([False, False, True, True, True])
    assert area_under_risk_coverage(scores, is_right) == pytest.approx((0 + 0 + 0 + 1 / 4 + 2 / 5) / 5)


@pytest.mark.parametrize("is_right", [np.array([True]), np.zeros(0, bool)])
def test_risk_needs_one_truth_an_answer(is_right: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
    with pytest.raises(ValueError, match="risk and coverage need answers"):
        risk_coverage(np.zeros(0 if len(is_right) == 0 else 2), is_right)


@pytest.mark.req("FIN-3")
def test_what_the_threshold_lets_through_is_counted() -> None:
    known = (np.array([0.9, 0.8, 0.7, 0.2]), np.array([True, False, True, True]))
    figures = evaluate_unknown(known, np.array([0.7, 0.1]), 0.7, drugs_unknown=["K-1", "K-2"])
    assert figures["coverage"] == 0.75
    assert figures["false_accept_rate"] == 0.5
    assert figures["error_accepted_known"] == pytest.approx(1 / 3)
    assert figures["error_accepted"] == pytest.approx(2 / 4)
    assert (figures["n_known"], figures["n_unknown"], figures["n_drugs_unknown"]) == (4, 2, 2)
    json.dumps(figures, allow_nan=False)


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize("threshold", [None, 5.0], ids=["none", "too high"])
def test_where_nothing_is_named_nothing_is_wrong(threshold: float | None) -> None:
    figures = evaluate_unknown((np.ones(3), np.ones(3, bool)), np.zeros(2), threshold)
    assert (figures["coverage"], figures["error_accepted"], figures["error_accepted_known"]) == (0.0, None, None)


@pytest.mark.req("FIN-3")
def test_without_unknown_pills_only_known_ones_are_judged() -> None:
    figures = evaluate_unknown((np.arange(4.0), np.arange(4) > 0), np.zeros(0), 1.0)
    assert (figures["auroc"], figures["auroc_interval"], figures["false_accept_rate"]) == (None, None, None)
    assert (figures["coverage"], figures["error_accepted"]) == (0.75, 0.0)


def test_curves_are_kept_short() -> None:
    curve = evaluate_unknown((np.arange(5000.0), np.ones(5000, bool)), np.zeros(1), 0.0)["risk_coverage"]["known"]
    assert len(curve["coverage"]) == len(curve["risk"]) == 200
    assert (curve["coverage"][0], curve["coverage"][-1]) == (1 / 5000, 1.0)
