import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pillsnap.inference.nms import non_max_suppression

Floats = NDArray[np.float64]


def slow_iou(a: Floats, b: Floats) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    return float(overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap))


def slow_nms(predictions_5A: Floats, conf: float, iou: float, limit: int) -> Floats:
    kept: list[Floats] = []
    for x, y, w, h, score in sorted(predictions_5A.T.tolist(), key=lambda row: -row[4]):
        box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score])
        if score > conf and all(slow_iou(box, other) <= iou for other in kept):
            kept.append(box)
    return np.array(kept[:limit]).reshape(-1, 5)


def random_predictions(seed: int, count: int) -> Floats:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(20, 80, (2, count))
    sizes = rng.uniform(5, 40, (2, count))
    return np.concatenate([centers, sizes, rng.permutation(count)[None] / count])


@pytest.mark.req("VAL-2")
@pytest.mark.parametrize("seed", range(50))
def test_agrees_with_a_slow_reference(seed: int) -> None:
    predictions = random_predictions(seed, count=60)
    [found] = non_max_suppression(torch.from_numpy(predictions)[None], 0.3, 0.4, 12)
    np.testing.assert_allclose(found.numpy(), slow_nms(predictions, 0.3, 0.4, 12), rtol=1e-5)


@pytest.mark.req("VAL-2")
def test_each_picture_of_a_batch_is_treated_alone() -> None:
    batch = np.stack([random_predictions(seed, count=40) for seed in (1, 2)])
    together = non_max_suppression(torch.from_numpy(batch))
    alone = [non_max_suppression(torch.from_numpy(picture)[None])[0] for picture in batch]
    assert [torch.equal(a, b) for a, b in zip(together, alone, strict=True)] == [True, True]


def test_a_picture_without_confident_boxes_gives_an_empty_table() -> None:
    [found] = non_max_suppression(torch.zeros(1, 5, 8))
    assert found.shape == (0, 5)


def test_a_score_that_is_not_a_number_is_dropped() -> None:
    [found] = non_max_suppression(torch.tensor([[[5.0], [5.0], [2.0], [2.0], [float("nan")]]]))
    assert found.shape == (0, 5)


def test_half_precision_predictions_are_accepted() -> None:
    [found] = non_max_suppression(torch.tensor([[[5.0], [6.0], [2.0], [4.0], [0.75]]], dtype=torch.float16))
    assert found.tolist() == [[4.0, 4.0, 6.0, 8.0, 0.75]]
