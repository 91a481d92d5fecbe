"""ROC and PR curves carry scikit-learn's areas, and say which classes they leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from pillsnap.evaluation.plot_curves import plot_roc_pr_curves, plot_roc_pr_of_answers
from tests.unit.evaluation.classifier_case import softmax, streamed

pytestmark = pytest.mark.req("EVA-3")

Floats = NDArray[np.float64]


def guesses(num_samples: int, num_classes: int, num_used: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    true = np.arange(num_samples) % num_used
    logits = rng.normal(size=(num_samples, num_classes))
    logits[np.arange(num_samples), true] += 1.5
    prob = np.exp(logits)
    return np.eye(num_classes)[true], prob / prob.sum(axis=1, keepdims=True)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_macro_areas_are_scikit_learns(tmp_path: Path, drawn: list[Figure]) -> None:
    onehot, prob = guesses(200, 4, 4)
    paths = plot_roc_pr_curves(onehot, prob, tmp_path / "plots")
    assert [path.name for path in paths] == ["roc_curves.png", "pr_curves.png"]
    assert all(path.is_file() for path in paths)
    assert f"macro: mean AUC {roc_auc_score(onehot, prob, average='macro'):.3f}" in legend(drawn[0])
    assert f"macro: mean AP {average_precision_score(onehot, prob, average='macro'):.3f}" in legend(drawn[1])


def test_tensors_of_booleans_are_taken(tmp_path: Path, drawn: list[Figure]) -> None:
    onehot, prob = guesses(200, 4, 4)
    plot_roc_pr_curves(torch.from_numpy(onehot == 1), torch.from_numpy(prob), tmp_path)
    assert f"macro: mean AUC {roc_auc_score(onehot, prob, average='macro'):.3f}" in legend(drawn[0])


def test_the_macro_roc_curve_holds_its_area(tmp_path: Path, drawn: list[Figure]) -> None:
    onehot, prob = guesses(600, 3, 3)
    plot_roc_pr_curves(onehot, prob, tmp_path)
    macro = next(line for line in drawn[0].axes[0].get_lines() if str(line.get_label()).startswith("macro"))
    x, y = np.asarray(macro.get_xdata(), float), np.asarray(macro.get_ydata(), float)
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(onehot, prob, average="macro"), abs=2e-3)


def test_few_classes_are_all_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_roc_pr_curves(*guesses(100, 3, 3), tmp_path, class_names=["K-1", "K-2", "K-3"])
    assert "macro and all of 3 classes" in drawn[0].axes[0].get_title()
    assert sum(text.startswith("K-") for text in legend(drawn[0])) == 3


def test_of_many_classes_the_five_worst_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    onehot, prob = guesses(400, 20, 20)
    plot_roc_pr_curves(onehot, prob, tmp_path)
    areas = roc_auc_score(onehot, prob, average=None)
    worst = [f"class {index}: AUC {areas[index]:.3f}, n = 20" for index in np.argsort(areas)[:5]]
    assert legend(drawn[0])[:5] == worst
    assert "macro and the 5 worst of 20 classes" in drawn[0].axes[0].get_title()


def test_classes_without_positives_are_left_out_and_said_so(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_roc_pr_curves(*guesses(100, 5, 3), tmp_path)
    for figure in drawn:
        assert "2 of 5 left out: no positive or no negative sample" in figure.axes[0].get_title()


def test_one_class_only_has_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 2 classes has both positive and negative samples"):
        plot_roc_pr_curves([[1, 0], [1, 0]], [[0.6, 0.4], [0.7, 0.3]], tmp_path)


@pytest.mark.parametrize(
    ("onehot", "prob", "message"),
    [
        ([[1, 0]], [[0.5, 0.3, 0.2]], r"y_true_onehot has shape \(1, 2\) and y_prob \(1, 3\)"),
        ([[1, 1], [0, 1]], [[0.5, 0.5], [0.5, 0.5]], r"a row of y_true_onehot is not one-hot"),
        ([[1, 0], [0, 1]], [[float("nan"), 0.5], [0.5, 0.5]], r"y_prob holds NaN or infinity"),
    ],
    ids=["shapes", "not one-hot", "nan"],
)
def test_unusable_arrays_are_refused(
    tmp_path: Path, onehot: list[list[int]], prob: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plot_roc_pr_curves(onehot, prob, tmp_path)


def test_another_number_of_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 1 class names for 2 classes"):
        plot_roc_pr_curves([[1, 0], [0, 1]], [[0.6, 0.4], [0.7, 0.3]], tmp_path, class_names=["K-1"])


def test_streamed_answers_give_the_same_curves(tmp_path: Path, drawn: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    logits, true = rng.normal(0, 2, (400, 20)).astype(np.float32), np.arange(400) % 20
    logits[np.arange(400), true] += 2
    plot_roc_pr_curves(np.eye(20)[true], softmax(logits), tmp_path / "whole")
    plot_roc_pr_of_answers(streamed(logits, true, keep=True), tmp_path / "streamed")
    whole, kept = [[float(text.split("A")[-1].split()[1].strip(",")) for text in legend(f)[:5]] for f in drawn[::2]]
    assert kept == pytest.approx(whole, abs=2e-3)


def test_answers_without_logits_have_no_curves(tmp_path: Path) -> None:
    found = streamed(np.eye(3, dtype=np.float32), np.arange(3))
    with pytest.raises(ValueError, match=r"logits of all classes were not kept; .* Pass keep_logits=True"):
        plot_roc_pr_of_answers(found, tmp_path)
