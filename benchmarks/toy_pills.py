"""Pictures so small that ten thousand steps on them take seconds: squares of noise around a colour of their class."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from pillsnap.data.batches import ClassificationSample, LoadStats, Samples
from pillsnap.data.datasets import ClassificationDataset, Key
from pillsnap.data.images import RgbImage
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.pixels import EvaluationParts
from pillsnap.data.preprocess import ClassifierInput


class ToyPills(ClassificationDataset):
    """A classification data set in memory; a sample is turned by its epoch, as augmentation would change it."""

    def __init__(self, num_pills: int, num_classes: int, spec: ClassifierInput, seed: int) -> None:
        """Draw `num_pills` pictures."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(num_pills) % num_classes
        items = ClassificationItems(np.arange(num_pills), np.full(num_pills, NO_BOX), labels.numpy())
        # Nothing of a table or a store is read: `__getitems__` is the only way to samples.
        super().__init__(cast(EvaluationParts, SimpleNamespace(items=items)), spec)
        colours = torch.randint(40, 216, (num_classes, 3, 1, 1), generator=generator)
        noise = torch.randint(-40, 41, (num_pills, 3, spec.size_px, spec.size_px), generator=generator)
        self._images = (colours[labels] + noise).to(torch.uint8)

    def __getitems__(self, keys: Sequence[Key]) -> Samples:
        """Return the samples of a batch."""
        return Samples([self._sample(epoch, position) for epoch, position, _ in keys], LoadStats())

    def draw(self, key: Key, sample_id: int, out: RgbImage) -> None:
        """Draw one picture."""
        epoch, position, _ = key
        np.copyto(out, self._sample(epoch, position).image_CHW.permute(1, 2, 0).numpy())

    def _sample(self, epoch: int, position: int) -> ClassificationSample:
        image = self._images[position].rot90(epoch % 4, (1, 2)).contiguous()
        return ClassificationSample(image, int(self.items.labels[position]), position)
