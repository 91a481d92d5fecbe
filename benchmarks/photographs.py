"""A small YOLO data set of drawn pills, for timing only: nobody is meant to learn from it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

MAX_PILLS = 8


def draw_yolo_dataset(folder: Path, *, num_pictures: int, size_px: int, seed: int = 0) -> Path:
    """Write `num_pictures` square photographs with 1 to 8 ellipses each, and their labels.

    Args:
        folder: Where to write; it is created.
        num_pictures: Photographs; the same ones serve as train and val.
        size_px: Their side.
        seed: Of everything drawn.

    Returns:
        Path of the data set's YAML file, which ultralytics reads.
    """
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_pictures):
        image = rng.integers(80, 120, (size_px, size_px, 3), np.uint8)
        boxes = rng.uniform((0.15, 0.15, 0.1, 0.1), (0.85, 0.85, 0.3, 0.3), (rng.integers(1, MAX_PILLS + 1), 4))
        for x, y, width, height in boxes * size_px:
            axes = (round(width / 2), round(height / 2))
            cv2.ellipse(image, (round(x), round(y)), axes, 0, 0, 360, rng.integers(140, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / "images" / f"{number:04d}.png"), image)
        lines = [" ".join(["0", *(f"{value:.5f}" for value in box)]) for box in boxes]
        (folder / "labels" / f"{number:04d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "pills.yaml"
    path.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {{0: pill}}\n", encoding="utf-8")
    return path
