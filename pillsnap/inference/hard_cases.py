"""Answers worth a second look (DAT-6): `hard_cases/<split>.jsonl` of an experiment, with small pictures beside it.

One line is one case: what was asked, how the picture was read, what was answered, and why it is kept. The files of the
judged splits are written anew by each judgement; `predict.jsonl` grows with use and keeps its newest cases.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig
from PIL import Image

from pillsnap.atomicfile import atomic_path
from pillsnap.data.images import RgbImage
from pillsnap.data.preprocess import box_square, crop_resize, resize_longer_side
from pillsnap.errors import BrokenImageError, PillError
from pillsnap.inference.hard_case import HardCase, case_of_answer

logger = logging.getLogger("pillsnap")

FOLDER = "hard_cases"
THUMBNAILS = "thumbnails"  # below FOLDER
SUMMARY, REFERENCES = "summary.json", "references.json"  # in FOLDER: counts of a judgement, drug -> its picture
PREDICT = "predict"  # name of the file that `pillsnap predict` fills
THUMBNAIL_PX, CROP_PX = 320, 160
CROP_PADDING = 0.1  # a fraction of the box, at each end
JPEG_QUALITY = 82


@dataclass(frozen=True, kw_only=True, slots=True)
class HardCaseOptions:
    """The `logging.hard_cases` section of the configuration."""

    enabled: bool = True
    confidence: float = 0.30
    """Below this a single pill's answer is a hard case, 0..1."""
    thumbnails: bool = True
    """Keep a small picture and a crop of each case."""
    max_cases: int = 500
    """Cases a file holds."""

    @classmethod
    def from_config(cls, cfg: DictConfig) -> HardCaseOptions:
        """Take them from a resolved configuration."""
        section = cfg.logging.hard_cases
        return cls(**{one.name: section[one.name] for one in fields(cls)})

    @classmethod
    def of_experiment(cls, exp_dir: Path) -> HardCaseOptions:
        """Take them from an experiment's `config.yaml`; keys that are not in it have the specification's values."""
        try:
            found: Any = yaml.safe_load((exp_dir / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):  # no reason to withhold an answer
            return cls()
        for name in ("logging", "hard_cases"):
            found = found.get(name) if isinstance(found, dict) else None
        names = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in (found or {}).items() if name in names})


class HardCases:
    """Writes the cases of one experiment."""

    def __init__(self, exp_dir: Path, options: HardCaseOptions) -> None:
        """Write below `exp_dir/hard_cases`, which is made when something is written."""
        self.folder = exp_dir / FOLDER
        self.options = options

    def path(self, name: str) -> Path:
        """Return the file of a split, or of `PREDICT`."""
        return self.folder / f"{name}.jsonl"

    def replace(self, split: str, cases: Sequence[HardCase], load: Callable[[HardCase], RgbImage]) -> list[HardCase]:
        """Write the cases of a judged split in place of those of the judgement before.

        Args:
            split: Its name, which the file has.
            cases: In any order; the gravest `max_cases` are kept.
            load: Returns the picture of a case; called for one after the other where thumbnails are kept.

        Returns:
            What was kept, the gravest first.

        Raises:
            PillError: The folder cannot be written.
        """
        kept = sorted(cases, key=lambda case: (*case.severity, case.image_path))[: self.options.max_cases]
        with self._locked():
            old = _read(self.path(split))
            kept = [self._pictured(split, case, load) for case in kept]
            self._write(self.path(split), kept, old)
        return kept

    def append(self, name: str, case: HardCase, image: RgbImage) -> None:
        """Add one case; with more than `max_cases` the oldest goes.

        Raises:
            PillError: The folder cannot be written.
        """
        with self._locked():
            old = _read(self.path(name))
            kept = [*old, self._pictured(name, case, lambda _case: image)][-self.options.max_cases :]
            self._write(self.path(name), kept, old)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing; two predictions at a time would lose one's case."""
        try:
            (self.folder / THUMBNAILS).mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise PillError(
                f"hard cases cannot be written to {self.folder}: {error.strerror or error}; wanted a folder for them. "
                "Make it writable, or set logging.hard_cases.enabled=false."
            ) from error

    def _pictured(self, name: str, case: HardCase, load: Callable[[HardCase], RgbImage]) -> HardCase:
        if not self.options.thumbnails:
            return case
        try:
            image = load(case)
        except BrokenImageError as error:
            logger.warning("no thumbnail of a hard case: %s", error)
            return case
        mark = hashlib.blake2b(f"{case.image_path}|{case.box}".encode(errors="surrogateescape"), digest_size=8)
        stem = f"{THUMBNAILS}/{name}-{mark.hexdigest()}"
        save_jpeg(thumbnail_of(image), self.folder / f"{stem}.jpg")
        if case.box is None:
            return replace(case, thumbnail=f"{stem}.jpg")
        save_jpeg(crop_of(image, case.box), self.folder / f"{stem}-crop.jpg")
        return replace(case, thumbnail=f"{stem}.jpg", crop=f"{stem}-crop.jpg")

    def _write(self, path: Path, kept: Sequence[HardCase], old: Sequence[HardCase]) -> None:
        lines = "".join(json.dumps(asdict(case), ensure_ascii=False, allow_nan=False) + "\n" for case in kept)
        with atomic_path(path) as temporary:
            temporary.write_text(lines, encoding="utf-8", errors="surrogateescape")
        used = {name for case in kept for name in (case.thumbnail, case.crop)}
        for name in {name for case in old for name in (case.thumbnail, case.crop) if name} - used:
            (self.folder / str(name)).unlink(missing_ok=True)


