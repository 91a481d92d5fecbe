"""The five questions at the top are answered from the files, and a missing answer is said to be missing."""

from __future__ import annotations

import pytest

from pillsnap.evaluation.report_advice import advice_of
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_summary import Answer, answers_of
from pillsnap.evaluation.report_verdict import verdict_of
from tests.unit.evaluation.report_case import files_of
from tests.unit.evaluation.report_findings import ADVICE, CALIBRATION, EVALUATION, UNKNOWN, VERDICT

pytestmark = pytest.mark.req("RPT-1")


def answers(files: ExperimentFiles) -> list[Answer]:
    return answers_of(files, verdict_of(files), advice_of(files))


def test_each_question_has_its_answer() -> None:
    files = files_of(
        run={"evaluation": EVALUATION}, calibration=CALIBRATION, unknown=UNKNOWN, verdict=VERDICT, advice=ADVICE
    )
    assert [(answer.question, answer.short) for answer in answers(files)] == [
        ("How good is it?", "76.2% of single pills named correctly"),
        ("How sure is that?", "Between 66.2% and 85.0%"),
        ("What does it refuse?", "Names 71.0% of known pills, refuses the rest"),
        ("What to do next?", "Improve this run before going on"),
    ]


def test_the_details_name_where_the_figures_are_from() -> None:
    files = files_of(run={"evaluation": EVALUATION}, calibration=CALIBRATION, unknown=UNKNOWN)
    good, sure, refuses, _ = answers(files)
    assert good.detail == "90.7% of the pills in photographs of several are found and named correctly."
    assert sure.detail == (
        "95% interval of that share, from 80 pictures that also chose the model. Calibrated confidences are off by "
        "3.1% on average."
    )
    assert refuses.detail == (
        "1.2% of the names it gives are wrong. Of pills it was never shown, 4.2% get a name all the same."
    )


def test_nothing_is_invented_for_an_empty_experiment() -> None:
    assert [(answer.short, answer.detail) for answer in answers(files_of())] == [
        ("Not measured", "No figures were recorded."),
        ("No interval was computed", ""),
        ("Refuses nothing", "Every pill gets a name, also a pill of a drug the model never saw."),
        ("Judge it", "No verdict and no advice were written yet."),
    ]


def test_a_figure_without_an_interval_is_said_to_be_one() -> None:
    evaluation = {"split": "val", "classification": {"acc": 0.5, "n": 1240, "ece": 0.02}}
    sure = answers(files_of(run={"evaluation": evaluation}))[1]
    assert sure.short == "No interval was computed"
    assert sure.detail == (
        "One figure, from 1,240 pictures. Its confidences, not calibrated, are off by 2.0% on average."
    )


def test_a_detector_alone_is_judged_by_what_it_finds() -> None:
    good = answers(files_of(run={"evaluation": {"split": "val", "detection": {"recall": 0.96}}}))[0]
    assert good.short == "96.0% of the pills in photographs of several are found"


def test_a_threshold_whose_effect_nobody_measured_is_said() -> None:
    refuses = answers(files_of(calibration=CALIBRATION))[2]
    assert (refuses.short, refuses.detail) == (
        "Refuses what is below its threshold",
        "How often, and how well, was not measured.",
    )


def test_refusal_that_was_tried_on_known_pills_alone_says_so() -> None:
    refuses = answers(files_of(unknown={"coverage": 0.8, "error_accepted_known": 0.01, "n_unknown": 0}))[2]
    assert refuses.detail == "1.0% of the names it gives are wrong. Pills of unknown drugs were not tried."


def test_advice_to_go_on_does_not_stand_against_a_no_go() -> None:
    proceed = {"recommendation": "RECOMMEND_PROCEED"}
    step = answers(files_of(verdict=VERDICT, advice=proceed))[3]
    assert (step.short, step.anchor) == ("Clear what stands against a go", "gate")
    assert answers(files_of(verdict={"go": True}, advice=proceed))[3].short == "Go on to the next stage"


def test_a_check_that_did_not_pass_is_not_answered_with_a_setting() -> None:
    advice = {**ADVICE, "recommendation": "WARN_STOP", "reason": "mandatory_checks_failed", "message": "onnx failed"}
    step = answers(files_of(verdict=VERDICT, advice=advice))[3]
    assert (step.short, step.detail) == ("Get the mandatory checks to pass", "onnx failed")
    assert answers(files_of(advice=ADVICE))[3].detail == "Make the picture for the detector smaller."


def test_a_verdict_without_advice_points_to_the_checks() -> None:
    assert answers(files_of(verdict=VERDICT))[3].short == "No advice was written"
