"""Every kind of picture decodes to 8-bit RGB in one way, and broken ones fail in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pillsnap.data.images import decode_rgb, image_size_wh
from pillsnap.errors import BrokenImageError

pytestmark = pytest.mark.req("DAT-2")


def _save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = _save(Image.new("L", (4, 3), 77), tmp_path / "grey.png")
    assert np.array_equal(decode_rgb(path), np.full((3, 4, 3), 77, np.uint8))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    path = _save(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert decode_rgb(path).min() == 255


def test_16_bit_grey_is_scaled_and_not_cut_off(tmp_path: Path) -> None:
    samples = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    path = _save(Image.fromarray(samples), tmp_path / "deep.png")
    assert decode_rgb(path)[:, :, 0].tolist() == [[0, 100], [200, 255]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = _save(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), tmp_path / "print.jpg")
    assert decode_rgb(path).shape == (8, 8, 3)
    assert decode_rgb(path).min() > 250


def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), "white")
    exif = image.getexif()
    exif[0x0112] = 6  # turned a quarter to the right
    path = _save(image, tmp_path / "turned.jpg", exif=exif)
    assert decode_rgb(path).shape == (6, 4, 3)
    assert image_size_wh(path) == (4, 6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "0 bytes", id="zero bytes"),
        pytest.param(b"this is not a picture", "21 bytes", id="text"),
    ],
)
def test_a_broken_file_is_named_with_its_size(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=f"broken.png cannot be decoded .{says}"):
        decode_rgb(path)
    with pytest.raises(BrokenImageError, match="copy it again"):
        image_size_wh(path)


def test_a_truncated_file_is_broken_and_not_half_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = _save(Image.fromarray(noise), tmp_path / "cut.png")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BrokenImageError, match="cannot be decoded"):
        decode_rgb(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="does not exist"):
        decode_rgb(tmp_path / "nowhere.png")
