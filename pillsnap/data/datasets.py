"""PyTorch datasets over the picture table: two for the classifier, two for the detector.

A dataset is indexed by `(epoch, position, turn)`: the epoch travels with the request, so persistent workers never hold
a stale one. A picture that cannot be decoded comes back as `Broken`; nothing else is swallowed.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pillsnap.boxes import FloatArray, xyxy_to_cxcywh_norm
from pillsnap.data.batches import (
    Broken,
    ClassificationSample,
    DetectionSample,
    LoadStats,
    Sample,
    Samples,
    channels_first,
    shared_images,
)
from pillsnap.data.colour import Augmentation, Colour, draw_colour
from pillsnap.data.images import RgbImage
from pillsnap.data.items import ClassificationItems
from pillsnap.data.pixels import DetectorParts, EvaluationParts
from pillsnap.data.preprocess import PAD_VALUE, ClassifierInput, letterbox
from pillsnap.data.randomness import sample_generator, seeded_globals
from pillsnap.data.training_parts import TrainingParts
from pillsnap.data.transforms import random_square
from pillsnap.errors import BrokenImageError

Key = tuple[int, int, int]
"""Epoch, position in the dataset, and the how-manieth time (from 0) that sample comes in its epoch."""


class ClassificationDataset(Dataset[ClassificationSample | Broken], ABC):
    """Views of single pills with their class index; a batch is drawn into memory that the main process shares."""

    def __init__(self, parts: TrainingParts | EvaluationParts, spec: ClassifierInput) -> None:
        """Serve the items of `parts` as inputs of `spec`; whoever reads the loader needs it to normalise."""
        self.parts = parts
        self.spec = spec

    @property
    def items(self) -> ClassificationItems:
        """The pills that are served, in the order of their positions."""
        return self.parts.items

    def __len__(self) -> int:
        """Return the number of pills."""
        return len(self.items)

    def __getitem__(self, key: Key) -> ClassificationSample | Broken:
        """Return the sample at `(epoch, position, turn)`, or `Broken` when its picture cannot be decoded."""
        sample = self.__getitems__([key])[0]
        assert not isinstance(sample, DetectionSample)
        return sample

    def __getitems__(self, keys: Sequence[Key]) -> Samples:
        """Return the samples of a batch; their images lie side by side in one piece of memory."""
        images = shared_images(len(keys), self.spec.size_px)
        return _loaded(self._drawn(keys, images), self.parts.take_load, images)

    def _drawn(self, keys: Sequence[Key], images_BHWC: torch.Tensor) -> Iterable[ClassificationSample | Broken]:
        places = images_BHWC.numpy()
        originals = self.parts.originals
        num_drawn = 0
        for epoch, position, turn in keys:
            row = int(self.items.rows[position])
            sample_id = originals.records.sample_id(row)
            try:
                colour = self.draw((epoch, position, turn), sample_id, places[num_drawn])
            except BrokenImageError as error:
                yield Broken(originals.records.image_path(row), str(error), error.kind)
                continue
            image_CHW = images_BHWC[num_drawn].permute(2, 0, 1)
            num_drawn += 1
            yield ClassificationSample(image_CHW, int(self.items.labels[position]), sample_id, colour)

    @abstractmethod
    def draw(self, key: Key, sample_id: int, out: RgbImage) -> Colour | None:
        """Draw the view of an item into `out`, uint8 (S, S, 3), and return its light.

        Raises:
            BrokenImageError: The picture cannot be decoded.
        """


class ClassificationTrainingDataset(ClassificationDataset):
    """Random views of pills, owned by (seed, epoch, sample, box) and, where a sample is repeated, its turn.

    A crop of a combination picture always uses its box, whatever the view asks for single pictures: its frame shows
    other drugs as well.
    """

    parts: TrainingParts

    def __init__(self, parts: TrainingParts, spec: ClassifierInput, augmentation: Augmentation, seed: int) -> None:
        """Draw views of the kind that `parts` keeps levels for."""
        super().__init__(parts, spec)
        self.augmentation = augmentation
        self.seed = seed

    def draw(self, key: Key, sample_id: int, out: RgbImage) -> Colour:
        """Draw a random view and return its random light."""
        epoch, position, turn = key
        originals = self.parts.originals
        row, number = int(self.items.rows[position]), int(self.items.box_numbers[position])
        repeat = (turn,) if turn else ()
        rng = sample_generator(self.seed, "classification", epoch, sample_id, number, *repeat)
        box, is_combo = originals.box_xyxy(row, number), originals.is_combo(row)
        view = "box" if is_combo else self.parts.view
        square = random_square(originals.size_wh(row), box, self.spec.frame_fit, view, rng)
        degrees = rng.uniform(-self.augmentation.rotation_degrees, self.augmentation.rotation_degrees)
        self.parts.level(position, square, box, is_combo=is_combo).view(square, degrees, out)
        return draw_colour(self.augmentation, rng)


class ClassificationEvaluationDataset(ClassificationDataset):
    """The fixed views used for validation and test: the whole frame, or the padded box."""

    parts: EvaluationParts

    def __init__(self, parts: EvaluationParts) -> None:
        """Serve the views of `parts`."""
        super().__init__(parts, parts.spec)

    def draw(self, key: Key, sample_id: int, out: RgbImage) -> None:
        """Copy the fixed view; its light is left as it is."""
        np.copyto(out, self.parts.pixels(key[1]))


class DetectionPictures:
    """Decoded pictures and boxes for the detector, as ultralytics' mosaic asks for them.

    `cache = "ram"` makes its mosaic draw partners from the whole data set: its other way draws from a buffer of what
    this worker happened to load, which would tie results to the number of workers.
    """

    cache = "ram"

    def __init__(self, parts: DetectorParts, label: LabelBuilder) -> None:
        """Serve the pictures of `parts`; `label` builds the transforms' label from (image, boxes, original size)."""
        self.parts = parts
        self.records = parts.originals.records
        self.size_px = parts.size_px
        self.data: dict[str, Any] = {}
        self._label = label

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the pictures in the table, in the order of their positions."""
        return self.parts.rows

    def row(self, position: int) -> int:
        """Return the row of a picture in the table."""
        return int(self.rows[position])

    def sample_id(self, position: int) -> int:
        """Return the id of a picture."""
        return self.records.sample_id(self.row(position))

    def broken(self, position: int, error: BrokenImageError) -> Broken:
        """Return what stands for a picture that cannot be decoded."""
        return Broken(self.records.image_path(self.row(position)), str(error), error.kind)

    def label(self, position: int) -> dict[str, Any]:
        """Return the transforms' label for a picture, whose longer side fits the input.

        Raises:
            BrokenImageError: It cannot be decoded.
        """
        image = self.parts.pixels(position)
        width, height = self.parts.originals.size_wh(self.row(position))
        return self._label(image, self.boxes_norm(position, (width, height)), (height, width))

    def boxes_norm(self, position: int, size_wh: tuple[int, int]) -> FloatArray:
        """Return the boxes of a picture of `size_wh` pixels, (N, 4) normalised centre format."""
        return xyxy_to_cxcywh_norm(self.records.boxes_xyxy(self.row(position)), size_wh)

    def get_image_and_label(self, position: int) -> dict[str, Any]:
        """Return a mosaic partner; a broken one becomes a grey picture without pills.

        It is counted as broken when its own turn comes; losing the good picture it was to stand beside would be wrong.
        """
        try:
            return self.label(position)
        except BrokenImageError:
            grey = np.full((self.size_px, self.size_px, 3), PAD_VALUE, np.uint8)
            return self._label(grey, np.zeros((0, 4), np.float32), (self.size_px, self.size_px))


LabelBuilder = Callable[[RgbImage, FloatArray, tuple[int, int]], dict[str, Any]]
Transforms = Callable[[dict[str, Any]], dict[str, Any]]


class DetectionTrainingDataset(Dataset[DetectionSample | Broken]):
    """Augmented detector inputs; mosaic is closed for the last epochs, as YOLO's recipe does."""

    def __init__(
        self, pictures: DetectionPictures, mosaic: Transforms, plain: Transforms, *, mosaic_epochs: int, seed: int
    ) -> None:
        """Augment `pictures` with `mosaic` in epochs below `mosaic_epochs` and with `plain` after."""
        self.pictures = pictures
        self.mosaic = mosaic
        self.plain = plain
        self.mosaic_epochs = mosaic_epochs
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def __getitem__(self, key: Key) -> DetectionSample | Broken:
        """Return the sample at `(epoch, position, turn)`, or `Broken` when its picture cannot be decoded."""
        epoch, position, _ = key
        try:
            label = self.pictures.label(position)
        except BrokenImageError as error:
            return self.pictures.broken(position, error)
        sample_id = self.pictures.sample_id(position)
        transforms = self.mosaic if epoch < self.mosaic_epochs else self.plain
        with seeded_globals(self.seed, "detection", epoch, sample_id):
            out = transforms(label)
        boxes = out["bboxes"].float().reshape(-1, 4).numpy()
        return DetectionSample(out["img"], boxes, sample_id, self.pictures.row(position))

    def __getitems__(self, keys: Sequence[Key]) -> Samples:
        """Return the samples of a batch."""
        return _loaded((self[key] for key in keys), self.pictures.parts.take_load)


