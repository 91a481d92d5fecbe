"""Evaluating a batch in slices, smaller ones when memory runs out. No figure depends on how a batch was cut."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import MEMORY_ERRORS, DeviceMemory, describe_failure, free_memory

logger = logging.getLogger("pillsnap")
T = TypeVar("T")


class EvaluationCut:
    """How many samples are evaluated at once; remembered from batch to batch and from epoch to epoch."""

    def __init__(self, device: torch.device, *, label: str = "val", memory: DeviceMemory | None = None) -> None:
        """Begin with whole batches.

        Args:
            device: Where the model is.
            label: Leads the log line.
            memory: What may be used; None for all of the device's.
        """
        self.size: int | None = None
        """Samples at once; None for whole batches."""
        self._label = label
        self._memory = DeviceMemory(device) if memory is None else memory

    def over(self, batch: Any, compute: Callable[[Any], T]) -> list[T]:
        """Return what `compute` makes of consecutive slices that together are `batch`.

        Only what memory ran out for is done again, so `compute` must leave nothing behind when it fails.

        Raises:
            OutOfMemoryFloorError: Not even one sample fits.
        """
        results: list[T] = []
        done = 0
        while done < len(batch):
            size = min(self.size or len(batch), len(batch) - done)
            failure = None
            try:
                results.append(compute(batch.part(done, done + size)))
            except MEMORY_ERRORS as error:
                if not self._memory.is_exhausted_by(error):
                    raise
                failure = describe_failure(error)
            if failure is None:
                done += size
            else:
                self._shrink(size, failure)
        return results

    def _shrink(self, size: int, failure: str) -> None:
        free_memory()
        if size == 1:
            raise OutOfMemoryFloorError(
                f"[{self._label}] evaluating a single sample ran out of memory: {failure}. Close other programs that "
                "use the memory, or use a smaller model.image_size or detection.image_size."
            )
        self.size = size // 2
        logger.warning(
            "[%s] evaluation ran out of memory (%s): %d -> %d samples at once; training is not affected",
            self._label, failure, size, self.size,
        )  # fmt: skip
