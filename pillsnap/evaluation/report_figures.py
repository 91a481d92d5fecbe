"""The headline figures of a run: which split they are from, and what each of them means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Group:
    """The figures of one task, or the reason why there are none."""

    title: str
    figures: list[Figure]
    note: str


@dataclass(frozen=True)
class _Kind:
    keys: tuple[str, ...]
    """Names the figure goes by; the first that is there counts."""
    label: str
    form: str
    meaning: str


_TITLES = {
    CLASSIFICATION: "One pill in the picture: which drug?",
    DETECTION: "Several pills: where are they?",
    END_TO_END: "Several pills: right place and right drug",
}
_KINDS = {
    CLASSIFICATION: (
        _Kind(("acc", "accuracy"), "Accuracy", ".1%", "photographs named correctly"),
        _Kind(("macro_f1",), "Macro F1", ".3f", "mean over the drugs; rare ones count as much as common ones"),
        _Kind(("top5",), "Top-5", ".1%", "the right drug is among the first five"),
        _Kind(("val_loss", "loss"), "Loss", ".3f", "cross entropy; lower is better"),
    ),
    DETECTION: (
        _Kind(("mAP@0.5",), "mAP@0.5", ".3f", "boxes that overlap a pill by half count as found"),
        _Kind(("mAP@0.5:0.95",), "mAP@0.5:0.95", ".3f", "the same, mean over ever tighter overlaps"),
        _Kind(("precision",), "Precision", ".1%", "boxes that hold a pill, at the confidence used in practice"),
        _Kind(("recall",), "Recall", ".1%", "pills that were found, at the same confidence"),
    ),
    END_TO_END: (
        _Kind(("recall",), "Recall", ".1%", "pills found and named correctly"),
        _Kind(("precision",), "Precision", ".1%", "answers that are right in place and drug"),
        _Kind(("f1",), "F1", ".3f", "recall and precision in one figure"),
        _Kind(("drug_accuracy_on_found",), "Drug accuracy", ".1%", "right drug among the pills that were found"),
    ),
}


def headline(
    metrics: Mapping[str, Any], evaluation: Mapping[str, Any], tasks: Sequence[str] | None
) -> tuple[str, list[Group]]:
    """Choose the figures a reader wants first: of the test split, else of the validation split.

    Args:
        metrics: What `metrics.json` holds; empty when there is none.
        evaluation: Figures of the best models with the name of their `split`; empty when there are none.
        tasks: Tasks of the run; None when nothing tells.

    Returns:
        The sentence that names the split, and one group a task (and one for both together).
    """
    figures: Mapping[str, Any]
    if metrics.get("test"):
        split, figures = _SPLITS["test"], metrics["test"]
    elif evaluation:
        name = str(evaluation.get("split", "val"))
        split, figures = _SPLITS.get(name, f"{name} split, best models."), evaluation
    elif metrics.get("latest"):
        epochs = ", ".join(f"{task}: epoch {entry['epoch']}" for task, entry in metrics["latest"].items())
        split, figures = f"Validation split, last epoch of each task ({epochs}).", metrics["latest"]
    else:
        split, figures = "No figures were recorded: reports/metrics.json is missing or has no epoch.", {}
    return split, [_group(name, figures.get(name), tasks) for name in _TITLES]


def _group(name: str, figures: Mapping[str, Any] | None, tasks: Sequence[str] | None) -> Group:
    """Return the figures of one task that are there."""
    if not figures:
        return Group(_TITLES[name], [], absence_of(name, tasks, "measured"))
    shown = []
    for kind in _KINDS[name]:
        value = next((figures[key] for key in kind.keys if figures.get(key) is not None), None)
        if value is not None:
            shown.append(Figure(kind.label, format(value, kind.form), kind.meaning))
    return Group(_TITLES[name], shown, _counts(figures))


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
    words = {"n": "pictures", "n_images": "pictures", "n_boxes": "labelled pills"}
    parts = [f"{figures[key]:,} {word}" for key, word in words.items() if key in figures]
    if figures.get("n_broken"):
        parts.append(f"unreadable pictures left out: {figures['n_broken']:,}")
    if "tool" in figures:
        parts.append(f"mAP by {figures['tool']}")
    return "; ".join(parts)
