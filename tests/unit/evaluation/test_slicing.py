"""Evaluating in slices when memory runs out."""

from __future__ import annotations

import logging

import pytest
import torch

from pillsnap.data.batches import ClassificationBatch
from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.evaluation.slicing import EvaluationCut

CPU = torch.device("cpu")


def _batch(num_samples: int) -> ClassificationBatch:
    return ClassificationBatch(
        torch.zeros(num_samples, 3, 2, 2), torch.arange(num_samples), [100 + index for index in range(num_samples)]
    )


class _Limited:
    """Computes the ids of what it is given, up to a number of samples at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, part: ClassificationBatch) -> list[int]:
        self.sizes.append(len(part))
        if len(part) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part.sample_ids


@pytest.mark.req("INT-4")
@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 100])
def test_every_sample_is_evaluated_once_and_in_order(most: int) -> None:
    cut, limited = EvaluationCut(CPU), _Limited(most)
    found = [sample for part in cut.over(_batch(8), limited) for sample in part]
    assert found == list(range(100, 108))


def test_the_size_that_fits_is_remembered_for_the_next_batch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    cut, limited = EvaluationCut(CPU, label="val/detection"), _Limited(3)
    cut.over(_batch(8), limited)
    assert limited.sizes == [8, 4, 2, 2, 2, 2]
    cut.over(_batch(5), limited)
    assert limited.sizes[6:] == [2, 2, 1]
    assert "[val/detection] evaluation ran out of memory" in caplog.text
    assert "4 -> 2 samples at once; training is not affected" in caplog.text


def test_a_sample_that_does_not_fit_ends_it() -> None:
    with pytest.raises(OutOfMemoryFloorError, match="evaluating a single sample ran out of memory"):
        EvaluationCut(CPU).over(_batch(2), _Limited(0))


def test_another_error_is_not_tried_again() -> None:
    calls = []

    def compute(part: ClassificationBatch) -> None:
        calls.append(part)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        EvaluationCut(CPU).over(_batch(2), compute)
    assert len(calls) == 1
