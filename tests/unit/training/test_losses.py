"""Class weights and the classifier's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from pillsnap.training.losses import build_criterion_classification, compute_class_weights

pytestmark = pytest.mark.req("PRC-6")


def test_inverse_frequency_weights_have_mean_one() -> None:
    weights = compute_class_weights(np.array([10, 20, 40]), "inv_freq")
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] / weights[2] == pytest.approx(4.0)


def test_effective_number_weights_follow_cui_et_al() -> None:
    counts = np.array([1, 1000])
    expected = np.array([1.0, (1 - 0.999) / (1 - 0.999**1000)])
    found = compute_class_weights(counts, "effective_num")
    assert found.numpy() == pytest.approx(expected / expected.mean(), rel=1e-5)


def test_a_class_without_samples_does_not_divide_by_zero() -> None:
    assert torch.isfinite(compute_class_weights(np.array([0, 5]), "inv_freq")).all()


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(ValueError, match="wanted inv_freq or effective_num"):
        compute_class_weights(np.array([1, 2]), "sqrt")


def test_the_criterion_smooths_labels_and_weighs_classes() -> None:
    weights = torch.tensor([0.5, 1.5])
    criterion = build_criterion_classification(OmegaConf.create({"loss": {"label_smoothing": 0.1}}), weights)
    logits, labels = torch.tensor([[2.0, 0.0], [0.5, 1.0]]), torch.tensor([0, 1])
    log_p = logits.log_softmax(1)
    smoothed = [-(0.95 * log_p[0, 0] + 0.05 * log_p[0, 1]), -(0.05 * log_p[1, 0] + 0.95 * log_p[1, 1])]
    expected = (0.5 * smoothed[0] + 1.5 * smoothed[1]) / 2.0
    assert float(criterion(logits, labels)) == pytest.approx(float(expected))


def test_a_rare_class_does_not_become_the_best_answer_to_a_common_one() -> None:
    weights = compute_class_weights(np.array([100, 100, 1]), "inv_freq")
    criterion = build_criterion_classification(OmegaConf.create({"loss": {"label_smoothing": 0.1}}), weights)
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(logits, torch.tensor([0])).backward()
        optimizer.step()
    assert logits.argmax().item() == 0
    assert logits.softmax(1)[0, 0].item() == pytest.approx(1 - 0.1 + 0.1 / 3, abs=0.01)


def test_the_mean_of_weights_is_one_over_the_classes_that_occur() -> None:
    weights = compute_class_weights(np.array([10, 0, 40]), "inv_freq")
    assert (weights[0] + weights[2]) / 2 == pytest.approx(1.0)


def test_batches_weigh_what_their_labels_weigh() -> None:
    plain = build_criterion_classification(OmegaConf.create({"loss": {"label_smoothing": 0.0}}), None)
    weighted = build_criterion_classification(
        OmegaConf.create({"loss": {"label_smoothing": 0.0}}), torch.tensor([0.5, 1.5])
    )
    labels = torch.tensor([0, 1, 1])
    assert plain.batch_weight(labels) == 3.0
    assert weighted.batch_weight(labels) == 3.5
