import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pillsnap.inference.appearance import NUM_FEATURES, Appearance, describe

Image = NDArray[np.uint8]
LENGTH, ELONGATION = 12, 13  # places in a description


def picture(
    *, axes: tuple[int, int] = (30, 15), angle: float = 0.0, rgb: tuple[int, int, int] = (60, 140, 80), size: int = 240
) -> Image:
    """An ellipse on unevenly lit paper."""
    light = np.linspace(190, 230, size, dtype=np.float32)
    image = np.repeat(np.tile(light, (size, 1))[..., None], 3, axis=2).astype(np.uint8)
    cv2.ellipse(image, (size // 2, size // 2), axes, angle, 0, 360, rgb, -1, cv2.LINE_AA)
    return image


def distance(a: Image, b: Image) -> float:
    scale = np.array([10.0] * 12 + [0.1, 0.1, 0.02, 0.02] + [0.005] * 6)
    return float(np.linalg.norm((describe(a) - describe(b)) / scale))


@pytest.mark.req("FIN-3")
def test_a_turned_pill_looks_the_same() -> None:
    assert distance(picture(), picture(angle=40)) < 2


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize(
    "other",
    [picture(axes=(30, 30)), picture(axes=(45, 22)), picture(rgb=(160, 60, 50))],
    ids=["another shape", "another size", "another colour"],
)
def test_another_pill_looks_different(other: Image) -> None:
    assert distance(picture(), other) > 3


def test_length_and_proportions_are_measured() -> None:
    looks = describe(picture(axes=(30, 15)))
    assert looks.shape == (NUM_FEATURES,)
    assert np.exp(looks[LENGTH]) == pytest.approx(61 / 240, abs=0.02)
    assert np.exp(looks[ELONGATION]) == pytest.approx(2.0, abs=0.1)


def test_a_box_leads_to_the_same_pill() -> None:
    image = picture()
    np.testing.assert_allclose(describe(image, np.array([90, 105, 150, 135])), describe(image), rtol=0.1, atol=0.05)


def test_of_two_pills_the_one_in_the_box_is_measured() -> None:
    image = picture(size=300)
    image[20:60, 20:60] = (200, 30, 30)
    red = describe(image, np.array([20, 20, 60, 60]))
    assert red[1] - 128 > 30  # towards red in Lab
    assert describe(image)[1] < 128


def test_a_letterboxed_pill_is_found_away_from_the_middle() -> None:
    image = np.full((200, 400, 3), 220, np.uint8)
    image[80:120, 20:60] = (200, 30, 30)
    assert np.isnan(describe(image, frame_fit="center")).all()
    assert describe(image, frame_fit="letterbox")[1] - 128 > 30


@pytest.mark.parametrize("box", [None, [10, 10, 30, 30], [-5, -5, 3, 3], [70, 70, 90, 90]])
def test_where_nothing_stands_out_nothing_is_measured(box: list[float] | None) -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    assert np.isnan(describe(image, None if box is None else np.array(box))).all()


def test_the_smallest_picture_is_no_error() -> None:
    assert describe(np.zeros((1, 1, 3), np.uint8)).shape == (NUM_FEATURES,)


@pytest.mark.req("FIN-3")
def test_distances_are_to_the_nearest_training_pill_of_the_named_drug() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [100.0, 0.0]])
    labels = np.repeat([1, 0], 500)
    values = (centres[labels] + rng.normal(0, (1.0, 5.0), (1000, 2))).astype(np.float32)
    looks = Appearance.fit(values, labels)
    found = looks.distances(np.array([[0, 0], [0, 0], [0, 50]], np.float32), np.array([0, 1, 0]))
    assert found[0] < 0.3
    assert found[1] == pytest.approx(100, rel=0.1)  # in deviations of the first feature, 1
    assert found[2] == pytest.approx((50 - values[labels == 0, 1].max()) / 5, rel=0.1)


def test_a_drug_without_training_pills_and_a_pill_not_seen_are_infinitely_far() -> None:
    looks = Appearance.fit(np.array([[0.0], [1.0], [np.nan]], np.float32), np.array([0, 0, 1]))
    assert np.isinf(looks.distances(np.array([[0.0], [np.nan]], np.float32), np.array([1, 0]))).all()


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.full((2, 2), np.nan), np.zeros((3, 2))])
def test_looks_cannot_be_learned_from_nothing(values: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="Measure pictures of the training side"):
        Appearance.fit(values.astype(np.float32), np.zeros(min(len(values), 2), np.int64))
