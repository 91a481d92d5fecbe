"""What is kept of a batch against the same figures from whole probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pillsnap.data.batches import Broken, ClassificationBatch
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.errors import DataError, NonFiniteLossError
from pillsnap.evaluation.classification import classification_figures, evaluate_classification_metrics
from pillsnap.evaluation.predictions import classify_loader
from pillsnap.training.losses import TargetWeightedCrossEntropy
from tests.unit.evaluation.classifier_case import softmax, streamed

pytestmark = pytest.mark.req("VAL-1")

SPEC = ClassifierInput(size_px=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), frame_fit="pad")
CROSS_ENTROPY = torch.nn.CrossEntropyLoss()


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size, classes = int(rng.integers(1, 60)), int(rng.integers(2, 30))
    logits = rng.choice([rng.normal(0, 3, (size, classes)), rng.integers(0, 3, (size, classes))])  # also with ties
    return logits.astype(np.float32), rng.integers(0, classes, size)


@pytest.mark.parametrize("seed", range(50))
def test_streamed_figures_equal_those_of_whole_probabilities(seed: int) -> None:
    logits, labels = case(seed)
    prob = softmax(logits)
    wanted = evaluate_classification_metrics(labels, logits.argmax(1), prob, topk=[1, 3, 5])
    assert classification_figures(streamed(logits, labels), topk=[1, 3, 5]) == pytest.approx(wanted, abs=1e-6)


def test_the_five_most_probable_come_in_order_and_ties_by_class_number() -> None:
    logits = np.array([[0, 2, 1, 2, 3, 1]], np.float32)
    found = streamed(logits, np.array([2]))
    assert found.top_classes.tolist() == [[4, 1, 3, 2, 5]]
    assert found.ranks.tolist() == [3]
    np.testing.assert_allclose(found.top_probabilities, softmax(logits)[:, [4, 1, 3, 2, 5]], rtol=1e-6)


def test_unknown_drugs_are_answered_but_have_neither_rank_nor_likelihood() -> None:
    found = streamed(np.array([[1, 2], [3, 0]], np.float32), np.array([-1, 1]))
    assert found.y_pred.tolist() == [1, 0]
    assert found.ranks.tolist() == [-1, 1]
    assert np.isnan(found.nll).tolist() == [True, False]
    assert found.nll[1] == pytest.approx(np.log(1 + np.exp(3)))


def test_figures_of_unknown_drugs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 pills show a drug the model was not trained on; wanted classes"):
        classification_figures(streamed(np.zeros((2, 3), np.float32), np.array([0, -1])))


def test_outputs_that_are_not_finite_are_refused() -> None:
    logits = np.array([[0, np.nan], [0, 1]], np.float32)
    with pytest.raises(NonFiniteLossError, match=r"not finite for 1 of 2 pills; wanted finite logits"):
        classification_figures(streamed(logits, np.array([0, 0])))


class OneNumber(torch.nn.Module):
    """Logits from the first pixel: class 1 above 50, class 0 below."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        value = images[:, 0, 0, 0] * self.scale
        return torch.stack([torch.full_like(value, 50 / 25.5), value], dim=1)


def batch(values: list[int], labels: list[int]) -> ClassificationBatch:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return ClassificationBatch(images, torch.tensor(labels), list(values), [Broken("x.png", "cut off")])


def test_a_loader_is_answered_in_order_with_its_losses_and_what_was_broken() -> None:
    loader = [batch([200, 10], [1, 0]), [Broken("y.png", "empty")], batch([20], [1])]
    model = OneNumber()
    found = classify_loader(model, loader, SPEC, CROSS_ENTROPY)
    assert found.y_true.tolist() == [1, 0, 1]
    assert found.y_pred.tolist() == [1, 0, 0]
    assert found.sample_ids.tolist() == [200, 10, 20]
    assert [broken.image_path for broken in found.broken] == ["x.png", "y.png", "x.png"]
    assert found.loss == pytest.approx(found.nll.mean())
    assert found.logits is None
    assert model.training


def test_a_loss_weighted_by_class_is_the_weighted_mean() -> None:
    criterion = TargetWeightedCrossEntropy(torch.tensor([3.0, 1.0]), label_smoothing=0.0)
    found = classify_loader(OneNumber(), [batch([200, 10], [1, 0]), batch([20], [1])], SPEC, criterion)
    assert found.loss == pytest.approx(np.average(found.nll, weights=[1, 3, 1]))


def test_unknown_drugs_of_a_loader_count_for_no_loss() -> None:
    loader = [batch([200, 10], [-1, 0]), batch([20], [-1])]
    found = classify_loader(OneNumber(), loader, SPEC, CROSS_ENTROPY)
    assert found.loss == pytest.approx(found.nll[1])
    assert np.isnan(classify_loader(OneNumber(), loader[1:], SPEC, CROSS_ENTROPY).loss)


def test_logits_are_kept_where_they_are_asked_for() -> None:
    loader = [batch([200, 10], [1, 0]), batch([20], [1])]
    found = classify_loader(OneNumber(), loader, SPEC, CROSS_ENTROPY, keep_logits=True)
    assert found.logits is not None
    wanted = np.array([[50, 200], [50, 10], [50, 20]]) / 25.5
    np.testing.assert_allclose(found.logits.logits(0, 3), wanted, atol=2e-3)


def test_a_loader_without_one_readable_picture_is_an_error() -> None:
    with pytest.raises(DataError, match=r"None of the 1 pictures to evaluate could be decoded.*First: empty"):
        classify_loader(OneNumber(), [[Broken("y.png", "empty")]], SPEC, CROSS_ENTROPY)
