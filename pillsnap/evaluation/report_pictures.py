"""The pictures of an experiment, packed into the report page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image, UnidentifiedImageError

# Photographs are embedded as JPEG: as PNG a dozen of them would make a page of 20 MB.
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """One picture: its bytes as a data URI, empty when the file cannot be read, and where the file lies."""

    name: str
    href: str
    """Relative to the page; empty where the picture is in the page alone."""
    alt: str
    data_uri: str
    width: int
    height: int


def load_pictures(folder: Path, pattern: str, alt: str, *, is_photo: bool = False) -> list[Picture]:
    """Pack the files of `folder` that match `pattern`, sorted by name.

    Args:
        folder: The folder the page lies in.
        pattern: Glob relative to `folder`, for example "detections/*.png".
        alt: What the pictures show, for readers who cannot see them; the file's name is added.
        is_photo: Whether to embed as JPEG.
    """
    return [
        _pack(path, folder, f"{alt} ({path.relative_to(folder).with_suffix('').as_posix()})", is_photo)
        for path in sorted(folder.glob(pattern))
    ]


def picture_of(name: str, content: bytes, alt: str, kind: str = "png") -> Picture:
    """Return a picture that no file holds.

    Args:
        name: Shown below it.
        content: A PNG or JPEG.
        alt: What it shows.
        kind: "png" or "jpeg".
    """
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    return Picture(name, "", alt, _data_uri(content, kind), width, height)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _pack(path: Path, folder: Path, alt: str, is_photo: bool) -> Picture:
    """Return one file as a picture."""
    name = path.relative_to(folder).as_posix()
    href = quote(name)
    try:
        with Image.open(path) as image:
            image.load()
            width, height = image.size
            content = jpeg_of(image) if is_photo else path.read_bytes()
    except (OSError, UnidentifiedImageError):
        return Picture(name, href, alt, "", 0, 0)  # the page says so
    kind = "jpeg" if is_photo else "png"
    return Picture(name, href, alt, _data_uri(content, kind), width, height)


def jpeg_of(image: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
