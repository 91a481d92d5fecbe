"""The one place where a picture file becomes pixels.

Training, validation, inference and the data check all decode here, so that a grey, transparent, 16-bit, CMYK or
EXIF-rotated file means the same everywhere and a broken one fails in one way. What a picture is and which files are
broken is what Pillow says; the usual kinds of file are decoded faster, to the same pixels, by `png` and `jpeg`.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pillsnap.data.jpeg import decode_jpeg_pixels, is_regular, largest_reduction, turn_upright
from pillsnap.data.png import decode_plain_png
from pillsnap.errors import BrokenImageError

RgbImage = NDArray[np.uint8]

# What Pillow raises on damaged files; the last five come out of damaged EXIF blocks and compressed streams.
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
    TypeError,
    LookupError,
    OverflowError,
)
# Too many open files: the process is at fault and not the picture.
NO_HANDLE_LEFT = (errno.EMFILE, errno.ENFILE)
MIN_PICTURE_BYTES = 100  # fewer are what is left of a file, as the readers of data sets see it
JPEG_FORMATS = ("JPEG", "MPO")  # MPO: several pictures of a phone in one file, the first being an ordinary JPEG
EXIF_ORIENTATION_TAG = 0x0112
EXIF_ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)


class FileBytes(NamedTuple):
    """A file's content with the size and time of change it had when it was opened."""

    data: bytes
    size: int
    mtime_ns: int


class Decoded(NamedTuple):
    """A picture that may have been decoded smaller than it is."""

    image: RgbImage
    """uint8 (height, width, 3), RGB, upright, about `1 / reduction` of the full size."""
    reduction: int
    """1, 2, 4 or 8."""
    size_wh: tuple[int, int]
    """Full size in pixels, upright: what boxes are measured in."""


