"""JPEG files decode to Pillow's pixels, in full and at a half, a quarter or an eighth of their size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pillsnap.data.images import RgbImage, decode_bytes, decode_reduced, decode_reduced_bytes
from pillsnap.data.jpeg import decode_jpeg_pixels, is_regular, largest_reduction
from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import invent_drugs
from pillsnap.data.synthetic_scene import PlacedPill, Shot, take_photograph
from pillsnap.errors import BrokenImageError

pytestmark = pytest.mark.req("DAT-2")


def _photograph(size_wh: tuple[int, int]) -> RgbImage:
    pill = PlacedPill(invent_drugs(2, 42)[0], (size_wh[0] / 2, size_wh[1] / 2), 30.0)
    shot = Shot(background=1, side=0, light=1, latitude=75, longitude=0)
    return take_photograph([pill], shot, size_wh, sample_generator(1)).image


def _file(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def _by_pillow(content: bytes) -> RgbImage:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


SMALL = Image.fromarray(_photograph((161, 203)))
KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 3},
    "low quality": {"quality": 10},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_pixels_are_pillows(options: dict[str, Any]) -> None:
    content = _file(SMALL, **options)
    assert np.array_equal(decode_bytes(content, "a.jpg"), _by_pillow(content))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_pillows_too(mode: str) -> None:
    content = _file(SMALL.convert(mode))
    found = decode_reduced_bytes(content, "a.jpg", 60)
    assert found.reduction == (2 if mode == "L" else 1)
    assert np.array_equal(decode_bytes(content, "a.jpg"), _by_pillow(content))


@pytest.mark.parametrize("subsampling", [(4, 1), (1, 2), (2, 1), (1, 1)])
def test_odd_subsampling_is_pillows(subsampling: tuple[int, int]) -> None:
    factor = (subsampling[0] << 20) | (subsampling[1] << 16) | 0x1111
    _, encoded = cv2.imencode(".jpg", np.asarray(SMALL), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
    assert np.array_equal(decode_bytes(encoded.tobytes(), "a.jpg"), _by_pillow(encoded.tobytes()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pixels_and_size_in_full_and_reduced(orientation: int, tmp_path: Path) -> None:
    exif = SMALL.getexif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(_file(SMALL, exif=exif))
    upright = _by_pillow((tmp_path / "a.jpg").read_bytes())
    full, half = (decode_reduced(tmp_path / "a.jpg", side) for side in (203, 102))
    assert np.array_equal(full.image, upright)
    assert full.size_wh == half.size_wh == (upright.shape[1], upright.shape[0])
    assert half.image.shape[:2] == (-(-upright.shape[0] // 2), -(-upright.shape[1] // 2))
    smaller = cv2.resize(upright, half.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(smaller, half.image) > 30


@pytest.mark.parametrize(
    ("size_wh", "longer_side_px", "reduction"),
    [
        ((976, 1280), 1280, 1),
        ((976, 1280), 641, 1),
        ((976, 1280), 640, 2),
        ((1280, 976), 320, 4),
        ((976, 1280), 160, 8),
        ((976, 1280), 1, 8),
        ((1, 9), 5, 2),
        ((100, 100), 384, 1),
    ],
)
def test_the_longer_side_is_never_shorter_than_asked_for(
    size_wh: tuple[int, int], longer_side_px: int, reduction: int
) -> None:
    assert largest_reduction(size_wh, longer_side_px) == reduction


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_pixels_are_those_of_pillows_draft(reduction: int) -> None:
    content = _file(SMALL)
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (161 // reduction, 203 // reduction))
        drafted = np.asarray(image)
    found = decode_jpeg_pixels(content, reduction)
    assert found is not None
    assert np.array_equal(found, drafted)


@pytest.mark.parametrize("options", [{"quality": 75}, {"quality": 95, "subsampling": 0}], ids=["q75", "q95"])
@pytest.mark.parametrize("target", [384, 300, 100])
def test_a_reduced_photograph_differs_little_from_the_full_one_once_resized(
    target: int, options: dict[str, Any]
) -> None:
    content = _file(Image.fromarray(_photograph((976, 1280))), **options)
    found = decode_reduced_bytes(content, "a.jpg", target)
    assert found.reduction > 1
    size_wh = (round(976 * target / 1280), target)
    reduced = cv2.resize(found.image, size_wh, interpolation=cv2.INTER_AREA)
    full = cv2.resize(decode_bytes(content, "a.jpg"), size_wh, interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(full, reduced) > 30


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_png_and_a_progressive_jpeg_come_in_full_size(options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    SMALL.save(buffer, "PNG")
    content = _file(SMALL, **options) if options else buffer.getvalue()
    found = decode_reduced_bytes(content, "a", 50)
    assert (found.reduction, found.size_wh, found.image.shape) == (1, (161, 203), (203, 161, 3))


def test_several_pictures_in_one_file_give_the_first() -> None:
    buffer = io.BytesIO()
    SMALL.save(buffer, "MPO", save_all=True, append_images=[ImageOps.invert(SMALL)])
    assert np.array_equal(decode_bytes(buffer.getvalue(), "a.mpo"), _by_pillow(buffer.getvalue()))
    assert decode_reduced_bytes(buffer.getvalue(), "a.mpo", 50).reduction == 4


SEGMENTS = b"\xff\xd8\xff\xe0\x00\x04..\xff\xda\x00\x02"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SEGMENTS + b"ab\xff\x00c\xff\xd3d\xff\xd9", True),
        (SEGMENTS + b"ab\xff\xd9 more \xff\xc0", True),
        (SEGMENTS + b"ab\xff\xc4cd\xff\xd9", False),
        (SEGMENTS + b"abcd\xff", False),
        (SEGMENTS, False),
        (SEGMENTS[:8] + b"junk\xff\xd9", False),
    ],
    ids=["stuffed and restarted", "more after the end", "another marker", "no end", "no data", "no scan"],
)
def test_a_file_is_regular_when_the_end_is_the_first_marker_of_its_scan(content: bytes, expected: bool) -> None:
    assert is_regular(content) is expected


def test_memory_that_opencv_does_not_get_is_pillows_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("Insufficient memory")

    monkeypatch.setattr(cv2, "imdecode", fail)
    content = _file(SMALL)
    assert decode_jpeg_pixels(content, 1) is None
    assert np.array_equal(decode_bytes(content, "a.jpg"), _by_pillow(content))


@pytest.mark.parametrize("seed", range(3))
def test_damage_means_to_us_what_it_means_to_pillow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = _file(SMALL.resize((60, 50)), subsampling=int(rng.integers(3)))
    for _ in range(150):
        start, num = int(rng.integers(20, len(content))), int(rng.integers(1, 40))
        noise = rng.integers(0, 256, int(rng.integers(num + 1)), np.uint8).tobytes()
        damaged = content[:start] if rng.random() < 0.2 else content[:start] + noise + content[start + num :]
        assert _by_us(damaged) == _as_pillow_does(damaged)


def _by_us(content: bytes) -> bytes | None:
    try:
        return decode_bytes(content, "a.jpg").tobytes()
    except BrokenImageError:
        return None


def _as_pillow_does(content: bytes) -> bytes | None:
    try:
        return _by_pillow(content).tobytes()
    except (OSError, SyntaxError, ValueError, IndexError, TypeError):
        return None
