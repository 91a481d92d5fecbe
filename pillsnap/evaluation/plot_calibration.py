"""The reliability diagram: how often answers are right by how sure they say they are, before and after calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pillsnap.evaluation.calibration_error import ReliabilityBins
from pillsnap.evaluation.figure import BLUE, GREY, ORANGE, new_figure, save_figure


def plot_calibration(before: ReliabilityBins, after: ReliabilityBins, temperature: float, out_path: Path) -> Path:
    """Draw both states side by side, as `calibration.png`.

    A bar reaches up to the share of right answers; the line across it is the mean confidence, and what lies between
    them is the error. The narrow panel below counts the answers.

    Args:
        before: Of the model's own confidences.
        after: Of confidences divided by the temperature.
        temperature: What the logits were divided by.
        out_path: Where to write.

    Returns:
        `out_path`.
    """
    figure = new_figure(8.6, 4.6)
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1))
    titles = ("as the model says it", f"after temperature {temperature:.3g}")
    for column, (bins, title) in enumerate(zip((before, after), titles, strict=True)):
        axes = figure.add_subplot(grid[0, column])
        _draw_bins(axes, bins)
        axes.set_title(f"{title}: error {bins.error:.1%}", fontsize=10)
        counts = figure.add_subplot(grid[1, column], sharex=axes)
        counts.bar(_centres(bins), bins.counts, width=_width(bins), color=GREY)
        counts.set_xlabel("confidence")
        counts.set_ylabel("answers")
        counts.grid(alpha=0.25)
    return save_figure(figure, out_path)


def _draw_bins(axes: Axes, bins: ReliabilityBins) -> None:
    filled = bins.counts > 0
    centres, width = _centres(bins)[filled], _width(bins)
    accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
    axes.bar(centres, accuracy, width=width, color=BLUE, alpha=0.85, label="right answers")
    axes.hlines(confidence, centres - width / 2, centres + width / 2, color=ORANGE, linewidth=2.5, label="confidence")
    axes.plot((0, 1), (0, 1), color=GREY, linestyle=":", linewidth=1.2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")


def _centres(bins: ReliabilityBins) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray((bins.edges[1:] + bins.edges[:-1]) / 2)


def _width(bins: ReliabilityBins) -> float:
    return float(bins.edges[1] - bins.edges[0])
