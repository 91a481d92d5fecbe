"""Box arithmetic against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pillsnap.boxes import area_xyxy, clip_xyxy, cxcywh_norm_to_xyxy, iou_matrix, xyxy_to_cxcywh_norm


def test_corners_become_a_normalised_centre_and_size() -> None:
    boxes = np.array([[10, 20, 30, 60]], np.float32)
    assert_allclose(xyxy_to_cxcywh_norm(boxes, (100, 200)), [[0.2, 0.2, 0.2, 0.2]], rtol=1e-6)


def test_the_two_formats_convert_back_and_forth() -> None:
    boxes = np.random.default_rng(0).uniform(0, 50, (20, 2)).astype(np.float32)
    boxes = np.concatenate([boxes, boxes + 7], axis=1)
    there_and_back = cxcywh_norm_to_xyxy(xyxy_to_cxcywh_norm(boxes, (97, 131)), (97, 131))
    assert_allclose(there_and_back, boxes, atol=1e-4)


def test_a_box_outside_the_picture_is_clipped_to_no_area() -> None:
    clipped = clip_xyxy(np.array([[-5, 2, 4, 9], [300, 300, 400, 400]], np.float32), (100, 50))
    assert_allclose(clipped, [[0, 2, 4, 9], [100, 50, 100, 50]])
    assert_allclose(area_xyxy(clipped), [28, 0])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param([0, 0, 10, 10], 1.0, id="same"),
        pytest.param([5, 0, 15, 10], 50 / 150, id="half shifted"),
        pytest.param([20, 20, 30, 30], 0.0, id="apart"),
        pytest.param([3, 3, 3, 3], 0.0, id="empty"),
    ],
)
def test_intersection_over_union(other: list[float], expected: float) -> None:
    found = iou_matrix(np.array([[0, 0, 10, 10]], np.float32), np.array([other], np.float32))
    assert_allclose(found, [[expected]], rtol=1e-6)
