"""The headline figures of a run: which split they are from, and what each of them means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_values import interval, number, part, share_text

CLASSIFICATION, DETECTION, END_TO_END = "classification", "detection", "end_to_end"
_SPLITS = {
    "test": "Test split: pictures that were used neither for training nor for choosing the models.",
    "val": "Validation split, best models. They were chosen on these very pictures; expect a little less on new ones.",
}


@dataclass(frozen=True)
class Figure:
    """One figure: what it is called, its value as text, and what it says."""

    label: str
    value: str
    meaning: str
    interval: str = ""
    """The 95 % interval as text; empty where none was computed."""


@dataclass(frozen=True)
class Group:
    """The figures of one task, or the reason why there are none."""

    title: str
    figures: list[Figure]
    note: str


@dataclass(frozen=True)
class Kind:
    """A figure: under which names files hold it, how it is called and shown."""

    keys: tuple[str, ...]
    """Names the figure goes by; the first that is there counts."""
    label: str
    form: str
    meaning: str

    def text(self, value: float) -> str:
        """Return a value in the figure's form."""
        return share_text(value) if self.form.endswith("%") else format(value, self.form)

    def interval_text(self, pair: tuple[float, float] | None) -> str:
        """Return an interval in the figure's form; empty where there is none."""
        return f"{self.text(pair[0])} to {self.text(pair[1])}" if pair else ""


TITLES = {
    CLASSIFICATION: "One pill in the picture: which drug?",
    DETECTION: "Several pills: where are they?",
    END_TO_END: "Several pills: right place and right drug",
}
_TIMED = {
    "single": "One pill",
    "combo": "Several pills",
    "classifier": "Naming model alone",
    "detector": "Finding model alone",
}
KINDS = {
    CLASSIFICATION: (
        Kind(("acc", "accuracy"), "Accuracy", ".1%", "photographs named correctly"),
        Kind(("macro_f1",), "Macro F1", ".3f", "mean over the drugs; rare ones count as much as common ones"),
        Kind(("top5", "top5_accuracy"), "Top-5", ".1%", "the right drug is among the first five"),
        Kind(("val_loss", "loss"), "Loss", ".3f", "cross entropy; lower is better"),
    ),
    DETECTION: (
        Kind(("mAP@0.5", "mAP_0.5"), "mAP@0.5", ".3f", "boxes that overlap a pill by half count as found"),
        Kind(("mAP@0.5:0.95", "mAP_0.5:0.95"), "mAP@0.5:0.95", ".3f", "the same, mean over ever tighter overlaps"),
        Kind(("precision",), "Precision", ".1%", "boxes that hold a pill, at the confidence used in practice"),
        Kind(("recall",), "Recall", ".1%", "pills that were found, at the same confidence"),
    ),
    END_TO_END: (
        Kind(("recall",), "Recall", ".1%", "pills found and named correctly"),
        Kind(("precision",), "Precision", ".1%", "answers that are right in place and drug"),
        Kind(("f1",), "F1", ".3f", "recall and precision in one figure"),
        Kind(("drug_accuracy_on_found",), "Drug accuracy", ".1%", "right drug among the pills that were found"),
    ),
}


def chosen_figures(files: ExperimentFiles) -> tuple[str, Mapping[str, Any]]:
    """Choose the figures a reader wants first: of the test split, else the val split, else of the last epochs.

    Returns:
        The sentence that names the split, and the figures by task; none when nothing was recorded.
    """
    if test := part(files.metrics, "test") or part(files.final_test, "test_results"):
        return _SPLITS["test"], test
    return val_figures(files)


def val_figures(files: ExperimentFiles) -> tuple[str, Mapping[str, Any]]:
    """Return what `chosen_figures` does where the test split was not opened, or is not to be looked at."""
    if figures := part(files.run, "evaluation") or part(files.metrics, "val"):
        name = str(figures.get("split", "val"))
        return _SPLITS.get(name, f"{name} split, best models."), figures
    if latest := part(files.metrics, "latest"):
        epochs = ", ".join(f"{task}: epoch {entry['epoch']}" for task, entry in latest.items())
        return f"Validation split, last epoch of each task ({epochs}).", latest
    return "No figures were recorded: reports/metrics.json is missing or has no epoch.", {}


def headline(files: ExperimentFiles) -> tuple[str, list[Group]]:
    """Return the sentence that names the split, and one group of figures a task, for both together, and for speed."""
    split, figures = chosen_figures(files)
    groups = [_group(name, part(figures, name), files.tasks) for name in TITLES]
    return split, [*groups, latency_group(files.latency)]


def latency_group(latency: Mapping[str, Any]) -> Group:
    """Return how long an answer takes, from what `pillsnap latency` measured (MEA-1)."""
    shown = []
    for name, label in _TIMED.items():
        timed = part(latency, name)
        middle, slow, slowest = (number(timed, key) for key in ("p50_ms", "p95_ms", "p99_ms"))
        if slow is None:
            continue
        meaning = ["95 of 100 answers are faster"]
        meaning += [] if middle is None else [f"half of them take at most {milliseconds_text(middle)}"]
        meaning += [] if slowest is None else [f"99 of 100 at most {milliseconds_text(slowest)}"]
        shown.append(Figure(label, milliseconds_text(slow), "; ".join(meaning)))
    if not shown:
        return Group("How long an answer takes", [], "No times were measured: pillsnap latency does it.")
    counts = number(part(latency, "single") or part(latency, "combo"), "n")
    notes = [f"measured on {latency['device']}"] if latency.get("device") else []
    notes += [f"{counts:,} answers each, one at a time"] if counts is not None else []
    return Group("How long an answer takes", shown, "; ".join(notes))


def milliseconds_text(value: float) -> str:
    """Return a time with the precision that a reader can use."""
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _group(name: str, figures: Mapping[str, Any], tasks: Sequence[str] | None) -> Group:
    """Return the figures of one task that are there."""
    if not figures:
        return Group(TITLES[name], [], absence_of(name, tasks, "measured"))
    shown = []
    for kind in KINDS[name]:
        value = number(figures, *kind.keys)
        if value is not None:
            pair = interval(part(figures, "intervals"), *kind.keys)
            shown.append(Figure(kind.label, kind.text(value), kind.meaning, kind.interval_text(pair)))
    return Group(TITLES[name], shown, _counts(figures))


def absence_of(name: str, tasks: Sequence[str] | None, verb: str) -> str:
    """Say why something of a task is not there.

    Args:
        name: "classification", "detection", or "end_to_end" (which needs both).
        tasks: Tasks of the run; None when nothing tells.
        verb: What was not done, for example "measured" or "drawn".
    """
    if tasks is None:
        return f"Nothing was {verb}, and no file tells which tasks this run had."
    needed = (CLASSIFICATION, DETECTION) if name == END_TO_END else (name,)
    untrained = [task for task in needed if task not in tasks]
    return f"The {untrained[0]} task was not trained in this run." if untrained else f"Nothing was {verb} in this run."


def _counts(figures: Mapping[str, Any]) -> str:
    """Say how many pictures and boxes the figures are from, how many were unreadable, and by which tool."""
    nouns = {"n": "pictures", "n_images": "pictures", "n_boxes": "labelled pills"}
    parts = [f"{figures[key]:,} {noun}" for key, noun in nouns.items() if isinstance(figures.get(key), int)]
    if figures.get("n_broken"):
        parts.append(f"unreadable pictures left out: {figures['n_broken']:,}")
    if "tool" in figures:
        parts.append(f"mAP by {figures['tool']}")
    return "; ".join(parts)
