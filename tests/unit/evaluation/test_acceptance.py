import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from pillsnap.evaluation.acceptance import Evidence, choose_threshold, fit_acceptance
from pillsnap.inference.acceptance import Acceptance

FOREIGN = Acceptance(intercept=6.0, distance_weight=3.0, largest_distance=100.0)


def evidence(distance: list[float] | NDArray[np.float64], *, is_right: bool = True) -> Evidence:
    return Evidence(np.full(len(distance), 0.9), np.asarray(distance), np.full(len(distance), is_right))


@pytest.mark.req("FIN-3")
def test_a_sure_answer_to_a_foreign_pill_scores_low() -> None:
    familiar, foreign, unsure = FOREIGN.score(np.array([0.99, 0.99, 0.2]), np.array([1.0, 60.0, 1.0]))
    assert familiar > 0.9
    assert foreign < 0.01
    assert unsure == pytest.approx(0.2, abs=0.03)


@pytest.mark.req("FIN-3")
def test_more_confidence_and_less_distance_never_score_less() -> None:
    confidence, distance = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, 30), np.geomspace(1e-4, 1e3, 30)))
    scores = FOREIGN.score(confidence, distance).reshape(30, 30)
    assert (np.diff(scores, axis=1) >= 0).all()
    assert (np.diff(scores, axis=0) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.req("FIN-3")
def test_what_was_not_measured_is_as_foreign_as_can_be() -> None:
    found = FOREIGN.score(np.array([0.9, 0.9]), np.array([np.inf, 100.0]))
    assert found[0] == found[1] < 0.01


@pytest.mark.req("FIN-3")
def test_familiarity_is_even_between_known_pills_and_strangers() -> None:
    rng = np.random.default_rng(0)
    known, strangers = np.exp(rng.normal(0, 0.5, 400)), np.exp(rng.normal(2, 0.5, 400))
    fitted = fit_acceptance(evidence(known), evidence(strangers, is_right=False))
    assert fitted.familiarity(np.array([np.e]))[0] == pytest.approx(0.5, abs=0.05)
    assert fitted.familiarity(np.array([1.0]))[0] > 0.95
    assert fitted.familiarity(np.array([np.exp(2)]))[0] < 0.05


@pytest.mark.req("FIN-3")
def test_wrong_answers_do_not_teach_that_a_drug_looks_like_another() -> None:
    near, far = np.full(20, 1.0), np.full(20, 9.0)
    mixed = Evidence(np.full(40, 0.9), np.concatenate([near, far]), np.arange(40) < 20)
    strangers = evidence(far, is_right=False)
    assert fit_acceptance(mixed, strangers) == fit_acceptance(evidence(near), strangers)


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize(
    ("known", "strangers"),
    [([np.inf] * 4, [np.inf] * 4), ([2.0] * 4, [2.0] * 4), ([5.0, 6.0, 7.0, 8.0], [1.0, 1.2, 1.4, 1.6])],
    ids=["not measured", "all the same", "strangers look nearer"],
)
def test_where_looks_tell_nothing_the_confidence_decides(
    known: list[float], strangers: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pillsnap"):
        fitted = fit_acceptance(evidence(known), evidence(strangers, is_right=False))
    assert "refusal goes by confidence alone" in caplog.text
    confidence = np.array([0.1, 0.5, 0.9, 1.0])
    found = fitted.score(confidence, np.array([1.0, 9.0, np.inf, 2.0]))
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found[:2], confidence[:2], rtol=0.1)


def test_no_pills_teach_nothing() -> None:
    with pytest.raises(ValueError, match="no acceptance can be fitted: got 0 val pills"):
        fit_acceptance(evidence([]), evidence([], is_right=False))
    with pytest.raises(ValueError, match="no threshold can be chosen: got 0 val pills"):
        choose_threshold(np.zeros(0), np.zeros(0, bool), np.zeros(0), 0.01)


@pytest.mark.req("FIN-3")
def test_the_lowest_threshold_with_the_wanted_error_is_chosen() -> None:
    scores = np.linspace(1.0, 0.5, 200)
    found = choose_threshold(scores, np.ones(200, bool), np.array([0.6, 0.55]), 0.01)
    # 160 right answers come before the stranger at 0.6; one mistake more than made is (0 + 1) / (160 + 1) <= 0.01,
    # and with the stranger it would be 2 in 199 at best.
    assert found.value == scores[159]
    assert (found.error, found.coverage, found.is_proven) == (0.0, 0.8, True)


@pytest.mark.req("FIN-3")
def test_few_pills_prove_little_but_decide() -> None:
    found = choose_threshold(np.array([0.9, 0.8, 0.7]), np.array([True, True, True]), np.array([0.75, 0.1, 0.1]), 0.01)
    assert (found.value, found.error, found.is_proven) == (0.8, 0.0, False)
    assert found.coverage == pytest.approx(2 / 3)


@pytest.mark.req("FIN-3")
def test_where_no_threshold_holds_nothing_is_named() -> None:
    found = choose_threshold(np.array([0.5, 0.4]), np.array([True, True]), np.array([0.5, 1.0]), 0.1)
    assert (found.coverage, found.is_proven) == (0.0, False)
    assert found.value > 1.0


@pytest.mark.req("FIN-3")
def test_equal_scores_are_named_together() -> None:
    found = choose_threshold(np.array([0.9, 0.5]), np.array([True, True]), np.array([0.5]), 0.2)
    assert found.value == 0.9
