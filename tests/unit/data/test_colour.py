"""Light on the device: against a plain NumPy computation of each effect."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pillsnap.data import colour as module
from pillsnap.data.colour import BLUR, GREY_WEIGHTS, MEAN, NUM_VALUES, Augmentation, draw_colour
from pillsnap.data.preprocess import ClassifierInput, normalize
from pillsnap.data.randomness import sample_generator

pytestmark = pytest.mark.req("DAT-7")

STILL = Augmentation(rotation_degrees=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0)
STRONG = Augmentation(rotation_degrees=0, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, blur=0.5)


PLAIN = ClassifierInput(size_px=24, mean=(0.0,) * 3, std=(1 / 255,) * 3, frame_fit="center")
"""Leaves pixels as 0..255."""


def apply_colour(images: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    """Return pictures in their light, 0..255."""
    return module.apply_colour(images, light, PLAIN)


def _images(batch: int = 2, size: int = 24) -> torch.Tensor:
    return torch.randint(60, 180, (batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _drawn(augmentation: Augmentation, *keys: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([draw_colour(augmentation, sample_generator(key)) for key in keys]))


def _light(**values: float) -> torch.Tensor:
    """Light of one picture with every effect off but `values` (mean, blur)."""
    light = torch.zeros(1, NUM_VALUES)
    light[0, :MEAN] = torch.eye(3).flatten()
    for name, value in values.items():
        light[0, {"mean": MEAN, "blur": BLUR}[name]] = value
    return light


def test_no_augmentation_changes_nothing() -> None:
    images = _images()
    assert_allclose(apply_colour(images, _drawn(STILL, 1, 2)), images.float(), atol=1e-3)


def test_light_depends_on_the_generator_alone() -> None:
    assert torch.equal(_drawn(STRONG, 5), _drawn(STRONG, 5))
    assert not torch.equal(_drawn(STRONG, 5), _drawn(STRONG, 6))


@pytest.mark.parametrize("key", range(5))
def test_brightness_and_contrast_are_those_of_numpy(key: int) -> None:
    augmentation = replace(STILL, brightness=0.2, contrast=0.2)
    rng = sample_generator(key)
    brightness, contrast = 1 + rng.uniform(-0.2, 0.2), 1 + rng.uniform(-0.2, 0.2)
    images = _images(1)
    bright = images.numpy().astype(np.float64) * brightness
    expected = (bright - bright.mean()) * contrast + bright.mean()
    assert_allclose(apply_colour(images, _drawn(augmentation, key)), expected, atol=0.01)


def test_saturation_moves_colours_to_and_from_their_grey() -> None:
    augmentation = replace(STILL, saturation=0.5)
    images = _images(1)
    pixels = images.numpy().astype(np.float64)
    grey = np.tensordot(np.array(GREY_WEIGHTS), pixels[0], 1)
    rng = sample_generator(3)
    rng.uniform(), rng.uniform()
    saturation = 1 + rng.uniform(-0.5, 0.5)
    assert_allclose(apply_colour(images, _drawn(augmentation, 3))[0], grey + saturation * (pixels[0] - grey), atol=0.02)


def test_hue_turns_colours_and_leaves_greys() -> None:
    augmentation = replace(STILL, hue=0.1)
    pixel = torch.tensor([[150.0, 110.0, 100.0], [120.0, 120.0, 120.0]]).T.reshape(1, 3, 1, 2).to(torch.uint8)
    light = _drawn(augmentation, 8)
    found = apply_colour(pixel.repeat(1, 1, 12, 6), light)[0, :, 0, :2].T.numpy()
    before, after = colorsys.rgb_to_hsv(150, 110, 100)[0], colorsys.rgb_to_hsv(*map(float, found[0]))[0]
    assert abs((after - before + 0.5) % 1 - 0.5) > 0.005
    assert_allclose(found[1], 120, atol=0.01)


def test_values_stay_within_eight_bits() -> None:
    white = torch.full((1, 3, 12, 12), 250, dtype=torch.uint8)
    light = _light()
    light[0, :MEAN] *= 2
    assert float(apply_colour(white, light).max()) == 255.0


def test_only_the_marked_pictures_are_blurred_by_a_gaussian() -> None:
    images = _images(3)
    light = torch.cat([_light(), _light(blur=0.9), _light()])
    found = apply_colour(images, light)
    assert_allclose(found[[0, 2]], images[[0, 2]].float(), atol=1e-3)
    offsets = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (offsets / 0.9) ** 2)
    window = images[1, 0, 6:15, 6:15].numpy().astype(np.float64)
    assert float(found[1, 0, 10, 10]) == pytest.approx((np.outer(kernel, kernel) * window).sum() / kernel.sum() ** 2)


def test_layouts_give_equal_pixels_and_the_result_is_channels_last() -> None:
    images, light = _images(), _drawn(STRONG, 1, 2)
    found = apply_colour(images.to(memory_format=torch.channels_last), light)
    assert_allclose(found, apply_colour(images, light))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_slices_of_a_batch_get_the_light_of_their_samples() -> None:
    images, light = _images(4), _drawn(STRONG, 1, 2, 3, 4)
    whole = apply_colour(images, light)
    parts = torch.cat([apply_colour(images[:1], light[:1]), apply_colour(images[1:], light[1:])])
    assert torch.allclose(whole, parts, atol=1e-3)


def test_normalising_comes_after_the_light() -> None:
    spec = ClassifierInput(size_px=24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), frame_fit="center")
    images, light = _images(3), _drawn(STRONG, 1, 2, 3)
    assert_allclose(module.apply_colour(images, light, spec), normalize(apply_colour(images, light), spec), atol=1e-4)
