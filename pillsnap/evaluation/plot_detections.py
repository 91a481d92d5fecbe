"""Photographs with the boxes a model found, the labelled ones beside them, and what was right in words below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pillsnap.atomicfile import atomic_path
from pillsnap.boxes import FloatArray
from pillsnap.evaluation.detection import box_array, match_boxes
from pillsnap.evaluation.figure import ORANGE, RED, SKY, base_font_path, drawable_label, korean_font_path

# The long side of the written photograph: small ones are enlarged so that text can be read, large ones shrunk.
_MIN_SIDE_PX, _MAX_SIDE_PX = 640, 1024
_ROW_PX = 22  # one line of text below the photograph
_FONT_PX = 15


@dataclass(frozen=True)
class _Boxes:
    """The checked boxes of one photograph; codes are "" and targets None where they were not given."""

    found: FloatArray
    scores: FloatArray
    codes: Sequence[str]
    targets: FloatArray | None
    target_codes: Sequence[str]

    @property
    def has_codes(self) -> bool:
        return any(self.codes) or any(self.target_codes)


def plot_detection_results(
    images: Sequence[NDArray[np.uint8]], predictions: Sequence[Mapping[str, Any]], out_dir: Path
) -> list[Path]:
    """Draw found (orange) and labelled (blue) boxes into copies of the photographs.

    Boxes with codes are numbered, and the codes stand below the photograph, so that no text hides a pill.

    Args:
        images: (H, W, 3) uint8 RGB each.
        predictions: One mapping a photograph: `boxes_xyxy` (N, 4) pixels of it and `scores` (N,); optionally `codes`
            (N labels, for example "K-000059 타이레놀정"), `targets` (M, 4) labelled boxes and `target_codes` (M).
        out_dir: Folder for `detection_000.png`, `detection_001.png` and so on; made when missing.

    Returns:
        The paths, one a photograph, in order.

    Raises:
        ValueError: Lists of different length, an array that is not a photograph, or boxes of the wrong shape.
    """
    if len(images) != len(predictions):
        raise ValueError(
            f"detections cannot be drawn: got {len(images)} images and predictions for {len(predictions)}; wanted one "
            "of each for every photograph. Pass both lists in the same order."
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        canvas = _draw_one(_checked_image(image, index), _checked_boxes(prediction, index))
        paths.append(out_dir / f"detection_{index:03d}.png")
        with atomic_path(paths[-1]) as temporary:
            canvas.save(temporary, format="PNG")
    return paths


def _checked_image(image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    """Return the photograph, or refuse it."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image {index} has shape {image.shape} and type {image.dtype}; wanted (H, W, 3) uint8 RGB. Decode it "
            "with pillsnap.data.images.decode_rgb."
        )
    return image


def _checked_boxes(prediction: Mapping[str, Any], index: int) -> _Boxes:
    """Return the boxes of one photograph, or refuse them."""
    found = box_array(prediction["boxes_xyxy"], index)
    given = prediction.get("targets")
    targets = None if given is None else box_array(given, index)
    num_targets = 0 if targets is None else len(targets)
    boxes = _Boxes(
        found=found,
        scores=np.asarray(prediction["scores"], np.float32).reshape(-1),
        codes=prediction.get("codes") or [""] * len(found),
        targets=targets,
        target_codes=prediction.get("target_codes") or [""] * num_targets,
    )
    if not len(found) == len(boxes.scores) == len(boxes.codes) or len(boxes.target_codes) != num_targets:
        raise ValueError(
            f"photograph {index} has {len(found)} boxes, {len(boxes.scores)} scores and {len(boxes.codes)} codes, and "
            f"{num_targets} labelled boxes with {len(boxes.target_codes)} codes; wanted one score and one code a box. "
            "Pass the lists of the same answer."
        )
    return boxes


