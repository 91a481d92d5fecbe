"""ROC and precision-recall curves, one class against the rest, and their mean over the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pillsnap.evaluation.arrays import FloatValues, Values, as_array, as_floats
from pillsnap.evaluation.curves import Counts, Curve, count_above, precision_recall_curve, roc_curve
from pillsnap.evaluation.figure import GREY, PALETTE, drawable_label, font_families, new_figure, save_figure
from pillsnap.evaluation.streaming import ClassificationPredictions

MAX_CLASSES_DRAWN = 6
_NUM_WORST = 5
_GRID = np.linspace(0, 1, 501)
_SCORES_AT_ONCE = 8_000_000
"""Scores that are in memory at a time: 32 MB of float32."""

Columns: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]]
"""Gives the scores of some classes, (N, K)."""


@dataclass(frozen=True)
class _Kind:
    """One of the two plots: how a curve is computed, and what its axes and its area are called."""

    title: str
    area: str
    x_label: str
    y_label: str
    file: str
    curve: Callable[[Counts], Curve]


_ROC = _Kind("ROC", "AUC", "false-positive rate", "true-positive rate", "roc_curves.png", roc_curve)
_PR = _Kind("Precision and recall", "AP", "recall", "precision", "pr_curves.png", precision_recall_curve)


@dataclass(frozen=True, eq=False)
class _Split:
    """Scores of N pills, class by class."""

    true: NDArray[np.int64]
    """(N,) class numbers."""
    columns: Columns
    labels: list[str]
    """C names as they are drawn."""

    def counts(self, classes: NDArray[np.int64]) -> Iterator[Counts]:
        """Go through classes; only a block of their scores is in memory at a time."""
        width = max(1, _SCORES_AT_ONCE // len(self.true))
        for start in range(0, len(classes), width):
            block = classes[start : start + width]
            for number, scores in zip(block, np.ascontiguousarray(self.columns(block).T), strict=True):
                yield count_above(self.true == number, scores)


def plot_roc_pr_of_answers(
    found: ClassificationPredictions, out_dir: Path, *, class_names: Sequence[str] | None = None
) -> list[Path]:
    """Draw what `plot_roc_pr_curves` draws, over all classes, from the logits that were kept (as float16).

    Args:
        found: Answers to pills of known drugs, with their logits.
        out_dir: Folder for the two files; made when missing.
        class_names: C labels for the legend; class numbers without them.

    Raises:
        ValueError: The logits were not kept, another number of names, or no class with both positive and negative
            samples.
    """
    if found.logits is None:
        raise ValueError(
            "curves cannot be drawn: the logits of all classes were not kept; wanted them beside the answers. Pass "
            "keep_logits=True to classify_loader."
        )
    store = found.logits
    # The order of log-probabilities is that of probabilities, and theirs does not end where exp underflows.
    log_sums = (found.log_sum_exp - found.top_logits[:, 0])[:, None]
    labels = _labels(class_names, found.num_classes)
    return _draw_both(_Split(found.y_true, lambda classes: store.columns(classes) - log_sums, labels), out_dir)


def plot_roc_pr_curves(
    y_true_onehot: Values, y_prob: Values, out_dir: Path, *, class_names: Sequence[str] | None = None
) -> list[Path]:
    """Draw `roc_curves.png` and `pr_curves.png`: the macro mean, and one-versus-rest curves of single classes.

    Up to 6 classes all are drawn, above that the 5 with the smallest area. Classes without a positive or without a
    negative sample have no curve: they are left out, and the plot says how many.

    Args:
        y_true_onehot: (N, C) with a single 1 a row.
        y_prob: (N, C) probabilities.
        out_dir: Folder for the two files; made when missing.
        class_names: C labels for the legend; class numbers without them.

    Returns:
        The two paths, ROC first.

    Raises:
        ValueError: Shapes that differ, rows that are not one-hot, probabilities that are not finite, another number
            of names, or no class with both positive and negative samples.
    """
    true, prob = _checked(y_true_onehot, y_prob)
    labels = _labels(class_names, prob.shape[1])
    return _draw_both(_Split(true.argmax(axis=1), lambda classes: prob[:, classes], labels), out_dir)


def _labels(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    names = [f"class {index}" for index in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise ValueError(
            f"got {len(names)} class names for {num_classes} classes; wanted one a class. Pass the class map's list."
        )
    return [drawable_label(name, f"class {index}", 24) for index, name in enumerate(names)]


def _checked(y_true_onehot: Values, y_prob: Values) -> tuple[NDArray[np.bool_], FloatValues]:
    """Return labels and probabilities as arrays, or refuse them."""
    given, prob = as_array(y_true_onehot), as_floats(y_prob)
    true = given == 1  # booleans: a float copy of 40,000 x 5,000 labels would take 1.6 GB
    if true.ndim != 2 or true.shape != prob.shape:
        raise ValueError(
            f"curves cannot be drawn: y_true_onehot has shape {true.shape} and y_prob {prob.shape}; wanted the same "
            "(N, C). Encode the labels with np.eye(C)[y_true]."
        )
    if not ((true | (given == 0)).all() and (true.sum(axis=1) == 1).all()):
        raise ValueError(
            "curves cannot be drawn: a row of y_true_onehot is not one-hot; wanted one 1 and zeros. Encode the labels "
            "with np.eye(C)[y_true]."
        )
    if not np.isfinite(prob).all():
        raise ValueError(
            "curves cannot be drawn: y_prob holds NaN or infinity; wanted probabilities. Look for the step at which "
            "the model's output stopped being finite."
        )
    return true, prob


def _draw_both(split: _Split, out_dir: Path) -> list[Path]:
    """Draw the two plots over all classes that have a curve; single curves are not kept (5,000 classes)."""
    num_classes = len(split.labels)
    positives = np.bincount(split.true, minlength=num_classes)
    drawable = np.flatnonzero((positives > 0) & (positives < len(split.true)))
    if len(drawable) == 0:
        raise ValueError(
            f"curves cannot be drawn: none of the {num_classes} classes has both positive and negative samples; "
            "wanted at least 1. Evaluate on a split with two classes or more."
        )
    kinds = (_ROC, _PR)
    areas, totals = np.empty((2, len(drawable))), np.zeros((2, len(_GRID)))
    for position, counts in enumerate(split.counts(drawable)):
        for row, kind in enumerate(kinds):
            curve = kind.curve(counts)
            areas[row, position] = curve.area
            totals[row] += np.interp(_GRID, curve.x, curve.y)
    means = totals / len(drawable)
    return [
        _draw(kind, split, (drawable, areas[row], means[row]), out_dir / kind.file) for row, kind in enumerate(kinds)
    ]


def _draw(
    kind: _Kind,
    split: _Split,
    curves: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]],
    out_path: Path,
) -> Path:
    """Draw one of the two plots: the classes that have a curve, their areas, and the mean curve over `_GRID`."""
    drawable, areas, mean = curves
    worst = np.argsort(areas, kind="stable")
    shown = worst if len(drawable) <= MAX_CLASSES_DRAWN else worst[:_NUM_WORST]
    figure = new_figure(7.2, 6.8)
    axes = figure.add_subplot()
    for colour, position, counts in zip(PALETTE, shown, split.counts(drawable[shown]), strict=False):
        x, y, area = kind.curve(counts)
        label = f"{split.labels[drawable[position]]}: {kind.area} {area:.3f}, n = {counts.right[-1]:,}"
        axes.plot(x, y, color=colour, linewidth=1.3, label=label)
    axes.plot(_GRID, mean, color="black", linewidth=2.4, label=f"macro: mean {kind.area} {areas.mean():.3f}")
    axes.set_title(_title(kind, len(drawable), len(shown), len(split.labels)), fontsize=10)
    _finish(axes, kind)
    return save_figure(figure, out_path)


def _title(kind: _Kind, num_drawable: int, num_shown: int, num_classes: int) -> str:
    """Say what is drawn and what is left out."""
    scope = "all" if num_shown == num_drawable else f"the {num_shown} worst"
    text = f"{kind.title}, one class against the rest: macro and {scope} of {num_drawable:,} classes"
    left_out = num_classes - num_drawable
    return text + (f"\n{left_out:,} of {num_classes:,} left out: no positive or no negative sample" if left_out else "")


def _finish(axes: Axes, kind: _Kind) -> None:
    """Set axes, grid and legend."""
    if kind is _ROC:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="guessing")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=kind.x_label, ylabel=kind.y_label)
    axes.grid(alpha=0.25)
    legend = axes.figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    for text in legend.get_texts():
        text.set_fontfamily(font_families())
        text.set_parse_math(False)
