import numpy as np
import pytest

from pillsnap.data.store.codec import decode, encode, psnr_db
from pillsnap.data.store.layout import DamagedEntryError
from tests.unit.data.store.builders import picture, similarity

pytestmark = pytest.mark.req("DAT-3")


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (8, 3), (13, 7), (384, 384), (40, 65)])
def test_lossless_gives_the_same_pixels_back(size_hw: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    assert np.array_equal(decode(encode(pixels, "lossless"), size_hw, "lossless"), pixels)


def test_lossless_makes_a_smooth_picture_much_smaller() -> None:
    rows, columns = np.mgrid[:64, :64]
    pixels = np.repeat((rows + columns)[..., None], 3, axis=2).astype(np.uint8)
    assert len(encode(pixels, "lossless")) < pixels.nbytes / 20


def test_jpeg_keeps_the_order_of_the_channels() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 200
    assert np.abs(decode(encode(pixels, "jpeg"), (16, 16), "jpeg").astype(int) - pixels).max() <= 2


def test_jpeg_resembles_the_picture() -> None:
    pixels = picture(0, 64)
    seen = decode(encode(pixels, "jpeg"), (64, 64), "jpeg")
    assert similarity(seen, pixels) > 35
    assert psnr_db(pixels, seen) == pytest.approx(similarity(pixels, seen), abs=1e-3)


def test_the_psnr_of_equal_pictures_is_a_number() -> None:
    assert np.isfinite(psnr_db(picture(0), picture(0)))


@pytest.mark.parametrize(("codec", "text"), [("lossless", "(?i)zstd"), ("jpeg", "no JPEG of")])
def test_other_bytes_are_damage(codec: str, text: str) -> None:
    with pytest.raises(DamagedEntryError, match=text):
        decode(b"something else", (16, 16), codec)  # type: ignore[arg-type]


def test_fewer_pixels_than_wanted_are_damage() -> None:
    with pytest.raises(DamagedEntryError, match="(?i)zstd"):
        decode(encode(picture(0), "lossless"), (16, 17), "lossless")


def test_a_jpeg_of_another_size_is_damage() -> None:
    with pytest.raises(DamagedEntryError, match="no JPEG of"):
        decode(encode(picture(0), "jpeg"), (16, 17), "jpeg")
