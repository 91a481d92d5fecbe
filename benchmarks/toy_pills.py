"""Pictures so small that ten thousand steps on them take seconds: squares of noise around a colour of their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pillsnap.data.batches import ClassificationSample
from pillsnap.data.datasets import ClassificationDataset, Key
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.records import Records


class ToyPills(ClassificationDataset):
    """A classification data set in memory; a sample is turned by its epoch, as augmentation would change it."""

    def __init__(self, num_pills: int, num_classes: int, spec: ClassifierInput, seed: int) -> None:
        """Draw `num_pills` pictures."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(num_pills) % num_classes
        items = ClassificationItems(np.arange(num_pills), np.full(num_pills, NO_BOX), labels.numpy())
        # Nothing of the table or of the views is read: `__getitem__` is the only way to a sample.
        super().__init__(cast(Records, None), items, Path(), cast(Any, (None, None)), spec)
        colours = torch.randint(40, 216, (num_classes, 3, 1, 1), generator=generator)
        noise = torch.randint(-40, 41, (num_pills, 3, spec.size_px, spec.size_px), generator=generator)
        self._images = (colours[labels] + noise).to(torch.uint8)

    def __getitem__(self, key: Key) -> ClassificationSample:
        """Return the sample at `(epoch, position)`."""
        epoch, position = key
        image = self._images[position].rot90(epoch % 4, (1, 2)).contiguous()
        return ClassificationSample(image, int(self.items.labels[position]), position)
