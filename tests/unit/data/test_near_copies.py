from __future__ import annotations

import cv2
import numpy as np
import pytest

from pillsnap.data import near_copies
from pillsnap.data.images import RgbImage
from pillsnap.data.near_copies import OTHER_CLASS, SAME_CLASS, find_copies, is_same_photograph

pytestmark = pytest.mark.req("DAT-1")

NUM_VALUES = 24 * 24 * 3


def scenes(count: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(20, 230, (count, NUM_VALUES), np.uint8)


def found(thumbnails: np.ndarray, sides: list[int], classes: list[int]) -> list[tuple[int, int]]:
    result = find_copies(thumbnails, np.array(sides), np.array(classes))
    return [(pair.first, pair.second) for pair in result.pairs]


@pytest.mark.parametrize(("difference", "is_copy"), [(0, True), (1, True), (2, False)])
def test_pictures_of_one_class_are_compared_by_their_mean_difference(difference: int, is_copy: bool) -> None:
    thumbnails = scenes(6)
    thumbnails[5] = thumbnails[1] + difference
    assert found(thumbnails, [0, 0, 0, 1, 1, 1], [0] * 6) == [(1, 5)] * is_copy


@pytest.mark.parametrize(("largest", "is_copy"), [(12, True), (13, False)])
def test_a_single_value_far_off_tells_pictures_apart(largest: int, is_copy: bool) -> None:
    thumbnails = scenes(4)
    thumbnails[3] = thumbnails[0]
    thumbnails[3, 100] = thumbnails[0, 100] + largest
    assert found(thumbnails, [0, 0, 1, 1], [0] * 4) == [(0, 3)] * is_copy


def test_other_classes_must_be_nearer() -> None:
    thumbnails = scenes(4)
    thumbnails[2] = thumbnails[0]
    thumbnails[3] = thumbnails[1] + 1
    assert found(thumbnails, [0, 0, 1, 1], [0, 1, 2, 3]) == [(0, 2)]


def test_copies_on_one_side_do_not_matter() -> None:
    thumbnails = scenes(4)
    thumbnails[1], thumbnails[3] = thumbnails[0], thumbnails[2]
    assert found(thumbnails, [0, 0, 1, 1], [0] * 4) == []


def test_copies_on_three_sides_are_found_in_each_pair_of_sides() -> None:
    thumbnails = scenes(30)
    thumbnails[10] = thumbnails[20] = thumbnails[0]
    assert found(thumbnails, [0] * 10 + [1] * 10 + [2] * 10, [0] * 30) == [(0, 10), (0, 20), (10, 20)]


def test_all_pairs_of_a_large_set_are_those_of_comparing_each_with_each() -> None:
    rng = np.random.default_rng(3)
    thumbnails = scenes(40)[rng.integers(0, 40, 300)].astype(np.int16) + rng.integers(-2, 3, (300, 1))
    thumbnails = np.clip(thumbnails, 0, 255).astype(np.uint8)
    sides, classes = rng.integers(0, 3, 300), rng.integers(0, 2, 300)
    expected = set()
    for first in range(300):
        differences = np.abs(thumbnails[first].astype(int) - thumbnails[first + 1 :])
        for second, difference in enumerate(differences, first + 1):
            limits = SAME_CLASS if classes[first] == classes[second] else OTHER_CLASS
            if (
                sides[first] != sides[second]
                and difference.max() <= limits.largest
                and difference.mean() <= limits.mean
            ):
                expected.add((first, second))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_copies, "MAX_PAIRS", 10**6)
        patch.setattr(near_copies, "MAX_LOOKS", 10**6)
        patch.setattr(near_copies, "CHUNK", 37)
        assert set(found(thumbnails, sides.tolist(), classes.tolist())) == expected
    assert len(expected) > 100


@pytest.mark.parametrize("limit", ["MAX_PAIRS", "MAX_LOOKS"])
def test_a_search_without_end_stops_and_says_so(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, limit, 5)
    thumbnails = np.repeat(scenes(1), 20, axis=0)
    result = find_copies(thumbnails, np.arange(20) % 2, np.zeros(20, int))
    assert (len(result.pairs), result.is_complete) == (5, False)


def test_a_second_look_decides() -> None:
    thumbnails = np.repeat(scenes(2), 2, axis=0)
    result = find_copies(thumbnails, np.array([0, 1, 0, 1]), np.zeros(4, int), lambda first, second: first == 2)
    assert [(pair.first, pair.second) for pair in result.pairs] == [(2, 3)]
    assert result.is_complete


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_have_no_copies(count: int) -> None:
    assert found(scenes(count), list(range(count)), [0] * count) == []


def photograph(seed: int, offset_px: int = 0) -> RgbImage:
    rng = np.random.default_rng(seed)
    image = np.full((320, 240, 3), 150, np.uint8)
    cv2.ellipse(image, (120 + offset_px, 160), (50, 35), 20, 0, 360, (230, 225, 220), -1, cv2.LINE_AA)
    cv2.putText(image, "A12", (95 + offset_px, 170), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (190, 185, 180), 2, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: RgbImage, quality: int) -> RgbImage:
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("quality", [95, 75])
def test_a_picture_saved_again_or_smaller_is_the_same_photograph(quality: int) -> None:
    image = photograph(1)
    assert is_same_photograph(image, jpeg(image, quality))
    assert is_same_photograph(
        image, jpeg(np.asarray(cv2.resize(image, (160, 213), interpolation=cv2.INTER_AREA), np.uint8), quality)
    )


def test_the_pill_a_little_aside_is_another_photograph() -> None:
    assert not is_same_photograph(photograph(1), photograph(2, offset_px=4))


def test_pictures_without_any_detail_are_judged_by_their_thumbnails() -> None:
    assert is_same_photograph(np.full((20, 20, 3), 9, np.uint8), np.full((30, 30, 3), 9, np.uint8))
