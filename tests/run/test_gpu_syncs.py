"""Steps between two logging steps never make the host wait for the GPU (UTL-4). Skipped without one.

torch warns of every operation that waits; the warnings are counted. Run on a machine with a GPU:
`python -m pytest -m gpu tests/run/test_gpu_syncs.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pillsnap.data.batches import Batch
from pillsnap.training.task import Task
from tests.run.tiny import tiny_config
from tests.run.tiny_tasks import build_tiny_tasks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.req("UTL-4", "LOP-1"),
]
NUM_WARM, NUM_COUNTED = 3, 4
WORDS = (
    "dataloader.num_workers=1",
    "dataloader.pin_memory=true",
    "logging.step_log_interval=1000",
    "train.batch_size=2",
    "train.detection.batch_size=1",
    "train.classification.amp=true",
    "train.detection.amp=true",
)


class Waits:
    """How often the host waited in a block."""

    count = 0


@contextmanager
def counting_waits() -> Iterator[Waits]:
    """Count the operations in the block that make the host wait for the device."""
    waits = Waits()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
            waits.count = sum("called a synchronizing" in str(warning.message) for warning in caught)


def _tasks(data_root: Path, tmp_path: Path) -> list[Task]:
    device = torch.device("cuda", torch.cuda.current_device())
    return build_tiny_tasks(tiny_config(tmp_path / "exp", data_root, *WORDS), device=device).tasks


def _next(task: Task) -> Batch:
    batch = task.next_samples()
    assert batch is not None
    return batch


def _warm_up(task: Task) -> None:
    for _ in range(NUM_WARM):
        assert task.step(_next(task))


def test_only_what_waits_is_counted() -> None:
    values = torch.ones(3, device="cuda")
    with counting_waits() as none:
        _ = (values * 2).sum()
    with counting_waits() as some:
        values.sum().item()
        values.cpu()
    assert none.count == 0
    assert some.count >= 2


def test_a_step_of_the_classifier_does_not_wait(data_root: Path, tmp_path: Path) -> None:
    task = _tasks(data_root, tmp_path)[0]
    _warm_up(task)
    with counting_waits() as waits:
        for _ in range(NUM_COUNTED):
            assert task.step(_next(task))
    assert waits.count == 0


def test_a_step_of_the_detector_waits_only_inside_the_librarys_loss(data_root: Path, tmp_path: Path) -> None:
    task = _tasks(data_root, tmp_path)[1]
    _warm_up(task)
    for _ in range(NUM_COUNTED):
        with counting_waits() as of_fetching:
            batch = _next(task)
        of_the_loss = _waits_of_the_loss(task, batch)
        with counting_waits() as of_the_step:
            assert task.step(batch)
        assert of_fetching.count == 0
        assert of_the_step.count <= of_the_loss


def _waits_of_the_loss(task: Task, batch: Batch) -> int:
    """Return how often loss and backward pass alone wait, with the images on the device already."""
    on_device = batch.to(task.parts.precision.device)
    with counting_waits() as waits:
        with task.parts.precision.autocast():
            loss = task.parts.loss(on_device)
        loss.backward()  # type: ignore[no-untyped-call]
    task.parts.optimizer.zero_grad(set_to_none=True)
    return waits.count
