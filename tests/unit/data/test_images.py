"""Every kind of picture decodes to 8-bit RGB in one way, and broken ones fail in one way."""

from __future__ import annotations

import errno
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from pillsnap.data.images import decode_bytes, decode_rgb, image_size_wh, read_file
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


def _noise_file(kind: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG" if kind == "jpeg" else "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"", "empty_image", id="nothing"),
        pytest.param(_noise_file("png")[:60], "empty_image", id="hardly anything"),
        pytest.param(b"no picture" * 20, "not_an_image", id="text"),
        pytest.param(_noise_file("png")[:-900], "truncated_image", id="PNG without its end"),
        pytest.param(_noise_file("jpeg")[:-900], "truncated_image", id="JPEG without its end"),
    ],
)
def test_a_broken_file_says_its_kind_in_a_fixed_word(content: bytes, kind: str) -> None:
    with pytest.raises(BrokenImageError) as caught:
        decode_bytes(content, "a.png")
    assert caught.value.kind == kind


def test_a_picture_made_to_fill_the_memory_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BrokenImageError, match="exceeds limit") as caught:
        decode_bytes(_noise_file("jpeg"), "bomb.jpg")
    assert caught.value.kind == "too_large"


def test_a_missing_and_an_unreadable_file_have_kinds_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError) as missing:
        read_file(tmp_path / "nowhere.png")
    with pytest.raises(BrokenImageError, match="cannot be read") as unreadable:
        read_file(tmp_path)
    assert (missing.value.kind, unreadable.value.kind) == ("missing_file", "unreadable_file")


def test_the_kind_crosses_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(BrokenImageError("a.png is empty.", "empty_image")))
    assert (str(error), error.kind) == ("a.png is empty.", "empty_image")


def test_a_file_comes_with_its_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    assert read_file(path) == (b"12345", 5, 1_700_000_000_123_456_789)


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("pillsnap.data.images.Image.open", fail)
    monkeypatch.setattr(Path, "open", fail)


@pytest.mark.req("OOM-4")
@pytest.mark.parametrize("read", [decode_rgb, image_size_wh])
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), id="system"),
        pytest.param(OSError("out of memory when reading image file"), id="Pillow"),
    ],
)
def test_memory_that_runs_out_is_no_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], error: OSError
) -> None:
    path = _save(Image.new("RGB", (4, 4)), tmp_path / "sound.png")
    _fail_with(monkeypatch, error)
    with pytest.raises(MemoryError, match=r"sound\.png") as caught:
        read(path)
    assert caught.value.__cause__ is error


@pytest.mark.req("OOM-4")
def test_memory_that_runs_out_while_decoding_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _noise_file("jpeg")
    _fail_with(monkeypatch, OSError("out of memory when reading image file"))
    with pytest.raises(MemoryError, match=r"sound\.jpg"):
        decode_bytes(content, "sound.jpg")


@pytest.mark.parametrize("read", [decode_rgb, image_size_wh])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_no_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], number: int
) -> None:
    path = _save(Image.new("RGB", (4, 4)), tmp_path / "sound.png")
    error = OSError(number, os.strerror(number), str(path))
    _fail_with(monkeypatch, error)
    with pytest.raises(OSError, match="Too many open files") as caught:
        read(path)
    assert caught.value is error


@pytest.mark.req("OOM-4")
def test_pillows_own_text_for_lack_of_memory_is_the_one_looked_for() -> None:
    assert str(ImageFile._get_oserror(-9, encoder=False)).startswith("out of memory")
