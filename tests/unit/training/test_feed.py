"""The way of a batch to the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pillsnap.data.batches import Broken, ClassificationBatch
from pillsnap.training.feed import DeviceFeed, feed

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _batches(count: int, *, pinned: bool = False) -> Iterator[ClassificationBatch]:
    for number in range(count):
        batch = ClassificationBatch(
            torch.full((2, 3, 8, 8), number, dtype=torch.uint8), torch.tensor([number, 0]), [number, number]
        )
        yield batch.pin_memory() if pinned else batch


def test_a_cpu_gets_the_loaders_own_batches() -> None:
    batches = _batches(3)
    assert feed(batches, torch.device("cpu")) is batches


def test_only_the_images_of_a_batch_move() -> None:
    moved = next(_batches(1)).to(torch.device("meta"))
    assert moved.images_BCHW.device.type == "meta"
    assert moved.labels_B.device.type == "cpu"


@pytest.mark.gpu
@NEEDS_GPU
def test_a_gpu_gets_every_batch_in_order_with_its_images_on_the_device() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    found = list(DeviceFeed(_batches(5, pinned=True), device))
    assert [int(batch.images_BCHW[0, 0, 0, 0]) for batch in found if not isinstance(batch, list)] == [0, 1, 2, 3, 4]
    assert all(batch.images_BCHW.is_cuda for batch in found if not isinstance(batch, list))


@pytest.mark.gpu
@NEEDS_GPU
def test_a_batch_of_broken_pictures_passes_through() -> None:
    broken = [Broken("a.png", "cut off")]
    found = list(DeviceFeed(iter([broken]), torch.device("cuda", torch.cuda.current_device())))
    assert found == [broken]


@pytest.mark.gpu
@NEEDS_GPU
def test_an_error_ahead_comes_before_the_batch_in_hand() -> None:
    def failing() -> Iterator[ClassificationBatch]:
        yield from _batches(1, pinned=True)
        raise MemoryError

    with pytest.raises(MemoryError):
        next(DeviceFeed(failing(), torch.device("cuda", torch.cuda.current_device())))
