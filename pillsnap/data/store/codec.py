"""How an entry is packed for LMDB.

`lossless` is a filter and Zstandard: the red and blue plane as differences to the green one, each row as the difference
to the row above. Against OpenCV's PNG (level 1) of 384 x 384 pixels it takes 0.37 ms instead of 3.0 to unpack, 1.0 ms
instead of 7 to pack, and 7 to 20 % fewer bytes. `jpeg` is quality 95 without chroma subsampling.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pillsnap.data.images import RgbImage
from pillsnap.data.store.layout import CHANNELS, DamagedEntryError, LmdbCodec

BLOCKS = 8  # parts of a picture that are filtered side by side: fewer, longer operations undo the filter
JPEG_OPTIONS = (
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)

_ZSTANDARD = pa.Codec("zstd", 1)


def encode(pixels: RgbImage, codec: LmdbCodec) -> bytes:
    """Pack uint8 (h, w, 3); only `lossless` gives the same pixels back."""
    if codec == "jpeg":
        _, packed = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), JPEG_OPTIONS)
        return packed.tobytes()
    return bytes(_ZSTANDARD.compress(_filtered(pixels), asbytes=True))


def decode(packed: memoryview | bytes, size_hw: tuple[int, int], codec: LmdbCodec) -> RgbImage:
    """Unpack what `encode` returned.

    Raises:
        DamagedEntryError: It is something else.
    """
    if codec == "jpeg":
        image = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape[:2] != size_hw:
            raise DamagedEntryError(f"no JPEG of {size_hw}")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    num_bytes = size_hw[0] * size_hw[1] * CHANNELS
    try:
        plain = _ZSTANDARD.decompress(packed, num_bytes)
    except OSError as error:  # pyarrow's error for data that is not Zstandard's
        raise DamagedEntryError(str(error)) from error
    return _unfiltered(np.frombuffer(plain, np.uint8), *size_hw)


def psnr_db(pixels: RgbImage, others: RgbImage) -> float:
    """Return the peak signal-to-noise ratio of two pictures of one size; at most that of one wrong bit."""
    error = max(float(np.mean((pixels.astype(np.float32) - others) ** 2)), 1.0 / pixels.size)
    return float(10 * np.log10(255.0**2 / error))


def _blocks(height: int) -> int:
    return BLOCKS if height % BLOCKS == 0 else 1


def _filtered(pixels: RgbImage) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    red, green, blue = cv2.split(pixels)
    planes = np.empty((height, CHANNELS, width), np.uint8)
    planes[:, 0] = green
    np.subtract(red, green, out=planes[:, 1])
    np.subtract(blue, green, out=planes[:, 2])
    rows = planes.reshape(_blocks(height), height // _blocks(height), CHANNELS * width)
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return differences


def _unfiltered(differences: NDArray[np.uint8], height: int, width: int) -> RgbImage:
    blocks = _blocks(height)
    rows = differences.reshape(blocks, height // blocks, CHANNELS * width).copy()
    for row in range(1, height // blocks):
        np.add(rows[:, row], rows[:, row - 1], out=rows[:, row])
    planes = rows.reshape(height, CHANNELS, width)
    green = planes[:, 0]
    planes[:, 1] += green
    planes[:, 2] += green
    return np.asarray(cv2.merge((planes[:, 1], green, planes[:, 2])), np.uint8)