def _draw_one(image: NDArray[np.uint8], boxes: _Boxes) -> Image.Image:
    """Return one photograph with its boxes, a legend, and a line for each box that has a code."""
    long_side = max(image.shape[:2])
    scale = min(max(long_side, _MIN_SIDE_PX), _MAX_SIDE_PX) / long_side
    width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    rows = _rows(boxes) if boxes.has_codes else []
    text_width = max((math.ceil(_font_for(text).getlength(text)) + 16 for text, _ in rows), default=0)
    canvas = Image.new("RGB", (max(width, text_width), height + 8 + _ROW_PX * (1 + len(rows))), "white")
    canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(canvas)
    if boxes.targets is not None:
        for box in boxes.targets * scale:
            _draw_box(draw, box + np.array([-3, -3, 3, 3], np.float32), SKY)  # outside, so that both can be seen
    for box in boxes.found * scale:
        _draw_box(draw, box, ORANGE)
    for number, (box, score) in enumerate(zip(boxes.found * scale, boxes.scores, strict=True), start=1):
        _draw_tag(draw, box, str(number) if boxes.has_codes else f"{score:.2f}", width)
    _draw_legend(draw, boxes, height + 4)
    for line, (text, colour) in enumerate(rows, start=1):
        draw.text((8, height + 4 + line * _ROW_PX), text, fill=colour, font=_font_for(text))
    return canvas


def _rows(boxes: _Boxes) -> list[tuple[str, str]]:
    """Return the text and colour of each line: what each box was called, and where that differs from its label."""
    labelled: dict[int, int] = {}
    if boxes.targets is not None:
        labelled = dict(match_boxes(boxes.found, boxes.scores, boxes.targets))
    rows = []
    for index, (code, score) in enumerate(zip(boxes.codes, boxes.scores, strict=True)):
        text, colour = f"{index + 1}  {drawable_label(code, '?')}  {score:.2f}", "black"
        if boxes.targets is not None and index not in labelled:
            text, colour = f"{text}  (no pill labelled here)", RED
        elif index in labelled and boxes.target_codes[labelled[index]] != code:
            text, colour = f"{text}  (labelled {drawable_label(boxes.target_codes[labelled[index]], '?')})", RED
        rows.append((text, colour))
    missed = [code for index, code in enumerate(boxes.target_codes) if index not in labelled.values()]
    return rows + [(f"missed: {drawable_label(code, '?')}", RED) for code in missed]


def _draw_box(draw: ImageDraw.ImageDraw, box_xyxy: FloatArray, colour: str) -> None:
    """Draw one box with a dark rim on both sides, to be seen on any background."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="black", width=5)
    draw.rectangle((x0, y0, x1, y1), outline=colour, width=3)


def _draw_tag(draw: ImageDraw.ImageDraw, box_xyxy: FloatArray, text: str, photo_width: int) -> None:
    """Write a short text above the top left corner of a box, inside the photograph."""
    font = _font_for(text)
    width = draw.textlength(text, font=font) + 6
    left = min(max(float(box_xyxy[0]) - 1, 0.0), max(photo_width - width, 0.0))
    top = max(float(box_xyxy[1]) - 20, 0.0)
    draw.rectangle((left, top, left + width, top + 19), fill=ORANGE, outline="black")
    draw.text((left + 3, top + 1), text, fill="black", font=font)


def _draw_legend(draw: ImageDraw.ImageDraw, boxes: _Boxes, top_px: int) -> None:
    """Write what the colours mean, with the number of boxes, into the first line below the photograph."""
    entries = [(ORANGE, f"found: {len(boxes.found)}")]
    if boxes.targets is not None:
        entries.append((SKY, f"labelled: {len(boxes.targets)}"))
    left = 8.0
    for colour, text in entries:
        draw.rectangle((left, top_px + 4, left + 12, top_px + 16), fill=colour, outline="black")
        draw.text((left + 18, top_px + 1), text, fill="black", font=_font_for(text))
        left += 18 + draw.textlength(text, font=_font_for(text)) + 24


def _font_for(text: str) -> ImageFont.FreeTypeFont:
    """Return a font with every glyph of `text`: Pillow, unlike matplotlib, takes one font a text."""
    korean = korean_font_path()
    path = base_font_path() if korean is None or text.isascii() else korean
    return ImageFont.truetype(str(path), _FONT_PX)
