"""Curves of a run show each figure in its panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pillsnap.evaluation.plot_history import plot_history

pytestmark = pytest.mark.req("RPT-1")

EPOCHS: list[dict[str, Any]] = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1.5, "acc": 0.5, "macro_f1": 0.4, "lr": 1e-4, "is_best": True},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 1.6, "acc": 0.6, "macro_f1": 0.5, "lr": 5e-5, "is_best": True},
    {"epoch": 3, "train_loss": 0.8, "val_loss": None, "acc": 0.55, "macro_f1": 0.45, "lr": 1e-5, "is_best": False},
]


DETECTION = [{"epoch": 1, "mAP@0.5": 0.9, "mAP@0.5:0.95": 0.6, "n_boxes": 12}]


def test_losses_figures_and_learning_rate_have_a_panel_each(tmp_path: Path, drawn: list[Figure]) -> None:
    assert plot_history({"classification": EPOCHS}, tmp_path / "history.png").is_file()
    panels = {axes.get_title(): [str(line.get_label()) for line in axes.get_lines()] for axes in drawn[0].axes}
    assert panels == {
        "classification: loss": ["train loss", "val loss", "best epoch (2)"],
        "classification: validation figures": ["accuracy", "macro F1", "best epoch (2)"],
        "classification: learning rate": ["learning rate", "best epoch (2)"],
    }


def test_values_are_drawn_at_their_epochs_and_missing_ones_leave_a_gap(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_history({"classification": EPOCHS}, tmp_path / "history.png")
    train, val = drawn[0].axes[0].get_lines()[:2]
    assert list(np.asarray(train.get_xdata())) == [1, 2, 3]
    assert list(np.asarray(train.get_ydata())) == [2.0, 1.0, 0.8]
    assert np.isnan(np.asarray(val.get_ydata(), float)[2])


def test_each_task_has_its_row_and_counts_are_not_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_history({"classification": EPOCHS, "detection": DETECTION}, tmp_path / "history.png")
    axes = drawn[0].axes[-1]
    assert axes.get_title() == "detection: validation figures"
    assert [line.get_label() for line in axes.get_lines()] == ["mAP@0.5", "mAP@0.5:0.95"]
    assert axes.get_position().y1 < drawn[0].axes[0].get_position().y0


def test_a_task_without_epochs_is_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_history({"classification": [], "detection": DETECTION}, tmp_path / "history.png")
    assert [axes.get_title() for axes in drawn[0].axes] == ["detection: validation figures"]


@pytest.mark.parametrize("history", [{}, {"classification": []}], ids=["no task", "no epoch"])
def test_no_epoch_at_all_is_refused(tmp_path: Path, history: dict[str, list[dict[str, Any]]]) -> None:
    with pytest.raises(ValueError, match=r"got 0 epochs; wanted at least 1"):
        plot_history(history, tmp_path / "history.png")


def test_epochs_with_nothing_to_draw_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"history of detection .* its keys are \['epoch', 'n'\]; wanted losses"):
        plot_history({"detection": [{"epoch": 1, "n": 3}]}, tmp_path / "history.png")
