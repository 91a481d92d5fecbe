"""What loaders have in common, and how long one takes for a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.rounds import Stopwatch

PER_PICTURES = 1000
"""Times are told for so many pictures: contenders load different numbers of them in a turn."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all contenders."""

    image_size: int
    batch_size: int
    num_workers: int
    device: torch.device


class Contender(ABC):
    """A loader of training batches whose workers stay alive between epochs."""

    @abstractmethod
    def epoch(self, *, to_device: bool) -> Iterator[int]:
        """Load one epoch and yield the number of pictures of each batch as soon as it is there.

        Args:
            to_device: True: the batch lies on the device, floating point and normalised, as a model's first layer takes
                it. False: it lies in host memory, uint8.
        """

    def facts(self) -> dict[str, Any]:
        """Return what is worth knowing about it beside its times."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End the workers."""


class TensorLoader(Contender):
    """A loader whose batches are uint8 tensors (B, 3, S, S) with labels; normalised by the usual loop."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        """Load from `loader`."""
        self._loader = loader
        self._device = device
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(shape) * 255
        self._std = torch.tensor(IMAGENET_STD, device=device).view(shape) * 255

    def epoch(self, *, to_device: bool) -> Iterator[int]:
        """See `Contender`."""
        for images, _ in self._loader:
            if to_device:
                images.to(self._device, non_blocking=True).float().sub_(self._mean).div_(self._std)
            yield len(images)

    def close(self) -> None:
        """End the workers."""
        del self._loader


Build = Callable[[Path, Setting, Path], Contender]
"""Makes a contender from the folder of the pictures, the setting, and a folder to write to."""


def load_epochs(contender: Contender, stopwatch: Stopwatch, *, min_s: float, to_device: bool) -> float:
    """Return the seconds a contender takes for `PER_PICTURES` pictures, over whole epochs of at least `min_s` in all.

    An epoch begins without a batch at hand and ends when its last one is there, so nothing is loaded in the turn of
    another.
    """
    start, num_pictures = stopwatch.read(), 0
    while True:
        with closing(contender.epoch(to_device=to_device)) as batches:  # type: ignore[type-var]
            num_pictures += sum(batches)
        seconds = stopwatch.read() - start
        if seconds >= min_s:
            return seconds / num_pictures * PER_PICTURES
