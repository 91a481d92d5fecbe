"""What becomes of validations, one after the other."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from pillsnap.training.judgement import Judgement

pytestmark = pytest.mark.req("VAL-3")


def judgement(patience: int = 2) -> Judgement:
    stopping = OmegaConf.create({"mode": "max", "patience": patience, "min_delta": 0.0})
    return Judgement(stopping, "macro_f1", ("val_loss", -1.0))


def figures(macro_f1: float, val_loss: float) -> dict[str, float]:
    return {"macro_f1": macro_f1, "val_loss": val_loss}


def test_a_tie_goes_to_the_better_second_figure() -> None:
    judge = judgement(patience=9)
    values = [(1.0, 0.5), (1.0, 0.4), (1.0, 0.6), (0.9, 0.1)]
    assert [judge.judge(figures(*each))[1] for each in values] == [True, True, False, False]
    assert judge.best == 1.0


def test_too_many_validations_without_a_gain_end_the_task() -> None:
    judge = judgement()
    assert [judge.judge(figures(value, 1.0))[0] for value in (0.5, 0.4, 0.3)] == [False, False, True]
    assert judge.is_patience_over


def test_a_resume_judges_on_with_todays_patience() -> None:
    before, after = judgement(), judgement(patience=3)
    for value in (0.5, 0.4, 0.3):
        before.judge(figures(value, 1.0))
    after.load_state(before.state())
    assert not after.is_patience_over
    assert after.best == 0.5
    assert after.judge(figures(0.5, 0.9)) == (True, True), "no gain, but the tie is won"


def test_nothing_was_judged_yet() -> None:
    assert judgement().best is None
    assert not judgement().is_patience_over
    assert judgement().state() == {}
