"""The classifier's loss and its class weights; the detector's loss is the library's own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

EFFECTIVE_NUMBER_BETA = 0.999  # Cui et al. 2019, "Class-Balanced Loss", the value for tens to thousands of samples


def compute_class_weights(counts: NDArray[np.int64], method: str) -> torch.Tensor:
    """Return one loss weight a class, mean 1 (PRC-6).

    Args:
        counts: (C,) training samples of each class; a class without any gets the weight of one with one.
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
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def build_criterion_classification(cfg: DictConfig, class_weights: torch.Tensor | None) -> nn.Module:
    """Return cross entropy with `loss.label_smoothing` and optional class weights (C,) (PRC-6)."""
    return nn.CrossEntropyLoss(weight=class_weights, label_smoothing=cfg.loss.label_smoothing)
