"""Training and validation curves of each task over its epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pillsnap.evaluation.figure import GREY, PALETTE, new_figure, save_figure

# Validation figures between 0 and 1 share one panel; any other key ending in "loss" goes to the loss panel.
_FIGURE_KEYS = ("acc", "macro_f1", "top5", "mAP@0.5", "mAP@0.5:0.95", "precision", "recall")
_LOSS, _FIGURES, _LEARNING_RATE = "loss", "validation figures", "learning rate"
_LABELS = {"acc": "accuracy", "macro_f1": "macro F1", "top5": "top-5", "lr": "learning rate"}


def plot_history(history: Mapping[str, Sequence[Mapping[str, Any]]], out_path: Path) -> Path:
    """Draw losses, validation figures and learning rate over the epochs, one row of panels a task.

    Args:
        history: Task -> one mapping an epoch with `epoch` and any of `train_loss`, `val_loss` and other keys ending in
            "loss", `acc`, `macro_f1`, `top5`, `mAP@0.5`, `mAP@0.5:0.95`, `precision`, `recall`, `lr`. A key that is
            absent or None in an epoch leaves a gap. `is_best` true marks the epochs that improved the kept model.
            Tasks without an epoch are left out.
        out_path: PNG to write.

    Returns:
        `out_path`.

    Raises:
        ValueError: No task has an epoch, or a task's epochs have nothing to draw.
    """
    rows = [(task, epochs, _panels(task, epochs)) for task, epochs in history.items() if epochs]
    if not rows:
        raise ValueError(
            "history cannot be drawn: got 0 epochs; wanted at least 1. Draw it after the first validation."
        )
    num_columns = max(len(panels) for _, _, panels in rows)
    figure = new_figure(4.6 * num_columns, 3.6 * len(rows))
    for row, (task, epochs, panels) in enumerate(rows):
        for column, (title, keys) in enumerate(panels.items()):
            axes = figure.add_subplot(len(rows), num_columns, row * num_columns + column + 1)
            _draw_panel(axes, epochs, keys)
            axes.set_title(f"{task}: {title}", fontsize=10)
            if title == _FIGURES:
                axes.set_ylim(0, 1.02)
            if title == _LEARNING_RATE:
                axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return save_figure(figure, out_path)


def _panels(task: str, epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the keys that each panel of a task shows; panels without keys are left out."""
    keys = sorted({key for entry in epochs for key in entry})
    panels = {
        _LOSS: [key for key in keys if key.endswith("loss")],
        _FIGURES: [key for key in _FIGURE_KEYS if key in keys],
        _LEARNING_RATE: ["lr"] if "lr" in keys else [],
    }
    panels = {title: shown for title, shown in panels.items() if shown}
    if not panels:
        raise ValueError(
            f"history of {task} cannot be drawn: its keys are {keys}; wanted losses, {', '.join(_FIGURE_KEYS)} or lr. "
            "Pass the entries that the run writes to metrics.json."
        )
    return panels


def _draw_panel(axes: Axes, history: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Draw one line a key, and a dotted line at the last best epoch."""
    epochs = [entry["epoch"] for entry in history]
    marker = "o" if len(epochs) <= 30 else None  # a single epoch has no line to see
    for index, key in enumerate(keys):
        values = [np.nan if entry.get(key) is None else float(entry[key]) for entry in history]
        label = _LABELS.get(key, key.replace("_", " "))
        axes.plot(epochs, values, marker=marker, markersize=3, color=PALETTE[index % len(PALETTE)], label=label)
    best = [entry["epoch"] for entry in history if entry.get("is_best")]
    if best:
        axes.axvline(best[-1], color=GREY, linestyle=":", linewidth=1.2, label=f"best epoch ({best[-1]})")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
