"""What a loader hands to a training step: the samples of one optimizer step, in host memory, uint8.

The step cuts a batch into micro-batches with `slices`; the cut never changes which samples are in it. Broken pictures
are left out and carried along as `broken`, so that they can be counted and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from pillsnap.boxes import FloatArray
from pillsnap.data.preprocess import Letterbox


@dataclass(frozen=True, slots=True)
class Broken:
    """A picture that could not be decoded: its path relative to the data root, why, and a fixed word for counting."""

    image_path: str
    reason: str
    kind: str = "truncated_image"


@dataclass(slots=True)
class LoadStats:
    """What it took to load samples: seconds summed over them, in the process that loaded them."""

    read_s: float = 0.0
    """Waiting for the bytes of original files."""
    decode_s: float = 0.0
    """Making pixels of them, resizing included."""
    view_s: float = 0.0
    """Everything else: reading the store, random views, putting the batch together."""
    cpu_s: float = 0.0
    """Processor time of the process meanwhile; well below `wall_s`, it waited for the disk or for a free core."""
    wall_s: float = 0.0
    hits: dict[str, int] = field(default_factory=dict)
    """Parts of pictures by where they came from: "store" or "original"."""
    num_samples: int = 0

    def add(self, other: LoadStats) -> None:
        """Add what other samples took."""
        for name in ("read_s", "decode_s", "view_s", "cpu_s", "wall_s", "num_samples"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for tier, count in other.hits.items():
            self.hits[tier] = self.hits.get(tier, 0) + count


@dataclass(frozen=True, slots=True)
class ClassificationSample:
    """One view of one pill: uint8 (3, S, S) RGB, its class index, the picture's id, and the light to see it in.

    `colour` is float32 (NUM_VALUES,) of `colour.py`, None outside of training.
    """

    image_CHW: torch.Tensor
    label: int
    sample_id: int
    colour: NDArray[np.float32] | None = None


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
    """G classification samples: images uint8 (G, 3, S, S) in channels_last order, labels int64 (G,).

    `colour_BK` is float32 (G, NUM_VALUES) in host memory, what the step does to the light; None outside of training.
    """

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    sample_ids: list[int]
    broken: list[Broken] = field(default_factory=list)
    colour_BK: torch.Tensor | None = None
    load: LoadStats = field(default_factory=LoadStats)

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return len(self.sample_ids)

    def part(self, start: int, stop: int) -> ClassificationBatch:
        """Return samples `start` to `stop` as views."""
        return ClassificationBatch(
            self.images_BCHW[start:stop],
            self.labels_B[start:stop],
            self.sample_ids[start:stop],
            colour_BK=None if self.colour_BK is None else self.colour_BK[start:stop],
        )

    def slices(self, micro_batch: int) -> Iterator[ClassificationBatch]:
        """Cut into consecutive micro-batches of at most `micro_batch` samples, as views."""
        return (self.part(start, start + micro_batch) for start in range(0, len(self), micro_batch))

    def pin_memory(self) -> ClassificationBatch:
        """Return the batch in page-locked memory (called by the loader's pinning thread)."""
        return replace(
            self,
            images_BCHW=self.images_BCHW.pin_memory(),
            labels_B=self.labels_B.pin_memory(),
            colour_BK=None if self.colour_BK is None else self.colour_BK.pin_memory(),
        )

    def to(self, device: torch.device) -> ClassificationBatch:
        """Return the batch with its images on `device`; from page-locked memory without waiting.

        Labels and light stay on the host, where they decide how slices are weighted and which are blurred.
        """
        return replace(self, images_BCHW=self.images_BCHW.to(device, non_blocking=True))


@dataclass
class DetectionBatch:
    """G detection samples: images uint8 (G, 3, S, S) and a list of G samples with their boxes."""

    images_BCHW: torch.Tensor
    samples: Sequence[DetectionSample]
    broken: list[Broken] = field(default_factory=list)
    load: LoadStats = field(default_factory=LoadStats)

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
        boxes = torch.from_numpy(np.concatenate([sample.boxes_cxcywh_norm for sample in self.samples]))
        index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).float()
        return {
            "batch_idx": _sent(index, device),
            "cls": torch.zeros(len(boxes), 1, device=device),
            "bboxes": _sent(boxes, device),
        }

    def pin_memory(self) -> DetectionBatch:
        """Return the batch in page-locked memory (called by the loader's pinning thread)."""
        return replace(self, images_BCHW=self.images_BCHW.pin_memory())

    def to(self, device: torch.device) -> DetectionBatch:
        """Return the batch with its images on `device`; from page-locked memory without waiting."""
        return replace(self, images_BCHW=self.images_BCHW.to(device, non_blocking=True))


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to `device` without the host waiting for the copy, which takes page-locked memory."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


Sample = ClassificationSample | DetectionSample
Batch = ClassificationBatch | DetectionBatch


class Samples(list[Sample | Broken]):
    """The samples of one batch, with what they took to load and, where they have one, the memory they share."""

    def __init__(
        self, samples: Iterable[Sample | Broken], load: LoadStats, images_BHWC: torch.Tensor | None = None
    ) -> None:
        """Hold `samples`; their images are the first places of `images_BHWC`, in order, without gaps."""
        super().__init__(samples)
        self.load = load
        self.images_BHWC = images_BHWC


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
    load = samples.load if isinstance(samples, Samples) else LoadStats(num_samples=len(samples))
    if classification:
        return ClassificationBatch(
            _images(samples, classification),
            torch.tensor([sample.label for sample in classification], dtype=torch.int64),
            [sample.sample_id for sample in classification],
            broken,
            _colours(classification),
            load,
        )
    if detection:
        images = torch.stack([sample.image_CHW for sample in detection if sample.image_CHW is not None])
        return DetectionBatch(images, [replace(sample, image_CHW=None) for sample in detection], broken, load)
    return broken


def _images(samples: Sequence[Sample | Broken], usable: list[ClassificationSample]) -> torch.Tensor:
    if isinstance(samples, Samples) and samples.images_BHWC is not None:
        return samples.images_BHWC[: len(usable)].permute(0, 3, 1, 2)
    return torch.stack([sample.image_CHW for sample in usable])


def _colours(usable: list[ClassificationSample]) -> torch.Tensor | None:
    colours = [sample.colour for sample in usable if sample.colour is not None]
    return torch.from_numpy(np.stack(colours)) if colours else None


def shared_images(num_images: int, size_px: int) -> torch.Tensor:
    """Return memory for the images of a batch, uint8 (num_images, size_px, size_px, 3), contents undefined.

    In a loader's worker it is shared with the main process, so that a finished batch is not copied on its way there.
    """
    shape = (num_images, size_px, size_px, 3)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    # As torch's own collate function does it; there is no public way to shared memory without a copy.
    storage = torch.UntypedStorage._new_shared(num_images * size_px * size_px * 3)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def channels_first(image_HWC: NDArray[np.uint8]) -> torch.Tensor:
    """Return a uint8 (3, H, W) tensor that owns its memory."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))
