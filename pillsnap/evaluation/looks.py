"""What the pills of a split look like, measured picture by picture in worker processes (`inference/appearance.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from pillsnap.data.items import NO_BOX, ClassificationItems, classification_items
from pillsnap.data.loaders import start_worker
from pillsnap.data.originals import Originals
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError
from pillsnap.inference.appearance import MAX_REFERENCES, NUM_FEATURES, describe

Descriptions = NDArray[np.float32]

_PICTURES_AT_ONCE = 16


class _Looks(Dataset[NDArray[np.float32]]):
    """Describes pills by their place in a list."""

    def __init__(self, data: TwoStageData, items: ClassificationItems, view: str, frame_fit: str) -> None:
        self._originals = Originals(data.records, data.root)
        self._items = items
        self._view = view
        self._frame_fit = frame_fit

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        row, number = int(self._items.rows[index]), int(self._items.box_numbers[index])
        is_whole = self._view == "frame" and not self._originals.is_combo(row)
        box = self._originals.box_xyxy(row, NO_BOX if is_whole else number)
        try:
            return describe(self._originals.open(row).full(), box, self._frame_fit)
        except BrokenImageError:  # counted where it was to be classified
            return np.full(NUM_FEATURES, np.nan, np.float32)


def describe_items(data: TwoStageData, items: ClassificationItems, cfg: DictConfig, frame_fit: str) -> Descriptions:
    """Describe pills as they are seen when they are judged.

    Args:
        data: The run's data.
        items: N pills; a single picture is searched for its pill where `data.classification.eval_view` is `frame`,
            otherwise the labelled box is taken.
        cfg: Its loader and view settings.
        frame_fit: The classifier's, see `ClassifierInput`.

    Returns:
        float32 (N, NUM_FEATURES); NaN where no pill stands out or the picture is broken.
    """
    if not len(items):
        return np.empty((0, NUM_FEATURES), np.float32)
    loader = DataLoader(
        _Looks(data, items, cfg.data.classification.eval_view, frame_fit),
        batch_size=_PICTURES_AT_ONCE,
        num_workers=cfg.dataloader.num_workers if len(items) > _PICTURES_AT_ONCE else 0,
        collate_fn=np.stack,
        worker_init_fn=start_worker,
        generator=torch.Generator().manual_seed(0),  # the global generator belongs to training
    )
    return np.concatenate(list(loader))


def reference_items(data: TwoStageData, cfg: DictConfig) -> ClassificationItems:
    """Return the training pills that new ones are compared with: up to `MAX_REFERENCES` of a drug, evenly spread.

    Single pictures come before pills cut out of combinations.
    """
    tasks: tuple[Any, ...] = ("single", "combo") if cfg.data.classification.combo_crops else ("single",)
    rows = data.rows("train")
    parts = [classification_items(data.records, rows, data.class_map, (task,)) for task in tasks]
    items = ClassificationItems(
        rows=np.concatenate([part.rows for part in parts]),
        box_numbers=np.concatenate([part.box_numbers for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
    order = np.argsort(items.labels, kind="stable")
    starts = np.flatnonzero(np.diff(items.labels[order], prepend=-1))
    chosen = [
        members[np.linspace(0, len(members) - 1, min(MAX_REFERENCES, len(members))).round().astype(np.int64)]
        for members in np.split(order, starts[1:])
        if len(members)
    ]
    return items.take(np.concatenate(chosen)) if chosen else items
