"""The pictures of the gallery as data URIs: kept thumbnails, or what can still be made from the originals."""

from __future__ import annotations

import base64
import csv
import functools
import io
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.preprocess import crop_resize, frame_square
from pillsnap.errors import BrokenImageError, PillError
from pillsnap.inference.hard_case import HardCase
from pillsnap.inference.hard_cases import CROP_PX, FOLDER, JPEG_QUALITY, REFERENCES, crop_of, thumbnail_of
from pillsnap.jsonfile import read_json

JPEG = "data:image/jpeg;base64,"


class CasePictures:
    """Pictures of cases and of drugs; "" stands for one that cannot be had."""

    def __init__(self, exp_dir: Path) -> None:
        """Look below an experiment, and in its data set where that is still there."""
        self._exp_dir = exp_dir
        self._folder = exp_dir / FOLDER
        self._root = _data_root(exp_dir / "config.yaml")
        self._references = _optional(self._folder / REFERENCES)
        self._of_drug: dict[str, str] = {}
        self._original = functools.lru_cache(maxsize=1)(self._decode)  # a case's picture and its crop

    def thumbnail(self, case: HardCase) -> str:
        """Return the picture of a case."""
        kept = self._kept(case.thumbnail)
        image = None if kept else self._original(case.image_path)
        return kept if image is None else _uri(thumbnail_of(image))

    def crop(self, case: HardCase) -> str:
        """Return the pill of a case; "" where the whole picture is the pill's."""
        kept = self._kept(case.crop)
        if kept or case.box is None:
            return kept
        image = self._original(case.image_path)
        return "" if image is None else _uri(crop_of(image, case.box))

    def reference(self, code: str) -> str:
        """Return a training picture of a drug; "" for one that nothing trained on."""
        if code not in self._of_drug:
            self._of_drug[code] = self._portrait(code)
        return self._of_drug[code]

    def _portrait(self, code: str) -> str:
        kept = self._kept(self._references.get(code))
        path = None if kept else self._training_pictures.get(code)
        image = None if path is None else self._original(path)
        if image is None:
            return kept
        square = frame_square((image.shape[1], image.shape[0]), "letterbox")
        return _uri(crop_resize(image, square, CROP_PX))

    @functools.cached_property
    def _training_pictures(self) -> dict[str, str]:
        """Return the first picture of each drug alone on the training side, from the run's `selection.csv`."""
        found: dict[str, str] = {}
        try:
            with (self._exp_dir / "selection.csv").open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    if line.get("split") == "train" and line.get("image_type") == "single":
                        found.setdefault(line["mapping_code"], line["image_path"])
        except (OSError, ValueError, KeyError, csv.Error):  # the page says that there is no picture
            return {}
        return found

    def _kept(self, name: object) -> str:
        """Return a file of the folder as it is."""
        if not isinstance(name, str):
            return ""
        try:
            return JPEG + base64.b64encode((self._folder / name).read_bytes()).decode()
        except OSError:
            return ""

    def _decode(self, image_path: str) -> RgbImage | None:
        try:
            return decode_rgb(self._root / image_path)
        except BrokenImageError:
            return None


def _uri(image: RgbImage) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return JPEG + base64.b64encode(buffer.getvalue()).decode()


def _data_root(config_path: Path) -> Path:
    """Return where the data set of a configuration lies; the working directory where that is not said."""
    try:
        config = OmegaConf.create(yaml.safe_load(config_path.read_text(encoding="utf-8")))
        return Path(str(OmegaConf.select(config, "data.root", default=".")))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        return Path()


def _optional(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except PillError:  # missing, or damaged: a page without some pictures is better than none
        return {}
