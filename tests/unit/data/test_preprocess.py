"""The shared preprocessing: where crops lie, what stays outside, and the way back to the photograph's pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pillsnap.data.preprocess import (
    PAD_VALUE,
    ClassifierInput,
    box_square,
    box_view,
    crop_resize,
    frame_view,
    letterbox,
    normalize,
    resized,
)
from pillsnap.errors import CheckpointError

pytestmark = pytest.mark.req("INF-1")


def _spec(size_px: int = 32, frame_fit: str = "letterbox") -> ClassifierInput:
    return ClassifierInput(
        size_px=size_px,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        frame_fit=frame_fit,
    )


def _photo(height: int = 60, width: int = 40, value: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_letterboxed_frame_keeps_its_proportions() -> None:
    view = frame_view(_photo(), _spec(30))
    assert view.shape == (30, 30, 3)
    assert (view[:, 5:25] == 200).all()
    assert (view[:, :5] == PAD_VALUE).all()
    assert (view[:, 25:] == PAD_VALUE).all()


def test_a_centred_frame_fills_the_square() -> None:
    photo = _photo()
    photo[:5] = 0  # outside the central 40 x 40 square and out of reach of its filter
    assert (frame_view(photo, _spec(20, "center")) == 200).all()


def test_a_box_view_is_square_around_the_box_with_padding() -> None:
    assert box_square(np.array([10, 20, 30, 30], np.float32), 0.1) == pytest.approx((8, 13, 32, 37))


def test_what_lies_outside_the_photograph_is_grey() -> None:
    view = box_view(_photo(), np.array([-20, -20, 20, 20], np.float32), _spec(40), 0.0)
    assert (view[:20] == PAD_VALUE).all()
    assert (view[20:, 20:] == 200).all()


def test_a_crop_wholly_outside_is_all_grey() -> None:
    assert (crop_resize(_photo(), (500, 500, 540, 540), 16) == PAD_VALUE).all()


def test_shrinking_takes_the_mean_of_the_pixels_it_joins() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    expected = photo.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert_allclose(crop_resize(photo, (0, 0, 64, 64), 16), expected, atol=1.0)  # rounded after each halving


def test_shrinking_by_any_factor_stays_close_to_the_area_average() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
    photo = np.asarray(cv2.resize(coarse, (976, 1280), interpolation=cv2.INTER_CUBIC), np.uint8)
    for size_wh in [(293, 384), (500, 656), (700, 918), (90, 118)]:
        exact = cv2.resize(photo, size_wh, interpolation=cv2.INTER_AREA).astype(float)
        psnr = 10 * np.log10(255**2 / np.mean((resized(photo, size_wh) - exact) ** 2))
        assert psnr > 45, size_wh


def test_a_crop_in_its_own_size_is_a_copy() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    assert np.array_equal(crop_resize(photo, (10, 20, 42, 52), 32), photo[20:52, 10:42])


def test_an_enlarged_crop_keeps_its_place() -> None:
    # A ramp enlarged: every output pixel must show the value at its own place in the photograph.
    photo = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    found = crop_resize(photo, (10.25, 10.25, 30.25, 30.25), 80)[40, :, 0]
    places = 10.25 + (np.arange(80) + 0.5) / 4 - 0.5
    assert_allclose(found, 4 * places, atol=1.0)


@pytest.mark.req("INF-1")
def test_a_checkpoint_of_another_resizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="resized by 'pillow-bicubic'; this version"):
        ClassifierInput.from_dict({**_spec().to_dict(), "resizer": "pillow-bicubic"})


def test_normalising_subtracts_mean_and_divides_by_deviation() -> None:
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    found = normalize(images, _spec())[0, :, 0, 0]
    assert_allclose(found.numpy(), [(1 - 0.5) / 0.2, (1 - 0.4) / 0.3, (1 - 0.3) / 0.4], rtol=1e-5)


def test_the_input_description_survives_json() -> None:
    assert ClassifierInput.from_dict(_spec().to_dict()) == _spec()


@pytest.mark.parametrize("size_wh", [(40, 60), (60, 40), (31, 31), (976, 1280)])
def test_letterbox_maps_boxes_there_and_back(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    image, geometry = letterbox(_photo(height, width), 64)
    boxes = np.array([[1, 2, width - 3, height - 4]], np.float32)
    assert image.shape == (64, 64, 3)
    assert_allclose(geometry.to_image(geometry.to_input(boxes)), boxes, atol=1e-3)


def test_letterboxed_boxes_lie_on_their_pixels() -> None:
    photo = np.zeros((120, 80, 3), np.uint8)
    photo[30:60, 20:50] = 255
    image, geometry = letterbox(photo, 60)
    rows, columns = np.nonzero(image[:, :, 0] > 200)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert_allclose(geometry.to_input(np.array([[20, 30, 50, 60]], np.float32))[0], found, atol=1.0)


def test_a_box_in_the_margin_is_cut_at_the_photographs_edge() -> None:
    _, geometry = letterbox(_photo(), 60)
    assert_allclose(geometry.to_image(np.array([[0, 0, 60, 60]], np.float32)), [[0, 0, 40, 60]])
