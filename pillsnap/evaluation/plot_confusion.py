"""One picture of which classes are taken for which, readable from 2 to 5,000 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pillsnap.evaluation.confusions import Confusions, Counts
from pillsnap.evaluation.figure import BLUE, GREY, RED, drawable_label, font_families, new_figure, save_figure

MAX_CLASSES_WITH_NUMBERS = 20
MAX_CLASSES_WITH_CELLS = 60
_WORST_CONFUSIONS = 20
_WORST_CLASSES = 15


def plot_confusion_matrix(cm: ArrayLike, class_names: Sequence[str], out_path: Path) -> Path:
    """Draw a confusion matrix: as cells up to 60 classes, as a list of the worst confusions above.

    Args:
        cm: (C, C) counts; rows are true classes, columns predicted ones.
        class_names: C labels, for example "K-000059 타이레놀정"; what no installed font can draw is left out.
        out_path: PNG to write.

    Returns:
        `out_path`.

    Raises:
        ValueError: `cm` is not square, holds no sample or something other than counts, or has another number of
            classes than `class_names`.
    """
    return plot_confusions(Confusions.of_matrix(_checked_counts(cm, class_names)), class_names, out_path)


def plot_confusions(confusions: Confusions, class_names: Sequence[str], out_path: Path) -> Path:
    """Draw what `plot_confusion_matrix` draws, from the pairs that occur; no (C, C) matrix is made for many classes.

    Args:
        confusions: What was taken for what.
        class_names: C labels.
        out_path: PNG to write.

    Raises:
        ValueError: No sample, or another number of names than classes.
    """
    if len(class_names) != confusions.num_classes:
        raise ValueError(
            f"got {len(class_names)} class names for {confusions.num_classes} classes; wanted one a class. Pass the "
            "class map's list."
        )
    if not len(confusions.counts):
        raise ValueError(
            "confusion matrix cannot be drawn: got 0 samples; wanted at least 1. Check that the split has pictures."
        )
    labels = [drawable_label(name, f"class {index}") for index, name in enumerate(class_names)]
    draw = _draw_cells if confusions.num_classes <= MAX_CLASSES_WITH_CELLS else _draw_worst
    return save_figure(draw(confusions, labels), out_path)


def _checked_counts(cm: ArrayLike, class_names: Sequence[str]) -> Counts:
    """Return `cm` as counts, or refuse it."""
    matrix = np.asarray(cm)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) != len(class_names):
        raise ValueError(
            f"confusion matrix has shape {matrix.shape} with {len(class_names)} class names; wanted (C, C) with C "
            "names. Compute it with labels=range(C), so that classes without samples keep their row."
        )
    counts = matrix.astype(np.int64, copy=False)
    if (counts != matrix).any() or counts.min(initial=0) < 0:
        raise ValueError(
            "confusion matrix holds numbers that are not counts; wanted whole numbers of 0 or more. Pass it without "
            "normalising; the plot does that."
        )
    return counts


def _title(confusions: Confusions) -> str:
    """Return the overall figure, and how many classes had no sample."""
    right, total = int(confusions.right.sum()), int(confusions.counts.sum())
    unseen = int((confusions.totals == 0).sum())
    note = f", {unseen:,} without a sample" if unseen else ""
    return f"Accuracy {right / total:.1%} ({right:,} of {total:,} right); {confusions.num_classes:,} classes{note}"


def _recall_rows(counts: Counts) -> NDArray[np.float64]:
    """Return each row as shares of its true class; rows without samples are NaN."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, totals, out=shares, where=totals > 0)
    return shares


def _draw_cells(confusions: Confusions, labels: Sequence[str]) -> Figure:
    """Return the matrix as coloured cells, with numbers while they are readable."""
    counts = confusions.matrix()
    has_numbers = len(counts) <= MAX_CLASSES_WITH_NUMBERS
    side = max(4.5, 3.2 + (0.42 if has_numbers else 0.17) * len(counts))
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    axes.set_facecolor("#dddddd")  # shows through where a class has no sample
    # The root stretches small shares: one wrong picture in fifty must be visible.
    image = axes.imshow(_recall_rows(counts), cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="equal")
    font_size = 9.0 if has_numbers else 6.5
    ticks = range(len(counts))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=font_size, family=font_families(), parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=font_size, family=font_families(), parse_math=False)
    axes.set_title(_title(confusions), fontsize=11)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if has_numbers:
        _write_numbers(axes, counts)
    colour_bar = figure.colorbar(image, ax=axes, shrink=0.7)
    colour_bar.set_label("share of the true class")
    return figure


def _write_numbers(axes: Axes, counts: Counts) -> None:
    """Write the count into every cell that has one."""
    shares = _recall_rows(counts)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, color=colour)


def _draw_worst(confusions: Confusions, labels: Sequence[str]) -> Figure:
    """Return the most frequent confusions and the classes recalled worst, as bars."""
    figure = new_figure(9.5, 11)
    figure.suptitle(_title(confusions), fontsize=11)
    upper, lower = figure.subplots(2, 1, gridspec_kw={"height_ratios": [_WORST_CONFUSIONS, _WORST_CLASSES]})
    _draw_confusions(upper, confusions, labels)
    _draw_recalls(lower, confusions, labels)
    return figure


def _draw_confusions(axes: Axes, confusions: Confusions, labels: Sequence[str]) -> None:
    """Draw the pairs confused most often."""
    pairs = confusions.worst_pairs(_WORST_CONFUSIONS)
    if not pairs:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No confusions: every picture is right.", ha="center", va="center")
        return
    names = [f"{labels[true]} → {labels[pred]}" for true, pred, _, _ in pairs]
    notes = [f"{times:,} of {total:,}" for _, _, times, total in pairs]
    _draw_bars(axes, names, np.array([float(times) for _, _, times, _ in pairs]), notes, RED)
    note = f"the {len(pairs)} most frequent of {confusions.num_wrong_pairs:,}"
    axes.set_title(f"Confusions, true → predicted ({note})", fontsize=10)
    axes.set_xlabel("pictures")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_recalls(axes: Axes, confusions: Confusions, labels: Sequence[str]) -> None:
    """Draw the classes recalled worst; among equals, those with most samples first."""
    totals, right = confusions.totals, confusions.right
    seen = np.flatnonzero(totals)
    recalls = right[seen] / totals[seen]
    order = np.lexsort((-totals[seen], recalls))[:_WORST_CLASSES]
    notes = [f"{recalls[i]:.0%} ({right[seen[i]]:,} of {totals[seen[i]]:,})" for i in order]
    _draw_bars(axes, [labels[seen[i]] for i in order], recalls[order], notes, BLUE)
    axes.set_title(f"Recall of the {len(order)} worst classes", fontsize=10)
    axes.set_xlabel("recall")
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _draw_bars(
    axes: Axes, names: Sequence[str], values: NDArray[np.float64], notes: Sequence[str], colour: str
) -> None:
    """Draw horizontal bars, the first on top, with a note at the end of each."""
    places = np.arange(len(names))
    axes.barh(places, values, color=colour, height=0.7)
    axes.set_yticks(places, names, fontsize=8, family=font_families(), parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    for place, value, note in zip(places, values, notes, strict=True):
        axes.annotate(note, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