def read_file(path: Path) -> FileBytes:
    """Read a picture file whole.

    Raises:
        BrokenImageError: The file is missing or cannot be read.
        MemoryError: Memory ran out; nothing is known about the file.
        OSError: Too many files are open; nothing is known about this one.
    """
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            return FileBytes(file.read(), status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise BrokenImageError(
            f"{path} does not exist. Run `pillsnap data check` on its data set.", "missing_file"
        ) from error
    except OSError as error:
        _raise_if_not_of_the_file(path, error)
        raise BrokenImageError(
            f"{path} cannot be read ({error}). A readable picture file was wanted: look at its permissions and at the "
            "disk it lies on, or copy it again from the source.",
            "unreadable_file",
        ) from error


def decode_rgb(path: Path) -> RgbImage:
    """Read and decode a picture; see `read_file` and `decode_bytes`."""
    return decode_bytes(read_file(path).data, path)


def decode_reduced(path: Path, longer_side_px: int) -> Decoded:
    """Read a picture and decode it no larger than needed; see `read_file` and `decode_reduced_bytes`."""
    return decode_reduced_bytes(read_file(path).data, path, longer_side_px)


def decode_bytes(data: bytes, name: Path | str) -> RgbImage:
    """Decode a picture file's content to 8-bit RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit samples are scaled to 8 bits (not cut
    off), and CMYK is converted.

    Args:
        data: A whole file in any format Pillow reads.
        name: What error messages call it.

    Returns:
        uint8 (height, width, 3), RGB, contiguous.

    Raises:
        BrokenImageError: The file is empty, truncated, not a picture, or too large to be one.
        MemoryError: Memory ran out while it was decoded; nothing is known about the file.
    """
    return _decode(data, name, None).image


def decode_reduced_bytes(data: bytes, name: Path | str, longer_side_px: int) -> Decoded:
    """Decode a picture file's content at the smallest size that JPEG offers and that is large enough.

    Args:
        data: A whole file in any format Pillow reads.
        name: What error messages call it.
        longer_side_px: The longer side of the result is at least that long, or the picture's own.

    Returns:
        The picture, how much smaller it is, and its full size. Only grey and YCbCr
        JPEG that is not progressive comes smaller.

    Raises:
        BrokenImageError: The file is empty, truncated, not a picture, or too large to be one.
        MemoryError: Memory ran out while it was decoded; nothing is known about the file.
    """
    return _decode(data, name, longer_side_px)


def image_size_wh(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels as `decode_rgb` would give them, reading only the file's header.

    Raises:
        BrokenImageError: The header cannot be read.
        MemoryError: Memory ran out while it was read; nothing is known about the file.
        OSError: Too many files are open; nothing is known about this one.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Asked for its EXIF block, a PNG without one before the pixels is decoded to its end in search of it.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1) if has_exif else 1
    except DECODE_ERRORS as error:
        _raise_if_not_of_the_file(path, error)
        raise _broken(path, _file_size(path), error) from error
    return (height, width) if orientation in EXIF_ORIENTATIONS_ON_THE_SIDE else (width, height)


def _decode(data: bytes, name: Path | str, longer_side_px: int | None) -> Decoded:
    try:
        plain = decode_plain_png(data)
        if plain is not None:
            return _full_size(plain)
        with Image.open(io.BytesIO(data)) as image:
            return _decode_jpeg(image, data, longer_side_px) or _decode_with_pillow(image)
    except DECODE_ERRORS as error:
        _raise_if_not_of_the_file(name, error)
        raise _broken(name, len(data), error) from error


def _decode_with_pillow(image: Image.Image) -> Decoded:
    """Decode what Pillow has opened: the reference that the faster ways must equal."""
    image.load()
    upright = ImageOps.exif_transpose(image)
    return _full_size(np.ascontiguousarray(_to_rgb(upright)))


def _full_size(image: RgbImage) -> Decoded:
    return Decoded(image, 1, (image.shape[1], image.shape[0]))


def _decode_jpeg(image: Image.Image, data: bytes, longer_side_px: int | None) -> Decoded | None:
    """Decode the JPEG whose header Pillow has read; None when that is Pillow's to do."""
    if image.format not in JPEG_FORMATS or image.mode not in ("RGB", "L") or not is_regular(data):
        return None
    orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1)
    reduction = 1 if longer_side_px is None else largest_reduction(image.size, longer_side_px)
    pixels = decode_jpeg_pixels(data, reduction)
    width, height = image.size
    if pixels is None or pixels.shape[:2] != (-(-height // reduction), -(-width // reduction)):
        return None
    on_its_side = orientation in EXIF_ORIENTATIONS_ON_THE_SIDE
    return Decoded(turn_upright(pixels, orientation), reduction, (height, width) if on_its_side else (width, height))


def _to_rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion cuts values at 255, which turns most of a 16-bit picture white.
        samples = np.asarray(image, np.float64)
        full_scale = 65535.0 if samples.max(initial=0) > 255 else 255.0
        grey = (samples.clip(0, full_scale) * (255.0 / full_scale)).round().astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _raise_if_not_of_the_file(name: Path | str, error: Exception) -> None:
    """Let errors of the machine through: a sound picture must not be left out because of them (OOM-4)."""
    if not isinstance(error, OSError):
        return
    # The text is that of Pillow's decoders, whose errors have no number.
    if error.errno == errno.ENOMEM or (error.errno is None and str(error).startswith("out of memory")):
        raise MemoryError(f"memory ran out while {name} was read ({error})") from error
    if error.errno in NO_HANDLE_LEFT:
        raise error


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _broken(name: Path | str, num_bytes: int | None, error: Exception) -> BrokenImageError:
    size = "its size is unknown" if num_bytes is None else f"{num_bytes} bytes"
    return BrokenImageError(
        f"{name} cannot be decoded ({size}; {error}). A complete picture file was wanted: "
        "copy it again from the source or delete it; `pillsnap data check` lists all such files.",
        _kind(num_bytes, error),
    )


def _kind(num_bytes: int | None, error: Exception) -> str:
    if num_bytes is not None and num_bytes < MIN_PICTURE_BYTES:
        return "empty_image"
    if isinstance(error, Image.DecompressionBombError):
        return "too_large"
    return "not_an_image" if isinstance(error, UnidentifiedImageError) else "truncated_image"