class DetectionEvaluationDataset(Dataset[DetectionSample | Broken]):
    """Letterboxed photographs with the way back to their pixels."""

    def __init__(self, pictures: DetectionPictures) -> None:
        """Serve `pictures` without augmentation."""
        self.pictures = pictures

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def __getitem__(self, key: Key) -> DetectionSample | Broken:
        """Return the sample at `(epoch, position, turn)` (the epoch does not matter), or `Broken`."""
        _, position, _ = key
        pictures = self.pictures
        try:
            image = pictures.parts.pixels(position)
        except BrokenImageError as error:
            return pictures.broken(position, error)
        row = pictures.row(position)
        pixels, geometry = letterbox(image, pictures.size_px, pictures.parts.originals.size_wh(row))
        target = pictures.records.boxes_xyxy(row)
        boxes = xyxy_to_cxcywh_norm(geometry.to_input(target), (pictures.size_px, pictures.size_px))
        return DetectionSample(channels_first(pixels), boxes, pictures.sample_id(position), row, geometry, target)

    def __getitems__(self, keys: Sequence[Key]) -> Samples:
        """Return the samples of a batch."""
        return _loaded((self[key] for key in keys), self.pictures.parts.take_load)


def _loaded(
    samples: Iterable[Sample | Broken], take_load: Callable[[], LoadStats], images_BHWC: torch.Tensor | None = None
) -> Samples:
    """Load the samples of a batch and note what that took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = list(samples)
    load = take_load()
    load.wall_s, load.cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    load.view_s = load.wall_s - load.read_s - load.decode_s
    load.num_samples = len(found)
    return Samples(found, load, images_BHWC)
