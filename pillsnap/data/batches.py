"""What a loader hands to a training step: the samples of one optimizer step, in host memory, uint8.

The step cuts a batch into micro-batches with `slices`; the cut never changes which samples are in it. Broken pictures
are left out and carried along as `broken`, so that they can be counted and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.preprocess import Letterbox


@dataclass(frozen=True, slots=True)
class Broken:
    """A picture that could not be decoded: its path relative to the data root, and why."""

    image_path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClassificationSample:
    """One view of one pill: uint8 (3, S, S) RGB, its class index, and the picture's id and row."""

    image_CHW: torch.Tensor
    label: int
    sample_id: int


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """One detector input: uint8 (3, S, S) RGB and its boxes, float32 (N, 4), as normalised centre format.

    Inside a batch the image is None: it lies in the batch's tensor, and a second copy would cross from the worker too.
    Boxes are NumPy arrays because every tensor costs a file descriptor on that way. `letterbox`, `target_xyxy` (pixels
    of the photograph) and `row` are there in evaluation only, where the way back to the photograph is known.
    """

    image_CHW: torch.Tensor | None
    boxes_cxcywh_norm: FloatArray
    sample_id: int
    row: int
    letterbox: Letterbox | None = None
    target_xyxy: FloatArray | None = None


@dataclass
class ClassificationBatch:
    """G classification samples: images uint8 (G, 3, S, S), labels int64 (G,)."""

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    sample_ids: list[int]
    broken: list[Broken] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return len(self.sample_ids)

    def part(self, start: int, stop: int) -> ClassificationBatch:
        """Return samples `start` to `stop` as views."""
        return ClassificationBatch(self.images_BCHW[start:stop], self.labels_B[start:stop], self.sample_ids[start:stop])

    def slices(self, micro_batch: int) -> Iterator[ClassificationBatch]:
        """Cut into consecutive micro-batches of at most `micro_batch` samples, as views."""
        return (self.part(start, start + micro_batch) for start in range(0, len(self), micro_batch))

    def pin_memory(self) -> ClassificationBatch:
        """Return the batch in page-locked memory (called by the loader's pinning thread)."""
        return ClassificationBatch(
            self.images_BCHW.pin_memory(), self.labels_B.pin_memory(), self.sample_ids, self.broken
        )


@dataclass
class DetectionBatch:
    """G detection samples: images uint8 (G, 3, S, S) and a list of G samples with their boxes."""

    images_BCHW: torch.Tensor
    samples: Sequence[DetectionSample]
    broken: list[Broken] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return len(self.samples)

    @property
    def sample_ids(self) -> list[int]:
        """Ids of the pictures in the batch."""
        return [sample.sample_id for sample in self.samples]

    def part(self, start: int, stop: int) -> DetectionBatch:
        """Return samples `start` to `stop` as views."""
        return DetectionBatch(self.images_BCHW[start:stop], self.samples[start:stop])

    def slices(self, micro_batch: int) -> Iterator[DetectionBatch]:
        """Cut into consecutive micro-batches of at most `micro_batch` samples, as views."""
        return (self.part(start, start + micro_batch) for start in range(0, len(self), micro_batch))

    def targets(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the flat target tensors YOLO's loss reads: batch_idx (N,), cls (N, 1), bboxes (N, 4)."""
        counts = [len(sample.boxes_cxcywh_norm) for sample in self.samples]
        boxes = torch.from_numpy(np.concatenate([sample.boxes_cxcywh_norm for sample in self.samples])).to(device)
        index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).float()
        return {
            "batch_idx": index.to(device),
            "cls": torch.zeros(len(boxes), 1, device=device),
            "bboxes": boxes,
        }

    def pin_memory(self) -> DetectionBatch:
        """Return the batch in page-locked memory (called by the loader's pinning thread)."""
        return DetectionBatch(self.images_BCHW.pin_memory(), self.samples, self.broken)


Sample = ClassificationSample | DetectionSample
Batch = ClassificationBatch | DetectionBatch


def safe_collate(samples: Sequence[Sample | Broken]) -> Batch | list[Broken]:
    """Collate what could be decoded; a batch in which nothing could is returned as the list of what was broken.

    Args:
        samples: Samples of one task, and `Broken` in place of pictures that could not be decoded.

    Returns:
        A batch that carries the broken ones along, or their list when there is nothing else.
    """
    broken = [sample for sample in samples if isinstance(sample, Broken)]
    classification = [sample for sample in samples if isinstance(sample, ClassificationSample)]
    detection = [sample for sample in samples if isinstance(sample, DetectionSample)]
    if classification:
        return ClassificationBatch(
            torch.stack([sample.image_CHW for sample in classification]),
            torch.tensor([sample.label for sample in classification], dtype=torch.int64),
            [sample.sample_id for sample in classification],
            broken,
        )
    if detection:
        images = torch.stack([sample.image_CHW for sample in detection if sample.image_CHW is not None])
        return DetectionBatch(images, [replace(sample, image_CHW=None) for sample in detection], broken)
    return broken


def channels_first(image_HWC: NDArray[np.uint8]) -> torch.Tensor:
    """Return a uint8 (3, H, W) tensor that owns its memory."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))
