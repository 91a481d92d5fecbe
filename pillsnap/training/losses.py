"""The classifier's loss and its class weights; the detector's loss is the library's own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional

EFFECTIVE_NUMBER_BETA = 0.999  # Cui et al. 2019, "Class-Balanced Loss", the value for tens to thousands of samples


def compute_class_weights(counts: NDArray[np.int64], method: str) -> torch.Tensor:
    """Return one loss weight a class, mean 1 (PRC-6).

    Args:
        counts: (C,) training samples of each class; a class without any gets 1, which nothing reads.
        method: `inv_freq` (1 / n) or `effective_num` ((1 - beta) / (1 - beta ** n)).

    Returns:
        float32 (C,).

    Raises:
        ValueError: Any other method.
    """
    seen = np.maximum(counts, 1).astype(np.float64)
    if method == "inv_freq":
        weights = 1.0 / seen
    elif method == "effective_num":
        weights = (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**seen)
    else:
        raise ValueError(f"loss.class_weights is {method!r}; wanted inv_freq or effective_num.")
    is_seen = counts > 0
    return torch.tensor(np.where(is_seen, weights / weights[is_seen].mean(), 1.0), dtype=torch.float32)


class TargetWeightedCrossEntropy(nn.Module):
    """Cross entropy whose class weights act on the true class only.

    PyTorch's own weighs the smoothed part of every other class as well: with an imbalance of more than 9 C + 1 and a
    smoothing of 0.1, the best answer to a common drug would then be the rarest one.
    """

    weight: torch.Tensor | None

    def __init__(self, weight: torch.Tensor | None, label_smoothing: float) -> None:
        """Weigh samples by `weight` (C,) of their label; None weighs them alike."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing

    def forward(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean over the batch, a scalar."""
        losses = functional.cross_entropy(logits_BC, labels_B, reduction="none", label_smoothing=self.label_smoothing)
        if self.weight is None:
            return losses.mean()
        weights = self.weight[labels_B]
        return (losses * weights).sum() / weights.sum()

    def batch_weight(self, labels_B: torch.Tensor) -> float:
        """Return what a batch counts for when means of batches are put together."""
        return float(len(labels_B)) if self.weight is None else float(self.weight.cpu()[labels_B.cpu()].sum())


def build_criterion_classification(cfg: DictConfig, class_weights: torch.Tensor | None) -> TargetWeightedCrossEntropy:
    """Return cross entropy with `loss.label_smoothing` and optional class weights (C,) (PRC-6)."""
    return TargetWeightedCrossEntropy(class_weights, cfg.loss.label_smoothing)
