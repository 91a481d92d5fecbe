"""What is kept of a classifier's answer: a few numbers a pill, whatever the number of classes.

(N, C) probabilities of 60,000 pills and 5,000 classes would take 1.2 GB in memory, and several times that in the
making of figures. Every figure of a split needs less: the true class, where it ranked, the most probable classes, and
the loss. They are computed where the logits are and fetched once, at the end, so a GPU is never waited for in between.

Shapes: B pills of a batch, N of a split, C classes, K = min(5, C) most probable classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pillsnap.data.batches import Broken
from pillsnap.evaluation.logit_store import LOWEST, LogitStore

NUM_TOP = 5
NO_CLASS = -1
"""The label of a drug the model does not know, and the rank of its true class."""

_FIRST_ROWS = 1024

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationPredictions:
    """What the classifier said about N pills of C classes."""

    y_true: NDArray[np.int64]
    """(N,) class numbers; -1 for drugs the model does not know."""
    ranks: NDArray[np.int32]
    """(N,) how many classes came before the true one (equal logits rank by class number); -1 where that is unknown."""
    nll: Floats
    """(N,) negative log likelihood of the true class, nats; NaN where that is unknown."""
    top_classes: NDArray[np.int32]
    """(N, K) most probable first."""
    top_logits: Floats
    """(N, K)."""
    log_sum_exp: Floats
    """(N,) log of the sum of exp(logit): a probability is exp(logit - log_sum_exp)."""
    sample_ids: NDArray[np.uint64]
    """(N,) id of each pill's picture."""
    num_classes: int
    """C."""
    loss: float
    """Mean of the criterion over the pills of known drugs, weighted by class where it is; NaN where there are none."""
    broken: list[Broken] = field(default_factory=list)
    logits: LogitStore | None = None
    """All logits, where they were asked for."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.y_true)

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """(N,) the most probable class; the lower number where two are equal."""
        return self.top_classes[:, 0].astype(np.int64)

    @property
    def top_probabilities(self) -> Floats:
        """(N, K) softmax probabilities of `top_classes`."""
        return np.asarray(np.exp(self.top_logits - self.log_sum_exp[:, None]), np.float32)

    @property
    def confidence(self) -> Floats:
        """(N,) probability of the most probable class."""
        return np.asarray(np.exp(self.top_logits[:, 0] - self.log_sum_exp), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class BatchAnswers:
    """What is kept of one batch, still on the device its logits were on."""

    integers: torch.Tensor
    """int32 (B, 1 + K): the rank of the true class, then the most probable classes."""
    floats: torch.Tensor
    """float32 (B, 2 + K): nll, log_sum_exp, then the logits of the most probable classes."""
    distances: torch.Tensor | None
    """float16 (B, C) as `LogitStore` keeps them; None where nobody asked."""
    num_classes: int
    """C."""


def summarise(logits_BC: torch.Tensor, labels_B: torch.Tensor, *, keep_logits: bool = False) -> BatchAnswers:
    """Reduce logits to what is kept of them, on their device and without waiting for it.

    Args:
        logits_BC: float32.
        labels_B: int64 on the same device; -1 for drugs the model does not know.
        keep_logits: Also return them as float16.
    """
    is_known = (labels_B >= 0)[:, None]
    labels_B1 = labels_B.clamp(min=0)[:, None]
    of_true = logits_BC.gather(1, labels_B1)
    numbers = torch.arange(logits_BC.shape[1], device=logits_BC.device)
    before = (logits_BC > of_true) | ((logits_BC == of_true) & (numbers < labels_B1))
    ranks = torch.where(is_known, before.sum(1, keepdim=True), NO_CLASS)
    log_sum_exp = logits_BC.logsumexp(1, keepdim=True)
    nll = torch.where(is_known, log_sum_exp - of_true, torch.nan)
    classes, values = _most_probable(logits_BC)
    distances = (logits_BC - values[:, :1]).clamp(min=LOWEST).half() if keep_logits else None
    return BatchAnswers(
        torch.cat([ranks, classes], dim=1).int(),
        torch.cat([nll, log_sum_exp, values], dim=1),
        distances,
        logits_BC.shape[1],
    )


def _most_probable(logits_BC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers and the logits of the K largest, (B, K) each; equal ones by class number.

    `torch.topk` leaves the order of equal ones open, which would make answers depend on the device.
    """
    left = logits_BC.clone()
    classes, values = [], []
    for _ in range(min(NUM_TOP, logits_BC.shape[1])):
        value, number = left.max(dim=1, keepdim=True)
        left.scatter_(1, number, -torch.inf)
        classes.append(number)
        values.append(value)
    return torch.cat(classes, dim=1), torch.cat(values, dim=1)


class AnswerStream:
    """Gathers the answers of one pass over a split."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._integers = _Rows()
        self._floats = _Rows()
        self._labels = _Rows()
        self._sample_ids = np.empty(0, np.uint64)
        self._store: LogitStore | None = None
        self._num_classes = 0

    def __len__(self) -> int:
        """Return how many pills were answered."""
        return len(self._integers)

    def add(self, labels_B: torch.Tensor, sample_ids: list[int]) -> None:
        """Take note of a batch: int64 labels in host memory, and the pictures' ids."""
        self._labels.add(labels_B[:, None])
        self._sample_ids = np.append(self._sample_ids, np.array(sample_ids, np.uint64))

    def add_answers(self, answers: BatchAnswers) -> None:
        """Add what `summarise` made of a batch or of its next part; waits for the device only to keep logits.

        Raises:
            PillError: Logits cannot be written to the disk.
        """
        self._integers.add(answers.integers)
        self._floats.add(answers.floats)
        self._num_classes = answers.num_classes
        if answers.distances is not None:
            if self._store is None:
                self._store = LogitStore(answers.num_classes)
            self._store.append(answers.distances.cpu().numpy())

    def finish(self, loss: float, broken: list[Broken]) -> ClassificationPredictions:
        """Fetch everything and return it; at least one batch must have been added."""
        integers, floats = self._integers.fetch(), self._floats.fetch()
        if self._store is not None:
            self._store.finish(floats[:, 2])
        return ClassificationPredictions(
            y_true=self._labels.fetch()[:, 0],
            ranks=integers[:, 0],
            nll=floats[:, 0],
            top_classes=integers[:, 1:],
            top_logits=floats[:, 2:],
            log_sum_exp=floats[:, 1],
            sample_ids=self._sample_ids,
            num_classes=self._num_classes,
            loss=loss,
            broken=broken,
            logits=self._store,
        )


class _Rows:
    """Rows in one piece of memory that doubles when it is full.

    Kept one by one, the small tensors of every batch would lie between the large ones that are freed, and the C library
    could not use the holes again: 900 MB were lost for 60,000 pills of 5,000 classes.
    """

    def __init__(self) -> None:
        self._rows: torch.Tensor | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, rows: torch.Tensor) -> None:
        end = self._length + len(rows)
        if self._rows is None or end > len(self._rows):
            larger = rows.new_empty((max(_FIRST_ROWS, 2 * end), rows.shape[1]))
            if self._rows is not None:
                larger[: self._length] = self._rows[: self._length]
            self._rows = larger
        self._rows[self._length : end] = rows
        self._length = end

    def fetch(self) -> NDArray[Any]:
        assert self._rows is not None
        found: NDArray[Any] = self._rows[: self._length].cpu().numpy()
        return found.copy()
