"""A data set on whose photographs every drug has a colour of its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from omegaconf import DictConfig
from PIL import Image

from pillsnap.config.loading import load_config
from pillsnap.data.twostage import TwoStageData
from tests.unit.config.builders import ROOT_CONFIG
from tests.unit.evaluation.hard_cases_case import KNOWN, UNKNOWN, build_data

COLOURS = {KNOWN[0]: (200, 40, 40), KNOWN[1]: (40, 160, 60), UNKNOWN: (60, 60, 200)}
PAPER = 205
GREY = (120, 120, 120)


def build_painted_data(folder: Path) -> TwoStageData:
    """Write and read the data set of `hard_cases_case`, with pills drawn into their boxes."""
    data = build_data(folder)
    for row in range(len(data.records)):
        path = data.root / data.records.image_path(row)
        with Image.open(path) as image:
            width, height = image.size
        pixels = np.random.default_rng(row).normal(PAPER, 3, (height, width, 3)).clip(0, 255).astype(np.uint8)
        for box, code in zip(data.records.boxes_xyxy(row), data.records.box_codes(row), strict=True):
            left, top, right, bottom = (int(value) for value in box)
            centre = ((left + right) // 2, (top + bottom) // 2)
            axes = ((right - left) // 2 - 1, (bottom - top) // 2 - 2)
            cv2.ellipse(pixels, centre, axes, 0, 0, 360, COLOURS.get(code, GREY), -1)
        Image.fromarray(pixels).save(path)
    return data


def settings_of(data: TwoStageData, exp_dir: Path, *words: str) -> DictConfig:
    """Return the configuration of a run on the data set, which starts no worker processes."""
    base = [f"data.root={data.root}", f"paths.exp_dir={exp_dir}", "train.tasks=[classification]"]
    return load_config(ROOT_CONFIG, [*base, "dataloader.num_workers=0", *words])
