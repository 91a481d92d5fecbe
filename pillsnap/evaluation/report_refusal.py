"""The sections on confidence and on unknown pills: what a stated confidence is worth, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_figures import Figure
from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, text_of
from pillsnap.evaluation.report_values import (
    count_text,
    interval,
    minute_text,
    number,
    part,
    rows,
    share_interval_text,
    share_text,
    words,
)


@dataclass(frozen=True)
class Part:
    """One section: its figures, tables, and the sentence for what is missing."""

    figures: list[Figure]
    tables: list[Table]
    notes: list[str]
    missing: str


def calibration_of(files: ExperimentFiles) -> Part:
    """Return how far stated confidences can be believed, before and after the temperature."""
    classified = part(files.run, "evaluation", "classification")
    fitted = files.calibration
    figures = list(_calibration_figures(classified, fitted))
    missing = (
        ""
        if fitted
        else "No calibration was fitted (calibration.json is missing): confidences are as the model gives them."
    )
    notes = []
    if fitted:
        base = part(fitted, "fitted_on")
        of = f" of {base['n']:,} pills" if isinstance(base.get("n"), int) else ""
        time = minute_text(fitted.get("time"))
        notes.append(f"Fitted on the {base.get('split', 'val')} split{of}" + (f", {time}." if time else "."))
    return Part(figures, list(_bins(fitted)), notes, missing)


def _calibration_figures(classified: Mapping[str, Any], fitted: Mapping[str, Any]) -> Iterator[Figure]:
    after, before = number(classified, "ece_calibrated"), number(classified, "ece")
    if after is not None:
        yield Figure("Calibration error after", share_text(after), "mean distance of confidence and truth (ECE)")
        if before is not None:
            yield Figure("Calibration error before", share_text(before), "the same with the model's own confidences")
    elif before is not None:
        yield Figure("Calibration error", share_text(before), "mean distance of confidence and truth (ECE)")
    temperature = number(fitted, "temperature")
    if temperature is not None:
        effect = "raises" if temperature < 1 else "lowers"
        yield Figure("Temperature", f"{temperature:.3f}", f"divides the logits; this one {effect} confidences")
    nll_after, nll_before = number(classified, "nll_calibrated"), number(classified, "nll")
    if nll_after is not None:
        meaning = "lower is better" if nll_before is None else f"lower is better; {nll_before:.3f} before"
        yield Figure("Negative log likelihood", f"{nll_after:.3f}", meaning)


def _bins(fitted: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the reliability bins, one table before and one after the temperature."""
    bins = fitted.get("bins")
    found = bins if isinstance(bins, Mapping) else {"": bins}
    for name in found:
        entries = rows(found, name)
        keys = list(dict.fromkeys(key for entry in entries for key in entry))
        if entries:
            cells = [[text_of(key, entry.get(key)) for key in keys] for entry in entries]
            yield Table(f"reliability {name}".strip(), [key.replace("_", " ") for key in keys], cells)


def unknown_of(files: ExperimentFiles) -> Part:
    """Return how well pills outside the training set are refused, and what that costs."""
    unknown, fitted = files.unknown, files.calibration
    notes = []
    if fitted:
        notes.append(_threshold_text(fitted))
    if unknown:
        notes.append(_measured_text(unknown))
    return Part(list(_unknown_figures(unknown)), [], notes, _missing(unknown, fitted))


def _measured_text(unknown: Mapping[str, Any]) -> str:
    """Say on how many pills refusal was measured."""
    n_unknown, n_known, drugs = (number(unknown, key) for key in ("n_unknown", "n_known", "n_drugs_unknown"))
    known = "" if n_known is None else f", against {n_known:,} of known drugs"
    if not n_unknown:
        return "No pill of an unknown drug was at hand: how well those are refused nobody knows."
    of = "" if drugs is None else f" of {count_text(int(drugs), 'drug', 'drugs')}"
    return f"Measured on {n_unknown:,} pills{of} the model never saw in training{known}."


def _missing(unknown: Mapping[str, Any], fitted: Mapping[str, Any]) -> str:
    """Say what cannot be told about unknown pills."""
    if unknown:
        return ""
    if fitted:
        return "How well unknown pills are refused was not measured (reports/unknown.json is missing)."
    return "No threshold was fitted: every pill gets the name of a drug, also a pill of a drug the model never saw."


def _threshold_text(fitted: Mapping[str, Any]) -> str:
    """Say when an answer is accepted."""
    threshold, wanted = number(fitted, "threshold"), number(fitted, "wanted_error")
    score = words(fitted, "score").replace("_", " ") or "score"
    if threshold is None:
        return "No threshold was found that holds the wanted error: see calibration.json."
    sentence = f"A pill gets a name where its {score} is at least {threshold:.4g}; any other is called unknown."
    if wanted is not None:
        sentence += f" The threshold was chosen for at most {share_text(float(wanted))} wrong answers."
    return sentence


@dataclass(frozen=True)
class _Share:
    name: str
    label: str
    meaning: str


_SHARES = (
    _Share("coverage", "Coverage", "pills of known drugs that get a name; the rest are refused"),
    _Share("error_accepted", "Wrong among accepted", "known and unknown pills together"),
    _Share("error_accepted_known", "Wrong among accepted, known drugs", "only pills of drugs the model knows"),
    _Share("false_accept_rate", "False accepts", "unknown pills that got the name of a drug"),
)


def _unknown_figures(unknown: Mapping[str, Any]) -> Iterator[Figure]:
    auroc = number(unknown, "auroc")
    if auroc is not None:
        pair = interval(unknown, "auroc_interval") or interval(part(unknown, "intervals"), "auroc")
        meaning = "chance that a known pill scores above an unknown one; 1 tells all apart, 0.5 none"
        yield Figure("AUROC", f"{auroc:.3f}", meaning, f"{pair[0]:.3f} to {pair[1]:.3f}" if pair else "")
    for share in _SHARES:
        value = number(unknown, share.name)
        # Without unknown pills "known and unknown together" would say of both what was seen of one.
        if value is not None and (share.name != "error_accepted" or number(unknown, "n_unknown")):
            pair = interval(part(unknown, "intervals"), share.name)
            yield Figure(share.label, share_text(value), share.meaning, share_interval_text(pair) if pair else "")


def refusal_sentence(files: ExperimentFiles) -> tuple[str, str]:
    """Return what the run refuses, as one line and its detail."""
    unknown = files.unknown
    coverage, accepted = number(unknown, "coverage"), number(unknown, "false_accept_rate")
    if coverage is None:
        if files.calibration:
            return "Refuses what is below its threshold", "How often, and how well, was not measured."
        return "Refuses nothing", "Every pill gets a name, also a pill of a drug the model never saw."
    is_all = bool(number(unknown, "n_unknown"))
    error = number(unknown, "error_accepted" if is_all else "error_accepted_known")
    sentences = [f"{share_text(error)} of the names it gives are wrong."] if error is not None else []
    if accepted is not None:
        sentences.append(f"Of pills it was never shown, {share_text(accepted)} get a name all the same.")
    if not is_all:
        sentences.append("Pills of unknown drugs were not tried.")
    return f"Names {share_text(coverage)} of known pills, refuses the rest", " ".join(sentences)
