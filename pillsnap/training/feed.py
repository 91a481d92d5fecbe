"""Batches on their way to the GPU: copied on a stream of their own, one batch ahead of the step that uses them.

A step then finds its samples on the device, whatever the host is doing. A CPU needs none of this.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pillsnap.data.batches import Batch, Broken

MAX_STAGED_BYTES = 256_000_000
"""Larger steps stay in host memory, from where each slice is copied: two of them would take a card's memory for nothing
that a slice does not hide as well."""

Fetched = Batch | list[Broken]


@dataclass(frozen=True, slots=True)
class _Staged:
    """A batch and the event after which its images are on the device; None where nothing was copied."""

    batch: Fetched
    is_copied: torch.cuda.Event | None


class DeviceFeed:
    """Iterates over the batches of a loader with their images on the GPU; labels, light and boxes stay on the host.

    An error while the batch ahead is fetched or copied is raised before the one in hand is given away, so a caller that
    starts again from its own position misses none.
    """

    def __init__(self, batches: Iterator[Fetched], device: torch.device) -> None:
        """Feed `device`, a GPU, from `batches` in page-locked memory."""
        self._batches = batches
        self._device = device
        self._stream = _copy_stream(device)
        self._ahead: _Staged | None = None
        self._is_staging = True

    def __iter__(self) -> DeviceFeed:
        """Return itself."""
        return self

    def __next__(self) -> Fetched:
        """Return the next batch; its images may be used on the current stream."""
        current = self._stage(next(self._batches)) if self._ahead is None else self._ahead
        following = next(self._batches, None)
        self._ahead = None if following is None else self._stage(following)
        if current.is_copied is not None and not isinstance(current.batch, list):
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(current.is_copied)
            # The allocator must not hand the memory out again before this stream is done with it.
            current.batch.images_BCHW.record_stream(stream)
        return current.batch

    def _stage(self, batch: Fetched) -> _Staged:
        if isinstance(batch, list) or not self._is_staging or batch.images_BCHW.nbytes > MAX_STAGED_BYTES:
            return _Staged(batch, None)
        try:
            with torch.cuda.stream(self._stream):
                copied = batch.to(self._device)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
        except torch.OutOfMemoryError:
            # Not the loader's fault, and no step's: slices are copied from the host as if there were no feed.
            self._is_staging = False
            return _Staged(batch, None)
        return _Staged(copied, event)


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a device for copies: memory cached for one stream is not used again by another."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def feed(batches: Iterator[Fetched], device: torch.device) -> Iterator[Fetched]:
    """Return the batches of a loader as a training step on `device` is to get them."""
    return DeviceFeed(batches, device) if device.type == "cuda" else batches
