"""The top of the page: is it a go, how good, how sure, what it refuses, what to do next, in one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_advice import Advice
from pillsnap.evaluation.report_figures import CLASSIFICATION, DETECTION, END_TO_END, chosen_figures
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_refusal import refusal_sentence
from pillsnap.evaluation.report_values import interval, number, part, share_text
from pillsnap.evaluation.report_verdict import NO_GO, Verdict


@dataclass(frozen=True)
class Answer:
    """One question with its answer, the detail behind it, and the section that shows more."""

    question: str
    short: str
    detail: str
    anchor: str


def answers_of(files: ExperimentFiles, verdict: Verdict, advice: Advice) -> list[Answer]:
    """Return the four answers beside the verdict."""
    return [_how_good(files), _how_sure(files), _refuses(files), _next_step(verdict, advice)]


def _how_good(files: ExperimentFiles) -> Answer:
    _, figures = chosen_figures(files)
    question, anchor = "How good is it?", "figures"
    accuracy = number(part(figures, CLASSIFICATION), "acc", "accuracy")
    both = number(part(figures, END_TO_END), "recall")
    found = number(part(figures, DETECTION), "recall")
    several = ""
    if both is not None:
        several = f"{share_text(both)} of the pills in photographs of several are found and named correctly."
    elif found is not None:
        several = f"{share_text(found)} of the pills in photographs of several are found."
    if accuracy is not None:
        return Answer(question, f"{share_text(accuracy)} of single pills named correctly", several, anchor)
    if several:
        return Answer(question, several.rstrip("."), "Naming single pills was not measured.", anchor)
    return Answer(question, "Not measured", "No figures were recorded.", anchor)


def _how_sure(files: ExperimentFiles) -> Answer:
    split, figures = chosen_figures(files)
    classified = part(figures, CLASSIFICATION)
    pair = interval(part(classified, "intervals"), "acc", "accuracy")
    count = number(classified, "n")
    of = "the pictures looked at" if count is None else f"{count:,} pictures"
    short, detail = "No interval was computed", f"One figure, from {of}." if classified else ""
    if pair:
        seen = "never used before" if split.startswith("Test") else "that also chose the model"
        short = f"Between {share_text(pair[0])} and {share_text(pair[1])}"
        detail = f"95% interval of that share, from {of} {seen}."
    detail = f"{detail} {_confidence_text(files, classified)}".strip()
    return Answer("How sure is that?", short, detail, "calibration")


def _confidence_text(files: ExperimentFiles, classified: Mapping[str, Any]) -> str:
    """Say how far its stated confidence is from the truth."""
    evaluated = part(files.run, "evaluation", CLASSIFICATION)
    after = number(evaluated, "ece_calibrated")
    error = after if after is not None else number(classified, "ece")
    if error is None:
        return ""
    kind = "Calibrated confidences" if after is not None else "Its confidences, not calibrated,"
    return f"{kind} are off by {share_text(error)} on average."


def _refuses(files: ExperimentFiles) -> Answer:
    short, detail = refusal_sentence(files)
    return Answer("What does it refuse?", short, detail, "unknown")


def _next_step(verdict: Verdict, advice: Advice) -> Answer:
    question = "What to do next?"
    if verdict.state == NO_GO and advice.is_proceed:
        # The advisor looks at the targets alone: its "go on" must not stand against a no-go without a word.
        return Answer(question, "Clear what stands against a go", "The targets alone would allow to go on.", "gate")
    if advice.title:
        return Answer(question, advice.title, advice.first_step, "advice")
    if not verdict.is_judged:
        return Answer(question, "Judge it", "No verdict and no advice were written yet.", "gate")
    return Answer(question, "No advice was written", "The checks and targets below show what is missing.", "gate")
