"""Damages a freshly drawn data set the way the real one is damaged, and says exactly what it did.

Kinds and the path each fault is listed under:

    truncated_image  the picture: the file ends early
    empty_image      the picture: no byte at all, or fewer than 100
    stray_image      the picture: an `*index.png` in a combination folder that no label belongs to
    hidden_file      a `._*` file beside a picture or a label
    missing_label    the picture that has no label file
    missing_image    the label whose picture is gone
    missing_box      the combination picture that lacks the label of one of its pills
    box_outside      the label whose box reaches thousands of pixels out of the frame
    broken_json      the label: cut off in the middle, or not UTF-8

Drifting types are not in the list: they are no fault to report; `synthetic_labels` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_jobs import write_label
from pillsnap.data.synthetic_layout import Job, folder_code

MIN_SINGLES, MIN_COMBOS = 40, 3  # every kind needs pictures of its own
FAULT_SHARE = 0.002
"""Of the pictures, for each line of the tables below, rounded down; at least one. Five lines for singles are damage
(see `damage.py`), so of 500 singles or more no more than 1 % are damaged, which is what a run puts up with."""
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
APPLE_DOUBLE_START = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "

Faults = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A drawn picture and its label files, one a pill."""

    image: Path
    labels: tuple[Path, ...]


def plant_blemishes(root: Path, jobs: Sequence[Job], seed: int) -> Faults:
    """Damage some pictures and labels below `root`; no picture is hit twice.

    Args:
        root: The data set's folder.
        jobs: What was drawn; at least `MIN_SINGLES` singles and `MIN_COMBOS` combination pictures.
        seed: Which ones are hit.

    Returns:
        Kind of fault -> posix paths relative to `root`, sorted.
    """
    rng = sample_generator(seed, "blemishes")
    faults: dict[str, list[Path]] = {}
    singles, combos = _shuffled(root, jobs, False, rng), _shuffled(root, jobs, True, rng)
    num_singles = max(1, int(FAULT_SHARE * sum(len(job.shots) for job in jobs if not job.is_combo)))
    num_combos = max(1, int(FAULT_SHARE * sum(len(job.shots) for job in jobs if job.is_combo)))
    for kind, damage in SINGLE_DAMAGE:
        for _ in range(num_singles):
            faults.setdefault(kind, []).append(damage(next(singles)))
    for kind, damage in COMBO_DAMAGE:
        for _ in range(num_combos):
            faults.setdefault(kind, []).append(damage(next(combos)))
    faults["stray_image"] = [_add_stray_picture(root, job) for job in jobs if job.is_combo]
    return {kind: sorted(path.relative_to(root).as_posix() for path in paths) for kind, paths in faults.items()}


def _shuffled(root: Path, jobs: Sequence[Job], combos: bool, rng: np.random.Generator) -> Iterator[_Picture]:
    chosen = [(job, shot) for job in jobs if job.is_combo == combos for shot in job.shots]
    for index in rng.permutation(len(chosen)):
        job, shot = chosen[index]
        labels = tuple(root / job.label_path(shot, drug) for drug in job.drugs)
        yield _Picture(root / job.image_path(shot), labels)


def _truncate(picture: _Picture) -> Path:
    content = picture.image.read_bytes()
    picture.image.write_bytes(content[: len(content) // 2])
    return picture.image


def _empty(picture: _Picture) -> Path:
    picture.image.write_bytes(b"")
    return picture.image


def _leave_header(picture: _Picture) -> Path:
    picture.image.write_bytes(PNG_START)
    return picture.image


def _hide_image(picture: _Picture) -> Path:
    return _add_hidden_file(picture.image)


def _hide_label(picture: _Picture) -> Path:
    return _add_hidden_file(picture.labels[0])


def _add_hidden_file(beside: Path) -> Path:
    hidden = beside.with_name(f"._{beside.name}")
    hidden.write_bytes(APPLE_DOUBLE_START)
    return hidden


def _remove_labels(picture: _Picture) -> Path:
    for label in picture.labels:
        label.unlink()
    return picture.image


def _remove_image(picture: _Picture) -> Path:
    picture.image.unlink()
    return picture.labels[0]


def _remove_one_label(picture: _Picture) -> Path:
    picture.labels[-1].unlink()
    return picture.image


def _push_box_outside(picture: _Picture) -> Path:
    path = picture.labels[0]
    label = json.loads(path.read_text(encoding="utf-8"))
    label["annotations"][0]["bbox"][2] += 5000
    write_label(path, label)
    return path


def _cut_label(picture: _Picture) -> Path:
    path = picture.labels[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _encode_label_as_cp949(picture: _Picture) -> Path:
    path = picture.labels[0]
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp949"))
    return path


def _add_stray_picture(root: Path, job: Job) -> Path:
    stray = root / job.image_dir / f"{folder_code(job.drugs)}_index.png"
    stray.write_bytes((root / job.image_path(job.shots[-1])).read_bytes())
    return stray


SINGLE_DAMAGE: tuple[tuple[str, Callable[[_Picture], Path]], ...] = (
    ("truncated_image", _truncate),
    ("empty_image", _empty),
    ("empty_image", _leave_header),
    ("missing_label", _remove_labels),
    ("missing_image", _remove_image),
    ("box_outside", _push_box_outside),
    ("broken_json", _cut_label),
    ("broken_json", _encode_label_as_cp949),
    ("hidden_file", _hide_image),
    ("hidden_file", _hide_label),
)
COMBO_DAMAGE: tuple[tuple[str, Callable[[_Picture], Path]], ...] = (
    ("missing_box", _remove_one_label),
    ("missing_label", _remove_labels),
    ("box_outside", _push_box_outside),
)
