"""What refusing buys: the share of wrong names among the given ones, against the share of pills that get one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from pillsnap.evaluation.figure import BLUE, GREEN, GREY, RED, new_figure, save_figure

_CURVES = {"known": (BLUE, "pills of known drugs"), "all": (RED, "known and unknown drugs together")}


def plot_risk_coverage(figures: Mapping[str, Any], out_path: Path, wanted_error: float | None = None) -> Path:
    """Draw the curves of `evaluate_unknown` with the threshold's place on them, as `risk_coverage.png`.

    Args:
        figures: What `evaluate_unknown` returned. Without unknown pills one curve is drawn.
        out_path: Where to write.
        wanted_error: Drawn as a line; None leaves it out.

    Returns:
        `out_path`.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    for name, (color, label) in _CURVES.items():
        if name == "known" or figures["n_unknown"]:
            curve = figures["risk_coverage"][name]
            axes.step(curve["coverage"], curve["risk"], where="post", color=color, label=label)
    _mark_threshold(axes, figures)
    if wanted_error is not None:
        axes.axhline(wanted_error, color=GREY, linestyle=":", linewidth=1.2, label=f"wanted: {wanted_error:.1%}")
    axes.set_xlabel("share of pills that get a name")
    axes.set_ylabel("share of those names that are wrong")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=-0.005)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")
    return save_figure(figure, out_path)


def _mark_threshold(axes: Axes, figures: Mapping[str, Any]) -> None:
    """Mark where the threshold lies on each curve; nowhere where no name is given."""
    num_known, num_unknown = figures["n_known"], figures["n_unknown"]
    num_named = figures["n_accepted_known"] + figures["n_accepted_unknown"]
    points = [(figures["coverage"], figures["error_accepted_known"])]
    if num_unknown:
        points.append((num_named / (num_known + num_unknown), figures["error_accepted"]))
    shown = [point for point in points if point[1] is not None]
    if shown:
        shares, risks = zip(*shown, strict=True)
        axes.scatter(shares, risks, color=GREEN, zorder=3, s=40, label="at the threshold")