def note_answer(
    exp_dir: Path,
    image_path: Path,
    image: RgbImage,
    answer: Mapping[str, Any],
    mode_asked: str,
    options: HardCaseOptions | None = None,
) -> HardCase | None:
    """Keep an answer in `hard_cases/predict.jsonl` of its experiment where it is a hard case.

    A folder that cannot be written is no reason to withhold the answer: the log says so.

    Args:
        exp_dir: The experiment whose models answered.
        image_path: The photograph.
        image: Its pixels, uint8 (H, W, 3) RGB.
        answer: What `Pipeline.predict` returned.
        mode_asked: single, combo or auto.
        options: None takes those of the experiment.

    Returns:
        The case, None where it is none or such cases are not kept.
    """
    options = HardCaseOptions.of_experiment(exp_dir) if options is None else options
    if not options.enabled:
        return None
    case = case_of_answer(answer, str(image_path.resolve()), mode_asked, options.confidence)
    if case is not None:
        try:
            HardCases(exp_dir, options).append(PREDICT, case, image)
        except PillError as error:
            logger.warning("a hard case is not kept: %s", error)
    return case


def read_cases(path: Path) -> tuple[list[HardCase], int]:
    """Read a file of cases.

    Returns:
        The cases in the order of the file, and how many lines are damaged.

    Raises:
        PillError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise PillError(
            f"{path} cannot be read: {error.strerror or error}; wanted a file of hard cases. Check its permissions."
        ) from error
    cases = []
    names = {one.name for one in fields(HardCase)}
    for line in lines:
        try:
            content = json.loads(line)
            cases.append(HardCase(**{name: value for name, value in content.items() if name in names}))
        except (ValueError, TypeError, AttributeError):  # no JSON, a key missing, no object
            continue
    return cases, len(lines) - len(cases)


def thumbnail_of(image: RgbImage) -> RgbImage:
    """Return a small copy of a picture, uint8 (h, w, 3) RGB, at most `THUMBNAIL_PX` on its longer side."""
    return image if max(image.shape[:2]) <= THUMBNAIL_PX else resize_longer_side(image, THUMBNAIL_PX)


def crop_of(image: RgbImage, box_xyxy: Sequence[float]) -> RgbImage:
    """Return the square around a box (pixels of `image`), uint8 (`CROP_PX`, `CROP_PX`, 3) RGB."""
    return crop_resize(image, box_square(np.asarray(box_xyxy, np.float32), CROP_PADDING), CROP_PX)


def save_jpeg(image: RgbImage, path: Path) -> None:
    """Write a picture as JPEG, whole or not at all.

    Raises:
        PillError: It cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG", quality=JPEG_QUALITY)


def _read(path: Path) -> list[HardCase]:
    return read_cases(path)[0] if path.is_file() else []
