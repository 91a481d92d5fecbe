"""Random photographs with what a detector might find in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Picture = dict[str, Boxes]


def random_pictures(seed: int, *, has_ties: bool, num_noise: int = 8) -> tuple[list[Picture], list[Picture]]:
    """Return predictions and targets: some pictures empty, boxes near the labelled ones, some noise."""
    rng = np.random.default_rng(seed)
    predictions, targets = [], []
    for _ in range(int(rng.integers(1, 7))):
        labelled = _boxes(rng, int(rng.integers(0, 6)))
        near = labelled[rng.random(len(labelled)) < 0.8]
        moved = np.sort((near + rng.normal(0, 6, near.shape)).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        found = np.concatenate([moved, moved[:1], _boxes(rng, int(rng.integers(0, num_noise)))]).astype(np.float32)
        scores = rng.random(len(found))
        predictions.append(
            {"boxes_xyxy": found, "scores": (scores.round(1) if has_ties else scores).astype(np.float32)}
        )
        targets.append({"boxes_xyxy": labelled})
    if not any(len(target["boxes_xyxy"]) for target in targets):
        targets[0] = {"boxes_xyxy": np.array([[10, 10, 60, 60]], np.float32)}
    return predictions, targets


def _boxes(rng: np.random.Generator, count: int) -> Boxes:
    corners = rng.uniform(0, 400, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, 150, (count, 2))], axis=1).astype(np.float32)
