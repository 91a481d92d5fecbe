"""Confusion matrices are readable at any number of classes and show the right counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pillsnap.evaluation.confusions import Confusions
from pillsnap.evaluation.plot_confusion import plot_confusion_matrix, plot_confusions

pytestmark = pytest.mark.req("EVA-1")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def names(count: int) -> list[str]:
    return [f"K-{index:06d} 타이레놀정" for index in range(count)]


def test_few_classes_show_every_count(tmp_path: Path, drawn: list[Figure]) -> None:
    cm = np.array([[7, 2, 0], [0, 9, 0], [1, 0, 11]])
    plot_confusion_matrix(cm, ["a", "b", "c"], tmp_path / "cm.png")
    shown = [text for text in texts(drawn[0]) if text.isdigit()]
    assert shown == ["7", "2", "9", "1", "11"]
    assert any(text.startswith("Accuracy 90.0% (27 of 30 right); 3 classes") for text in texts(drawn[0]))


def test_fifty_classes_show_labelled_cells_without_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.eye(50, dtype=int) * 4, names(50), tmp_path / "cm.png")
    axes = drawn[0].axes[0]
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == 50
    assert axes.get_yticklabels()[7].get_text().startswith("K-000007")
    assert "4" not in texts(drawn[0])
    assert drawn[0].get_figwidth() > 10  # inches: room for labels of 6 points


def test_five_thousand_classes_list_the_worst_confusions(tmp_path: Path, drawn: list[Figure]) -> None:
    cm = np.eye(5000, dtype=np.int64) * 40
    cm[17, 99], cm[17, 17] = 30, 10
    cm[4000, 3] = 20
    cm[np.arange(100, 200), np.arange(101, 201)] = 1
    path = plot_confusion_matrix(cm, names(5000), tmp_path / "cm.png")
    upper, lower = drawn[0].axes
    confusions = [label.get_text() for label in upper.get_yticklabels()]
    assert len(confusions) == 20
    assert confusions[0].startswith("K-000017")
    assert "→ K-000099" in confusions[0]
    assert confusions[1].startswith("K-004000")
    assert lower.get_yticklabels()[0].get_text().startswith("K-000017")
    assert "25% (10 of 40)" in texts(drawn[0])
    with Image.open(path) as image:
        assert max(image.size) < 1500  # a page, not a poster


def test_confusions_seen_equally_often_list_the_smaller_class_first(tmp_path: Path, drawn: list[Figure]) -> None:
    cm = np.eye(100, dtype=int) * 50
    cm[10, 11] = cm[60, 61] = 5
    cm[60, 60] = 5
    plot_confusion_matrix(cm, names(100), tmp_path / "cm.png")
    assert drawn[0].axes[0].get_yticklabels()[0].get_text().startswith("K-000060")


def test_no_confusion_at_all_is_said(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.eye(100, dtype=int), names(100), tmp_path / "cm.png")
    assert "No confusions: every picture is right." in texts(drawn[0])


@pytest.mark.parametrize("count", [5, 100])
def test_classes_without_samples_are_counted_in_the_title(tmp_path: Path, drawn: list[Figure], count: int) -> None:
    cm = np.eye(count, dtype=int)
    cm[2] = 0
    plot_confusion_matrix(cm, names(count), tmp_path / "cm.png")
    assert any(f"{count} classes, 1 without a sample" in text for text in texts(drawn[0]))


def test_names_with_dollar_signs_are_not_read_as_formulas(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.eye(2, dtype=int), ["$x_1$", r"a $\frac b"], tmp_path / "cm.png")
    assert drawn[0].axes[0].get_yticklabels()[0].get_text() == "$x_1$"


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (2,)], ids=["not square", "other names", "flat"])
def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"confusion matrix has shape .* with 2 class names; wanted \(C, C\)"):
        plot_confusion_matrix(np.ones(shape, int), ["a", "b"], tmp_path / "cm.png")


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_shares_and_negative_numbers_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"holds numbers that are not counts; wanted whole numbers"):
        plot_confusion_matrix([[1.0, value], [0.0, 1.0]], ["a", "b"], tmp_path / "cm.png")


def test_a_matrix_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 0 samples; wanted at least 1"):
        plot_confusion_matrix(np.zeros((2, 2)), ["a", "b"], tmp_path / "cm.png")


def test_pairs_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    pairs = Confusions.of_answers(np.array([0, 1]), np.array([0, 0]), 2)
    with pytest.raises(ValueError, match=r"got 3 class names for 2 classes; wanted one a class"):
        plot_confusions(pairs, ["a", "b", "c"], tmp_path / "cm.png")
