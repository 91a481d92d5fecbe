"""The one place where a picture file becomes pixels.

Training, validation, inference and the data check all decode here, so that a grey, transparent, 16-bit, CMYK or
EXIF-rotated file means the same everywhere and a broken one fails in one way.
"""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

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
EXIF_ORIENTATION_TAG = 0x0112
EXIF_ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)


def decode_rgb(path: Path) -> RgbImage:
    """Decode a picture to 8-bit RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit samples are scaled to 8 bits (not cut
    off), and CMYK is converted.

    Args:
        path: A picture in any format Pillow reads.

    Returns:
        uint8 (height, width, 3), RGB, contiguous.

    Raises:
        BrokenImageError: The file is empty, truncated, not a picture, or too large to be one.
        MemoryError: Memory ran out while it was decoded; nothing is known about the file.
        OSError: Too many files are open; nothing is known about this one.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(_to_rgb(upright))
    except FileNotFoundError as error:
        raise BrokenImageError(f"{path} does not exist. Run `pillsnap data check` on its data set.") from error
    except DECODE_ERRORS as error:
        _raise_if_not_of_the_file(path, error)
        raise _broken(path, error) from error


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
        raise _broken(path, error) from error
    return (height, width) if orientation in EXIF_ORIENTATIONS_ON_THE_SIDE else (width, height)


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


def _raise_if_not_of_the_file(path: Path, error: Exception) -> None:
    """Let errors of the machine through: a sound picture must not be left out because of them (OOM-4)."""
    if not isinstance(error, OSError):
        return
    # The text is that of Pillow's decoders, whose errors have no number.
    if error.errno == errno.ENOMEM or (error.errno is None and str(error).startswith("out of memory")):
        raise MemoryError(f"memory ran out while {path} was read ({error})") from error
    if error.errno in NO_HANDLE_LEFT:
        raise error


def _broken(path: Path, error: Exception) -> BrokenImageError:
    try:
        size = f"{path.stat().st_size} bytes"
    except OSError:
        size = "its size is unknown"
    return BrokenImageError(
        f"{path} cannot be decoded ({size}; {error}). A complete picture file was wanted: "
        "copy it again from the source or delete it; `pillsnap data check` lists all such files."
    )
