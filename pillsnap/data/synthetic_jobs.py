"""Draws one job's pictures and writes them with their labels; what a worker process runs."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pillsnap.allocator import keep_freed_memory
from pillsnap.data.images import RgbImage
from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import Drug
from pillsnap.data.synthetic_labels import pill_label
from pillsnap.data.synthetic_layout import Job, folder_code
from pillsnap.data.synthetic_scene import FULL_PX_PER_MM, PlacedPill, Shot, picture_scale, take_photograph

CENTERING_ERROR = 0.04  # of the frame, how far from its middle a single pill may lie


@dataclass(frozen=True, slots=True)
class Studio:
    """What all jobs of a data set share."""

    root: Path
    size_wh: tuple[int, int]
    seed: int
    drifting_types: bool


def prepare_worker() -> None:
    """Set up a worker process: one thread each, and Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    cv2.setNumThreads(1)


class JobCost(NamedTuple):
    """What one job, or several together, took."""

    num_pictures: int = 0
    num_bytes: int = 0
    """Of the picture files."""
    core_s: float = 0.0
    """Seconds of a core."""

    def plus(self, other: JobCost) -> JobCost:
        """Return both together."""
        return JobCost(
            self.num_pictures + other.num_pictures, self.num_bytes + other.num_bytes, self.core_s + other.core_s
        )


def draw_job(studio: Studio, job: Job) -> JobCost:
    """Write the pictures and labels of `job`.

    Returns:
        What it took.

    Raises:
        OSError: A file cannot be written.
    """
    start, num_bytes = time.process_time(), 0
    (studio.root / job.image_dir).mkdir(parents=True, exist_ok=True)
    for shot in job.shots:
        stem = job.stem(shot)
        rng = sample_generator(studio.seed, stem)
        pills = _lay_out(studio, job, shot, rng)
        photograph = take_photograph(pills, shot, studio.size_wh, rng)
        num_bytes += (studio.root / job.image_path(shot)).write_bytes(encode_png(photograph.image))
        for number, drug in enumerate(job.drugs):
            label = pill_label(
                drug,
                shot,
                stem=stem,
                size_wh=studio.size_wh,
                box_xywh=photograph.box_xywh(number),
                is_combo=job.is_combo,
                drift=rng if studio.drifting_types else None,
            )
            write_label(studio.root / job.label_path(shot, drug), label)
    return JobCost(len(job.shots), num_bytes, time.process_time() - start)


def encode_png(image: RgbImage) -> bytes:
    """Return the bytes of a PNG file of an RGB picture, lightly compressed (noise does not get much smaller)."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def write_label(path: Path, label: dict[str, Any]) -> None:
    """Write one label file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(label, ensure_ascii=False), encoding="utf-8")


def _lay_out(studio: Studio, job: Job, shot: Shot, rng: np.random.Generator) -> list[PlacedPill]:
    if job.is_combo:
        # The pills stay where they are while the camera moves: the three pictures share one layout.
        return _lay_two_by_two(
            job.drugs, studio.size_wh, sample_generator(studio.seed, folder_code(job.drugs), "layout")
        )
    width, height = studio.size_wh
    off_x, off_y = rng.uniform(-CENTERING_ERROR, CENTERING_ERROR, 2)
    place = (width * (0.5 + float(off_x)), height * (0.5 + float(off_y)))
    return [PlacedPill(job.drugs[0], place, float(shot.longitude + rng.uniform(-2, 2)))]


def _lay_two_by_two(drugs: tuple[Drug, ...], size_wh: tuple[int, int], rng: np.random.Generator) -> list[PlacedPill]:
    """Give each pill a quarter of the tray of its own, as far off its middle as it can lie without leaving it."""
    half_w, half_h = size_wh[0] / 4, size_wh[1] / 4
    pills = []
    for drug, quarter in zip(drugs, rng.permutation(4), strict=False):
        # 1.35: corners of a square reach past its half side, and the tilted camera sees the pill's side as well.
        reach = 1.35 * drug.long_mm / 2 * FULL_PX_PER_MM * picture_scale(size_wh)
        column, row = int(quarter) % 2, int(quarter) // 2
        x = (2 * column + 1) * half_w + rng.uniform(-1, 1) * max(half_w - reach, 0)
        y = (2 * row + 1) * half_h + rng.uniform(-1, 1) * max(half_h - reach, 0)
        pills.append(PlacedPill(drug, (float(x), float(y)), float(rng.uniform(0, 360))))
    return pills
