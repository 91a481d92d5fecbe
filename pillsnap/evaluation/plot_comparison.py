"""The curves of two runs over each other, one panel a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pillsnap.evaluation.figure import BLUE, ORANGE, drawable_label, font_families, new_figure, png_of

History = Mapping[str, Sequence[Mapping[str, Any]]]

_KEYS = {
    "classification": {"val_loss": "val loss", "acc": "accuracy", "macro_f1": "macro F1"},
    "detection": {"train_loss": "train loss", "mAP@0.5": "mAP@0.5", "mAP@0.5:0.95": "mAP@0.5:0.95"},
}
_STYLES = ((BLUE, "-"), (ORANGE, "--"))


def plot_comparison(histories: Mapping[str, History]) -> bytes | None:
    """Draw the curves of two runs over each other.

    Args:
        histories: The name of each of the two runs -> its history, as `plot_history` takes it.

    Returns:
        A PNG; None where no figure was recorded by any of them.
    """
    panels = [
        (task, key, label)
        for task, keys in _KEYS.items()
        for key, label in keys.items()
        if any(_points(history, task, key) for history in histories.values())
    ]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns, 3.3 * rows)
    for index, (task, key, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, index)
        axes.set_title(f"{task}: {label}", fontsize=10)
        for (colour, style), (name, history) in zip(_STYLES, histories.items(), strict=True):
            _draw(axes, _points(history, task, key), drawable_label(name, "run"), colour, style)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, prop={"family": font_families(), "size": 8})
    return png_of(figure)


def _points(history: History, task: str, key: str) -> list[tuple[int, float]]:
    """Return (epoch, value) of a figure; epochs without it are left out."""
    return [(entry["epoch"], float(entry[key])) for entry in history.get(task, ()) if entry.get(key) is not None]


def _draw(axes: Axes, points: list[tuple[int, float]], name: str, colour: str, style: str) -> None:
    if not points:
        axes.plot([], [], color=colour, linestyle=style, label=f"{name}: none")
        return
    epochs, values = np.array(points).T
    marker = "o" if len(points) <= 30 else None  # a single epoch has no line to see
    axes.plot(epochs, values, color=colour, linestyle=style, marker=marker, markersize=3, label=name)
