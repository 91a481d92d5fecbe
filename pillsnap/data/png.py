"""Decodes plain PNG files twice as fast as Pillow, to the same pixels, and finds damage that Pillow does not look for.

Most of the time a PNG takes is zlib's. Here ISA-L inflates, in half the time, and OpenCV's libpng, whose SIMD code
undoes PNG's filters, gets the rows in a PNG without compression: 976x1280 in 10.5 ms of a core, Pillow takes 18.

Only 8-bit RGB that is not interlaced, with nothing in the file that changes pixels (transparency, an orientation, an
animation) and nothing irregular, is decoded here. Everything else is left to Pillow, which also judges what is broken;
but it does not look at the checksums of the pixels: of 969 damaged files it accepted, 475 had become other pictures.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.fastzlib import adler32, clear_registers, crc32, inflate

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change nothing about the pixels, as Pillow reads them. Text is not among them: a camera program may keep
# an EXIF block in it.
IGNORED_CHUNKS = (b"pHYs", b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"sBIT", b"bKGD", b"tIME")
DATA, END = b"IDAT", b"IEND"
PLAIN_RGB = (8, 2, 0, 0, 0)  # bits, colour type, compression, filters, no interlacing
MAX_PIXELS = 89_478_485  # above it Pillow warns of, and above twice of it refuses, pictures made to fill the memory
LAST_FILTER = 4
ZLIB_HEADER = b"\x78\x01"
STORED_BYTES = 65_535  # in a block of uncompressed data
BLOCK_HEADER_BYTES = 5
DAMAGED_PIXELS = "a checksum of its pixels is wrong or missing"


class _Chunk(NamedTuple):
    name: bytes
    content: memoryview
    is_sound: bool  # the checksum is the content's


class _Plain(NamedTuple):
    """A PNG that can be decoded here."""

    width: int
    height: int
    compressed: bytes  # a zlib stream


def decode_plain_png(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a plain PNG file.

    Args:
        data: A whole file of any kind.

    Returns:
        uint8 (height, width, 3) RGB, or None for what is not a plain PNG without a fault: Pillow's to decode or refuse.

    Raises:
        ValueError: A checksum of the pixels is wrong, or the file ends within them, in a PNG of any kind.
        MemoryError: Memory ran out.
    """
    if not data.startswith(SIGNATURE):
        return None
    try:
        plain = _read_plain(data)
    finally:
        clear_registers()
    if plain is None:
        return None
    row_bytes = 1 + 3 * plain.width
    content = inflate(plain.compressed, plain.height * row_bytes)
    if content is None:
        return None
    rows = np.frombuffer(content, np.uint8)
    return None if rows[::row_bytes].max() > LAST_FILTER else _undo_filters(rows, plain)


def _read_plain(data: bytes) -> _Plain | None:
    """Look at every chunk; return None where one of them is not as a plain file has it."""
    header: memoryview | None = None
    pieces: list[memoryview] = []
    is_plain, previous = True, b""
    for chunk in _chunks(data):
        if chunk.name == DATA and not chunk.is_sound:
            raise ValueError(DAMAGED_PIXELS)
        if chunk.name == DATA:
            is_plain &= previous == DATA or not pieces
            pieces.append(chunk.content)
        elif not previous and chunk.name == b"IHDR":
            header = chunk.content
        else:
            is_plain &= chunk.name == END or chunk.name in IGNORED_CHUNKS
        is_plain &= chunk.is_sound
        previous = chunk.name
    if not is_plain or previous != END or not pieces or header is None or len(header) != 13:
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", header)
    if tuple(kind) != PLAIN_RGB or not 0 < width * height <= MAX_PIXELS:
        return None
    return _Plain(width, height, b"".join(pieces))


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield chunks up to the end chunk, or up to where the file breaks off."""
    view, start = memoryview(data), len(SIGNATURE)
    while start + 12 <= len(data):
        (num_bytes,) = struct.unpack_from(">I", data, start)
        stop = start + 8 + num_bytes
        name = data[start + 4 : start + 8]
        if stop + 4 > len(data):
            yield _Chunk(name, view[start + 8 :], False)
            return
        (checksum,) = struct.unpack_from(">I", data, stop)
        yield _Chunk(name, view[start + 8 : stop], crc32(view[start + 4 : stop], is_last=False) == checksum)
        if name == END:
            return
        start = stop + 4


def _undo_filters(rows: NDArray[np.uint8], plain: _Plain) -> NDArray[np.uint8] | None:
    """Let libpng undo the filters of rows that need no inflating."""
    num_blocks = -(-len(rows) // STORED_BYTES)
    stream_bytes = 2 + num_blocks * BLOCK_HEADER_BYTES + len(rows) + 4
    head = SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", plain.width, plain.height, *PLAIN_RGB))
    head += struct.pack(">I", stream_bytes) + DATA + ZLIB_HEADER
    tail = _chunk(END, b"")
    first = len(head) - len(ZLIB_HEADER)  # byte of the stream
    file = np.empty(first + stream_bytes + 4 + len(tail), np.uint8)
    file[: len(head)] = np.frombuffer(head, np.uint8)
    _store(rows, file[len(head) : first + stream_bytes - 4])
    file[first + stream_bytes - 4 : first + stream_bytes] = np.frombuffer(struct.pack(">I", adler32(rows)), np.uint8)
    checksum = crc32(file[first - len(DATA) : first + stream_bytes])
    file[first + stream_bytes :] = np.frombuffer(struct.pack(">I", checksum) + tail, np.uint8)
    try:
        return _as_rgb(cv2.imdecode(file, cv2.IMREAD_COLOR_RGB))
    except cv2.error:
        return None  # no memory, most likely; Pillow will say


def _store(rows: NDArray[np.uint8], stream: NDArray[np.uint8]) -> None:
    """Write `rows` into a deflate stream as blocks that are stored as they are."""
    num_full = (len(rows) - 1) // STORED_BYTES
    block_bytes = BLOCK_HEADER_BYTES + STORED_BYTES
    full = stream[: num_full * block_bytes].reshape(num_full, block_bytes)
    full[:, :BLOCK_HEADER_BYTES] = np.frombuffer(_block_header(STORED_BYTES, is_last=False), np.uint8)
    full[:, BLOCK_HEADER_BYTES:] = rows[: num_full * STORED_BYTES].reshape(num_full, STORED_BYTES)
    rest, last = rows[num_full * STORED_BYTES :], stream[num_full * block_bytes :]
    last[:BLOCK_HEADER_BYTES] = np.frombuffer(_block_header(len(rest), is_last=True), np.uint8)
    last[BLOCK_HEADER_BYTES:] = rest


def _block_header(num_bytes: int, *, is_last: bool) -> bytes:
    return struct.pack("<BHH", is_last, num_bytes, num_bytes ^ 0xFFFF)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc32(name + content))


def _as_rgb(image: object) -> NDArray[np.uint8] | None:
    return None if image is None else np.asarray(image, np.uint8)
