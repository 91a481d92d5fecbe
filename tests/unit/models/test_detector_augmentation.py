import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pillsnap.models.detector_yolo11m import TrainingTransforms, detection_label, training_transforms

SIZE_PX = 160
AUGMENT = {"mosaic": 1.0, "translate": 0.1, "scale": 0.5, "fliplr": 0.5, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}
GEOMETRY = {**AUGMENT, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
STILL: dict[str, float] = dict.fromkeys([*AUGMENT, "flipud", "degrees", "mixup"], 0.0)


def white_rectangle(index: int) -> dict[str, Any]:
    """A black picture of 160 x 120 (of a photograph of 320 x 240) with one white rectangle."""
    x, y, width, height = 40 + 7 * index, 30, 50, 40
    image = np.zeros((120, 160, 3), np.uint8)
    image[y : y + height, x : x + width] = 255
    box = [(x + width / 2) / 160, (y + height / 2) / 120, width / 160, height / 120]
    return detection_label(image, np.array([box], np.float32), (240, 320))


class Rectangles:
    """A data set as ultralytics' mosaic sees it."""

    cache = "ram"
    data: dict[str, Any] = {}  # noqa: RUF012

    def __len__(self) -> int:
        return 5

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        return white_rectangle(index)


def augmented(transforms: TrainingTransforms, seed: int) -> dict[str, Any]:
    random.seed(seed)
    np.random.seed(seed)
    return transforms(white_rectangle(0))


def boxes_px(out: dict[str, Any]) -> NDArray[np.float32]:
    x, y, width, height = (out["bboxes"].numpy() * SIZE_PX).T
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)


def bounds_of_white(image_CHW: torch.Tensor, around_xyxy: NDArray[np.float32], margin: int = 4) -> list[float]:
    white = image_CHW.numpy().min(0) > 180  # above the grey (114) of the margins
    x_min, y_min, x_max, y_max = around_xyxy.round().astype(int)
    window = np.zeros_like(white)
    window[max(y_min - margin, 0) : y_max + margin, max(x_min - margin, 0) : x_max + margin] = True
    ys, xs = np.nonzero(white & window)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.req("DAT-2")
@pytest.mark.parametrize("mosaic", [True, False], ids=["mosaic", "mosaic closed"])
def test_the_same_seeds_give_the_same_sample(mosaic: bool) -> None:
    transforms = training_transforms(Rectangles(), SIZE_PX, AUGMENT, mosaic=mosaic)
    first, other, again = augmented(transforms, 3), augmented(transforms, 4), augmented(transforms, 3)
    assert torch.equal(first["img"], again["img"])
    assert torch.equal(first["bboxes"], again["bboxes"])
    assert not torch.equal(first["img"], other["img"])


def test_randomness_of_torch_has_no_part_in_it() -> None:
    transforms = training_transforms(Rectangles(), SIZE_PX, AUGMENT, mosaic=True)
    torch.manual_seed(1)
    first = augmented(transforms, 3)
    torch.manual_seed(2)
    assert torch.equal(first["img"], augmented(transforms, 3)["img"])


@pytest.mark.parametrize("mosaic", [True, False], ids=["mosaic", "mosaic closed"])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_stay_around_their_pixels(seed: int, mosaic: bool) -> None:
    out = augmented(training_transforms(Rectangles(), SIZE_PX, GEOMETRY, mosaic=mosaic), seed)
    boxes = boxes_px(out)
    assert len(boxes) > 0
    for box in boxes:
        assert bounds_of_white(out["img"], box) == pytest.approx(box.tolist(), abs=2.5)


def test_closing_mosaic_leaves_one_picture() -> None:
    transforms = training_transforms(Rectangles(), SIZE_PX, {**GEOMETRY, "mixup": 1.0}, mosaic=False)
    assert [len(augmented(transforms, seed)["bboxes"]) for seed in range(6)] == [1] * 6


def test_a_sample_is_rgb_bytes_with_normalised_boxes() -> None:
    image = np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)
    image[..., 0] = 200  # red
    label = detection_label(image, np.array([[0.5, 0.5, 0.25, 0.5]], np.float32), (320, 320))
    out = training_transforms(Rectangles(), SIZE_PX, STILL, mosaic=False)(label)
    assert out["img"].dtype == torch.uint8
    assert out["img"][:, 80, 80].tolist() == [200, 0, 0]
    torch.testing.assert_close(out["bboxes"], torch.tensor([[0.5, 0.5, 0.25, 0.5]]))
    assert (out["cls"].shape, out["batch_idx"].shape) == ((1, 1), (1,))


def test_a_picture_without_boxes_passes() -> None:
    label = detection_label(np.zeros((120, 160, 3), np.uint8), np.zeros((0, 4), np.float32), (240, 320))
    out = training_transforms(Rectangles(), SIZE_PX, AUGMENT, mosaic=False)(label)
    assert out["bboxes"].shape == (0, 4)


def test_the_callers_picture_is_not_changed() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    label = detection_label(image, np.zeros((0, 4), np.float32), (240, 320))
    training_transforms(Rectangles(), SIZE_PX, AUGMENT, mosaic=False)(label)
    assert (image == 90).all()


def test_transforms_travel_to_a_worker_without_the_library() -> None:
    transforms = training_transforms(Rectangles(), SIZE_PX, AUGMENT, mosaic=True)
    expected = augmented(transforms, 5)
    sent = pickle.dumps(transforms)
    assert b"ultralytics" not in sent
    assert torch.equal(augmented(pickle.loads(sent), 5)["img"], expected["img"])
