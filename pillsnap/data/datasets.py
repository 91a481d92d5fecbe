"""PyTorch datasets over the picture table: one for the classifier, one for the detector.

A dataset is indexed by `(epoch, position)`: the epoch travels with the request, so persistent workers never hold a
stale one. A picture that cannot be decoded comes back as `Broken`; nothing else is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pillsnap.boxes import FloatArray, xyxy_to_cxcywh_norm
from pillsnap.data.batches import Broken, ClassificationSample, DetectionSample, channels_first
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.preprocess import PAD_VALUE, ClassifierInput, box_view, frame_view, letterbox, resize_longer_side
from pillsnap.data.randomness import sample_generator, seeded_globals
from pillsnap.data.records import COMBO, Records
from pillsnap.data.transforms import Augmentation, training_view
from pillsnap.errors import BrokenImageError

Key = tuple[int, int]  # (epoch, position in the dataset)


View = Callable[[RgbImage, FloatArray | None, int, int, int], RgbImage]


@dataclass(frozen=True, slots=True)
class TrainingView:
    """Random view of a pill, owned by (seed, epoch, sample, box)."""

    spec: ClassifierInput
    augmentation: Augmentation
    view: str
    seed: int

    def __call__(
        self, image: RgbImage, box_xyxy: FloatArray | None, epoch: int, sample_id: int, box_number: int
    ) -> RgbImage:
        """Return uint8 (S, S, 3)."""
        rng = sample_generator(self.seed, "classification", epoch, sample_id, box_number)
        return training_view(image, box_xyxy, self.spec, self.augmentation, self.view, rng)


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """The fixed view used for validation and test: the whole frame, or the padded box."""

    spec: ClassifierInput
    view: str
    crop_padding: float

    def __call__(
        self, image: RgbImage, box_xyxy: FloatArray | None, epoch: int, sample_id: int, box_number: int
    ) -> RgbImage:
        """Return uint8 (S, S, 3)."""
        if box_xyxy is None or self.view == "frame":
            return frame_view(image, self.spec)
        return box_view(image, box_xyxy, self.spec, self.crop_padding)


class ClassificationDataset(Dataset[ClassificationSample | Broken]):
    """Views of single pills with their class index.

    A crop of a combination picture always uses its box, whatever the view asks for single pictures: its frame shows
    other drugs as well.
    """

    def __init__(
        self,
        records: Records,
        items: ClassificationItems,
        root: Path,
        views: tuple[View, View],
        spec: ClassifierInput,
    ) -> None:
        """Serve `items` of `records`, whose pictures lie below `root`.

        Args:
            records: The picture table.
            items: The pills to serve.
            root: The data root.
            views: How single pictures and how crops of combination pictures are turned into inputs.
            spec: The input the views make; whoever reads the loader needs it to normalise.
        """
        self.records = records
        self.items = items
        self.root = root
        self.view, self.combo_view = views
        self.spec = spec

    def __len__(self) -> int:
        """Return the number of pills."""
        return len(self.items)

    def __getitem__(self, key: Key) -> ClassificationSample | Broken:
        """Return the sample at `(epoch, position)`, or `Broken` when its picture cannot be decoded."""
        epoch, position = key
        row, number = int(self.items.rows[position]), int(self.items.box_numbers[position])
        image_path = self.records.image_path(row)
        try:
            image = decode_rgb(self.root / image_path)
        except BrokenImageError as error:
            return Broken(image_path, str(error))
        box = None if number == NO_BOX else self.records.boxes_xyxy(row)[number]
        sample_id = int(self.records.table.column("sample_id")[row].as_py())
        is_combo = self.records.table.column("task")[row].as_py() == COMBO
        view = self.combo_view if is_combo else self.view
        pixels = view(image, box, epoch, sample_id, number)
        return ClassificationSample(channels_first(pixels), int(self.items.labels[position]), sample_id)


class DetectionPictures:
    """Decoded pictures and boxes for the detector, as ultralytics' mosaic asks for them.

    `cache = "ram"` makes its mosaic draw partners from the whole data set: its other way draws from a buffer of what
    this worker happened to load, which would tie results to the number of workers.
    """

    cache = "ram"

    def __init__(
        self, records: Records, rows: NDArray[np.int64], root: Path, size_px: int, label: LabelBuilder
    ) -> None:
        """Serve the pictures in `rows`; `label` builds the transforms' label from (image, boxes, original size)."""
        self.records = records
        self.rows = rows
        self.root = root
        self.size_px = size_px
        self.data: dict[str, Any] = {}
        self._label = label

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows)

    def decode(self, position: int) -> RgbImage:
        """Return the picture at `position`, uint8 RGB."""
        return decode_rgb(self.root / self.records.image_path(int(self.rows[position])))

    def boxes_norm(self, position: int, size_wh: tuple[int, int]) -> FloatArray:
        """Return the boxes of the picture at `position`, (N, 4) normalised centre format."""
        return xyxy_to_cxcywh_norm(self.records.boxes_xyxy(int(self.rows[position])), size_wh)

    def label(self, position: int, image: RgbImage) -> dict[str, Any]:
        """Return the transforms' label for a decoded picture, resized so that its longer side fits the input."""
        height, width = image.shape[:2]
        boxes = self.boxes_norm(position, (width, height))
        return self._label(resize_longer_side(image, self.size_px), boxes, (height, width))

    def get_image_and_label(self, position: int) -> dict[str, Any]:
        """Return a mosaic partner; a broken one becomes a grey picture without pills.

        It is counted as broken when its own turn comes; losing the good picture it was to stand beside would be wrong.
        """
        try:
            return self.label(position, self.decode(position))
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
        """Return the sample at `(epoch, position)`, or `Broken` when its picture cannot be decoded."""
        epoch, position = key
        records, row = self.pictures.records, int(self.pictures.rows[position])
        try:
            image = self.pictures.decode(position)
        except BrokenImageError as error:
            return Broken(records.image_path(row), str(error))
        sample_id = int(records.table.column("sample_id")[row].as_py())
        transforms = self.mosaic if epoch < self.mosaic_epochs else self.plain
        with seeded_globals(self.seed, "detection", epoch, sample_id):
            out = transforms(self.pictures.label(position, image))
        return DetectionSample(out["img"], out["bboxes"].float().reshape(-1, 4).numpy(), sample_id, row)


class DetectionEvaluationDataset(Dataset[DetectionSample | Broken]):
    """Letterboxed photographs with the way back to their pixels."""

    def __init__(self, pictures: DetectionPictures) -> None:
        """Serve `pictures` without augmentation."""
        self.pictures = pictures

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def __getitem__(self, key: Key) -> DetectionSample | Broken:
        """Return the sample at `(epoch, position)` (the epoch does not matter), or `Broken`."""
        _, position = key
        records, row = self.pictures.records, int(self.pictures.rows[position])
        try:
            image = self.pictures.decode(position)
        except BrokenImageError as error:
            return Broken(records.image_path(row), str(error))
        pixels, geometry = letterbox(image, self.pictures.size_px)
        target = records.boxes_xyxy(row)
        boxes = xyxy_to_cxcywh_norm(geometry.to_input(target), (self.pictures.size_px, self.pictures.size_px))
        sample_id = int(records.table.column("sample_id")[row].as_py())
        return DetectionSample(channels_first(pixels), boxes, sample_id, row, geometry, target)
