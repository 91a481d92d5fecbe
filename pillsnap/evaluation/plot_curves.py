"""ROC and precision-recall curves, one class against the rest, and their mean over the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from pillsnap.evaluation.arrays import FloatValues, Values, as_array, as_floats
from pillsnap.evaluation.figure import GREY, PALETTE, drawable_label, font_families, new_figure, save_figure

MAX_CLASSES_DRAWN = 6
_NUM_WORST = 5
_GRID = np.linspace(0, 1, 501)

# One class against the rest: x, y of its curve, both ascending in x, and the area that summarises it.
Curve: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], float]


@dataclass(frozen=True)
class _Kind:
    """One of the two plots: how a curve is computed, and what its axes and its area are called."""

    title: str
    area: str
    x_label: str
    y_label: str
    curve: Callable[[NDArray[np.bool_], FloatValues], Curve]


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
    names = [f"class {index}" for index in range(true.shape[1])] if class_names is None else list(class_names)
    if len(names) != true.shape[1]:
        raise ValueError(
            f"got {len(names)} class names for {true.shape[1]} classes; wanted one a class. Pass the class map's list."
        )
    labels = [drawable_label(name, f"class {index}", 24) for index, name in enumerate(names)]
    return [
        _draw(_ROC, true, prob, labels, out_dir / "roc_curves.png"),
        _draw(_PR, true, prob, labels, out_dir / "pr_curves.png"),
    ]


def roc_of_class(true: NDArray[np.bool_], scores: FloatValues) -> Curve:
    """Return false-positive rate, true-positive rate and the area under them."""
    false_rate, true_rate, _ = roc_curve(true, scores)
    return false_rate, true_rate, float(auc(false_rate, true_rate))


def precision_recall_of_class(true: NDArray[np.bool_], scores: FloatValues) -> Curve:
    """Return recall, interpolated precision (the best at this recall or beyond) as steps, and average precision."""
    precision, recall, _ = precision_recall_curve(true, scores)
    # scikit-learn's recall descends and ends in an artificial point (0, 1), which no threshold reaches.
    best = np.maximum.accumulate(precision[:-1])[::-1]
    reached, first = np.unique(recall[:-1][::-1], return_index=True)  # the best of each recall comes first
    x = np.stack([np.concatenate([[0.0], reached[:-1]]), reached], axis=1).ravel()
    average = -np.sum(np.diff(recall) * precision[:-1])  # as average_precision_score, without sorting again
    return x, np.repeat(best[first], 2), float(average)


_ROC = _Kind("ROC", "AUC", "false-positive rate", "true-positive rate", roc_of_class)
_PR = _Kind("Precision and recall", "AP", "recall", "precision", precision_recall_of_class)


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


def _draw(kind: _Kind, true: NDArray[np.bool_], prob: FloatValues, labels: Sequence[str], out_path: Path) -> Path:
    """Draw one of the two plots over all classes that have a curve."""
    positives = true.sum(axis=0)
    drawable = np.flatnonzero((positives > 0) & (positives < len(true)))
    if len(drawable) == 0:
        raise ValueError(
            f"curves cannot be drawn: none of the {true.shape[1]} classes has both positive and negative samples; "
            "wanted at least 1. Evaluate on a split with two classes or more."
        )
    areas, mean = _areas_and_mean(kind, true, prob, drawable)
    worst = np.argsort(areas, kind="stable")
    shown = worst if len(drawable) <= MAX_CLASSES_DRAWN else worst[:_NUM_WORST]
    figure = new_figure(7.2, 6.8)
    axes = figure.add_subplot()
    for colour, index in zip(PALETTE, shown, strict=False):
        x, y, area = kind.curve(true[:, drawable[index]], prob[:, drawable[index]])
        label = f"{labels[drawable[index]]}: {kind.area} {area:.3f}, n = {positives[drawable[index]]:,}"
        axes.plot(x, y, color=colour, linewidth=1.3, label=label)
    axes.plot(_GRID, mean, color="black", linewidth=2.4, label=f"macro: mean {kind.area} {areas.mean():.3f}")
    axes.set_title(_title(kind, len(drawable), len(shown), true.shape[1]), fontsize=10)
    _finish(axes, kind)
    return save_figure(figure, out_path)


def _areas_and_mean(
    kind: _Kind, true: NDArray[np.bool_], prob: FloatValues, drawable: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the area of each class and the mean curve over `_GRID`; single curves are not kept (5,000 classes)."""
    areas = np.empty(len(drawable))
    total = np.zeros_like(_GRID)
    for position, number in enumerate(drawable):
        x, y, areas[position] = kind.curve(true[:, number], prob[:, number])
        total += np.interp(_GRID, x, y)
    return areas, total / len(drawable)


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
