"""The answer drawn into the picture: a frame around each pill, with its code, name and confidence.

A refused pill has a grey frame, the word "unknown", and the drug it looks most like.

Small pictures are enlarged first, so that the writing is readable at any size. Names with letters that no installed
font has (Korean, mostly) are left out; the code is always written.
"""

from __future__ import annotations

import colorsys
import functools
import logging

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pillsnap.data.images import RgbImage
from pillsnap.inference.answers import Answer, Pill

logger = logging.getLogger(__name__)

MIN_SIDE_PX = 640  # of the longer side of the drawn picture
LETTERS_PER_SIDE = 36  # height of the shorter side over the height of the letters
MIN_LETTER_PX = 14
LABEL_WIDTH = 0.4  # of the picture's width, for a pill narrower than that
ELLIPSIS = "..."
# Looked up by file name in the system's font folders. All have Hangul and Latin letters.
KOREAN_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansKR-Regular.otf",
    "NotoSansKR-Regular.ttf",
    "NanumGothic.ttf",
    "NanumSquareRoundR.ttf",
    "malgun.ttf",
    "AppleSDGothicNeo.ttc",
)
REFUSED_COLOUR = (128, 128, 128)
GOLDEN_RATIO = 0.618034  # steps of this on the colour circle keep neighbours apart

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]
Corners = tuple[float, float, float, float]


def draw_answer(image: RgbImage, answer: Answer) -> RgbImage:
    """Draw an answer into a copy of its picture.

    Args:
        image: uint8 (H, W, 3) RGB, the picture the answer is about.
        answer: From `Pipeline.predict`; boxes in pixels of `image`. A pill without a box is written at the top.

    Returns:
        uint8 (H', W', 3) RGB; larger than the picture, with its proportions, when that is small.
    """
    height, width = image.shape[:2]
    scale = max(1.0, MIN_SIDE_PX / max(height, width))
    canvas = Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    letter_px = max(MIN_LETTER_PX, round(min(canvas.size) / LETTERS_PER_SIDE))
    colours = [REFUSED_COLOUR if pill["is_unknown"] else _colour(index) for index, pill in enumerate(answer["pills"])]
    corners = [_corners(pill, scale) for pill in answer["pills"]]
    for box, colour in zip(corners, colours, strict=True):
        if box is not None:
            draw.rectangle(box, outline=colour, width=max(2, letter_px // 6))
    # Labels after all frames: a frame must not cross out the name of another pill.
    for pill, box, colour in zip(answer["pills"], corners, colours, strict=True):
        _write_label(draw, canvas.size, pill, box, colour, letter_px)
    return np.asarray(canvas)


def label_lines(pill: Pill) -> list[str]:
    """Return the text beside a pill: code and confidence, and its name where that can be written.

    A refused pill is "unknown"; the second line says what it looks like.
    """
    if pill["is_unknown"]:
        return [pill["code"], *(f"like {one['code']}" for one in pill["top5"][:1])]
    lines = [f"{pill['code']}  {pill['confidence']:.0%}"]
    name = pill["name"]
    if name and (name.isascii() or _korean_font_name() is not None):
        lines.append(name)
    return lines


def _write_label(
    draw: ImageDraw.ImageDraw,
    canvas_wh: tuple[int, int],
    pill: Pill,
    box: Corners | None,
    colour: Colour,
    letter_px: int,
) -> None:
    margin = max(2, letter_px // 5)
    # A label much wider than its pill would cover the neighbours.
    room = canvas_wh[0] if box is None else max(box[2] - box[0], LABEL_WIDTH * canvas_wh[0])
    lines = label_lines(pill)
    font = _font(letter_px, is_ascii="".join(lines).isascii())
    text = "\n".join(_shortened(draw, line, font, room - 2 * margin) for line in lines)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x, y = (box[0], box[1] - height) if box else (0.0, 0.0)
    if y < 0 and box:
        y = box[1]  # no room above the frame: inside it
    x = min(max(x, 0.0), max(canvas_wh[0] - width, 0.0))
    y = min(max(y, 0.0), max(canvas_wh[1] - height, 0.0))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.multiline_text((x + margin - left, y + margin - top), text, font=font, fill=_ink_on(colour))


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, width_px: float) -> str:
    if draw.textlength(text, font=font) <= width_px:
        return text
    while text and draw.textlength(text + ELLIPSIS, font=font) > width_px:
        text = text[:-1]
    return text + ELLIPSIS


def _corners(pill: Pill, scale: float) -> Corners | None:
    box = pill["box_xyxy"]
    return None if box is None else (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)


def _colour(index: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * GOLDEN_RATIO) % 1.0, 0.85, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is readable on `colour` (its luma against the middle)."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else (255, 255, 255)


@functools.cache
def _font(size_px: int, *, is_ascii: bool) -> Font:
    korean = _korean_font_name()
    if is_ascii or korean is None:
        return ImageFont.load_default(size_px)
    return ImageFont.truetype(korean, size_px)


@functools.cache
def _korean_font_name() -> str | None:
    for name in KOREAN_FONTS:
        try:
            ImageFont.truetype(name, MIN_LETTER_PX)
        except OSError:
            continue
        return name
    logger.info("No Korean font is installed: drug names with Korean letters are left out of drawn pictures.")
    return None
