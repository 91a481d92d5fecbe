"""Answers of a classifier, made of logits in memory."""

from __future__ import annotations

import numpy as np
import torch

from pillsnap.evaluation.streaming import AnswerStream, ClassificationPredictions, summarise


def streamed(
    logits: np.ndarray, labels: np.ndarray, batch: int = 7, *, keep: bool = False
) -> ClassificationPredictions:
    """Return what is kept of float32 (N, C) logits; picture i has the id i."""
    stream = AnswerStream()
    for start in range(0, len(logits), batch):
        part = torch.from_numpy(labels[start : start + batch])
        stream.add(part, list(range(start, start + len(part))))
        stream.add_answers(summarise(torch.from_numpy(logits[start : start + batch]), part, keep_logits=keep))
    return stream.finish(0.0, [])


def answered(true: list[int], pred: list[int], num_classes: int) -> ClassificationPredictions:
    """Return answers with a logit of 2 for the class that is named and 0 for the others."""
    logits = np.zeros((len(true), num_classes), np.float32)
    logits[np.arange(len(true)), pred] = 2.0
    return streamed(logits, np.array(true))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 probabilities."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
