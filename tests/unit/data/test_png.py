"""Plain PNG files decode to Pillow's pixels, and damage is found at least where Pillow finds it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pillsnap.data import png
from pillsnap.data.images import RgbImage, decode_bytes
from pillsnap.data.png import decode_plain_png
from pillsnap.errors import BrokenImageError

pytestmark = pytest.mark.req("DAT-2")


def _picture(width: int, height: int) -> RgbImage:
    """Draw something between noise and a gradient, for which an encoder chooses all kinds of filters."""
    rng = np.random.default_rng(width * 10_000 + height)
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 5)[:, :, None] % 256
    return np.asarray((ramp + rng.integers(0, 9, (height, width, 3))) % 256, np.uint8)


def _file(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _decoded(content: bytes) -> RgbImage:
    found = decode_plain_png(content)
    assert found is not None
    return found


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _assembled(header: bytes, stream: bytes, *others: bytes, piece: int = 2**20) -> bytes:
    pieces = [_chunk(b"IDAT", stream[start : start + piece]) for start in range(0, len(stream), piece)]
    return b"".join([b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), *others, *pieces, _chunk(b"IEND", b"")])


def _rgb_header(width: int, height: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def _with_filter(image: RgbImage, number: int) -> bytes:
    """Filter every row in one way, by the formulas of the PNG specification."""
    height, width, _ = image.shape
    padded = np.zeros((height + 1, width + 1, 3), np.int32)
    padded[1:, 1:] = image
    here, left, above, corner = padded[1:, 1:], padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    guess = left + above - corner
    distances = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
    paeth = np.choose(distances.argmin(0), [left, above, corner])
    predicted = [0 * here, left, above, (left + above) // 2, paeth][number]
    rows = ((here - predicted) % 256).astype(np.uint8).reshape(height, -1)
    return np.concatenate([np.full((height, 1), number, np.uint8), rows], axis=1).tobytes()


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 7), (7, 1), (33, 65), (300, 221)])
@pytest.mark.parametrize("number", range(5), ids=["none", "sub", "up", "average", "paeth"])
def test_every_filter_gives_back_the_picture(size_wh: tuple[int, int], number: int) -> None:
    image = _picture(*size_wh)
    content = _assembled(_rgb_header(*size_wh), zlib.compress(_with_filter(image, number)), piece=1000)
    assert np.array_equal(_decoded(content), image)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_files_of_both_libraries_give_back_the_picture(level: int) -> None:
    image = _picture(250, 190)
    assert np.array_equal(_decoded(_file(Image.fromarray(image), compress_level=level)), image)
    _, encoded = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, level])
    assert np.array_equal(_decoded(encoded.tobytes()), image)


@pytest.mark.parametrize("num_bytes", [65_535 - 1, 65_535, 65_536, 2 * 65_535])
def test_rows_are_stored_in_blocks_of_any_number(num_bytes: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, num_bytes, np.uint8)
    stream = np.empty(num_bytes + 5 * -(-num_bytes // 65_535), np.uint8)
    png._store(rows, stream)
    assert zlib.decompress(stream.tobytes(), -15) == rows.tobytes()


def test_chunks_without_meaning_for_the_pixels_do_not_matter() -> None:
    image = _picture(20, 10)
    others = [_chunk(b"pHYs", bytes(9)), _chunk(b"gAMA", struct.pack(">I", 100_000)), _chunk(b"sRGB", b"\0")]
    content = _assembled(_rgb_header(20, 10), zlib.compress(_with_filter(image, 4)), *others)
    assert np.array_equal(_decoded(content), image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), image)


def _turned() -> dict[str, Any]:
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0112] = 6
    return {"exif": exif}


def _text() -> dict[str, Any]:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "mine")
    return {"pnginfo": info}


RGB = Image.fromarray(_picture(20, 10))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        pytest.param(RGB, _turned(), id="orientation"),
        pytest.param(RGB, _text(), id="text"),
        pytest.param(RGB, {"transparency": (1, 2, 3)}, id="transparent colour"),
        pytest.param(RGB.convert("RGBA"), {}, id="RGBA"),
        pytest.param(RGB.convert("L"), {}, id="grey"),
        pytest.param(RGB.quantize(8), {}, id="palette"),
        pytest.param(RGB.convert("I;16"), {}, id="16 bits"),
        pytest.param(RGB.convert("1"), {}, id="1 bit"),
        pytest.param(RGB, {"save_all": True, "append_images": [RGB.rotate(180)]}, id="animation"),
    ],
)
def test_everything_else_is_left_to_pillow(image: Image.Image, options: dict[str, Any]) -> None:
    content = _file(image, **options)
    assert decode_plain_png(content) is None
    assert decode_bytes(content, "a.png").shape in ((10, 20, 3), (20, 10, 3))


def test_an_interlaced_file_is_left_to_pillow() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
    content = _assembled(header, zlib.compress(b"\0abc"))
    assert decode_plain_png(content) is None
    assert decode_bytes(content, "a.png").tolist() == [[list(b"abc")]]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GIF89a", id="another format"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="signature only"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(6))), id="a byte short"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(8))), id="a byte too many"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(b"\5" + bytes(6))), id="no such filter"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(7))[:-1]), id="checksum of the stream cut"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(7)) + b"x"), id="more after the stream"),
        pytest.param(_assembled(_rgb_header(2, 1), b"no stream"), id="no stream"),
        pytest.param(_assembled(_rgb_header(0, 1), zlib.compress(b"\0")), id="no pixels"),
        pytest.param(_assembled(_rgb_header(60_000, 60_000), zlib.compress(b"\0")), id="too many pixels"),
        pytest.param(_assembled(_rgb_header(2, 1)[:-1], zlib.compress(bytes(7))), id="short header"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(7)))[:-12], id="no end"),
        pytest.param(_assembled(_rgb_header(2, 1), zlib.compress(bytes(7)))[:-1], id="end cut"),
    ],
)
def test_whatever_is_irregular_is_pillows_to_judge(content: bytes) -> None:
    assert decode_plain_png(content) is None


def test_memory_that_opencv_does_not_get_is_pillows_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("Insufficient memory")

    monkeypatch.setattr(cv2, "imdecode", fail)
    assert decode_plain_png(_file(RGB)) is None


def test_a_flipped_bit_that_pillow_does_not_notice_is_found() -> None:
    image = _picture(60, 40)
    stream = zlib.compress(_with_filter(image, 0), 0)
    # Pillow does not get to the stream's own checksum when that lies in a chunk of its own.
    content = bytearray(_assembled(_rgb_header(60, 40), stream, piece=len(stream) - 4))
    content[2000] ^= 1
    assert not np.array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
    with pytest.raises(BrokenImageError, match="a checksum of its pixels is wrong") as caught:
        decode_bytes(bytes(content), "a.png")
    assert caught.value.kind == "truncated_image"


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    start, num = int(rng.integers(len(content))), int(rng.integers(1, 60))
    part = content[start : start + num]
    noise = rng.integers(0, 256, len(part), np.uint8).tobytes()
    flipped = bytes([part[0] ^ (1 << int(rng.integers(8)))]) + part[1:]
    middle = [b"", noise, bytes(len(part)), part + part, flipped][rng.integers(5)]
    return content[:start] if rng.random() < 0.2 else content[:start] + middle + content[start + num :]


def _is_refused_by_pillow(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, zlib.error, struct.error, IndexError):
        return True
    return False


@pytest.mark.parametrize("seed", range(4))
def test_damage_never_becomes_wrong_pixels_and_what_pillow_refuses_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = _picture(40, 30)
    content = _file(Image.fromarray(image), compress_level=int(rng.integers(10)), dpi=(72, 72))
    for _ in range(250):
        damaged = _damaged(content, rng)
        try:
            found = decode_bytes(damaged, "a.png")
        except BrokenImageError:
            continue
        assert np.array_equal(found, image)
        assert not _is_refused_by_pillow(damaged)


def test_the_fast_way_is_the_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillsnap.data.images.Image.open", None)
    assert np.array_equal(decode_bytes(_file(RGB), "a.png"), np.asarray(RGB))
