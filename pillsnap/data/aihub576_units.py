"""Reader of the drugs and combinations of AI Hub data set 576: one folder's pictures with their labels.

What is done about everything that is wrong with the data is told in `aihub576`, which finds the folders.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pillsnap.data.aihub576_labels import PillLabel, parse_pill_label
from pillsnap.data.box_checks import Box, check_box
from pillsnap.data.records import COMBO, SINGLE, Picture, Problem
from pillsnap.data.scan_units import Tables, Unit, UnitColumns, UnitJob
from pillsnap.data.tree import IMAGE_SUFFIXES, MIN_IMAGE_BYTES, DataTree, FileEntry, empty_image_problem, split_suffix
from pillsnap.errors import BrokenImageError

SOURCE = "aihub576"
LABEL_SUFFIX = ".json"
UNIT_PREFIX = {SINGLE: "1/", COMBO: "2/"}  # singles come first when units are sorted
KEY = re.compile(r"K-[\d-]+")
GRID = re.compile(r"\d+_(?P<background>\d+)_(?P<side>\d+)_(?P<light>\d+)_\d+_\d+_\d+")  # after the key and a "_"

LabelFile = tuple[str, bytes | OSError]
"""Path of a label, and what is in it or why it cannot be read."""


class _Place(NamedTuple):
    """The drug or combination (`key`), task and part that pictures belong to."""

    key: str
    task: str
    part: str


def read_units(job: UnitJob) -> Tables:
    """Read all pictures and labels of some drugs and combinations; runs in any process.

    Raises:
        DataError: A folder cannot be read.
    """
    columns = UnitColumns()
    for unit in job.units:
        reader = _UnitReader(DataTree(Path(job.root)), columns)
        reader.read(unit)
        columns.close_unit(unit.key, [*reader.problems, *reader.tree.problems], reader.names, reader.tree.visits)
    return columns.tables()


def codes_of_key(key: str) -> list[str]:
    """Return the K-codes in the name of a combination: `K-000059-001900` holds K-000059 and K-001900."""
    return [f"K-{number}" for number in key.removeprefix("K-").split("-")]


class _UnitReader:
    """Collects pictures, problems and names while reading one unit."""

    def __init__(self, tree: DataTree, columns: UnitColumns) -> None:
        self.tree = tree
        self.problems: list[Problem] = []
        self.names: dict[str, str] = {}
        self._pictures = columns.pictures

    def read(self, unit: Unit) -> None:
        """Read a unit, one part after the other; two pictures of the same name are in one unit."""
        prefix, key = unit.key[:2], unit.key[2:]
        task = next(task for task, found in UNIT_PREFIX.items() if found == prefix)
        seen: dict[str, str] = {}
        for part in dict.fromkeys(folder.part for folder in unit.folders):
            here = [folder for folder in unit.folders if folder.part == part]
            images = [folder.path for folder in here if folder.side == "images"]
            labels = [folder.path for folder in here if folder.side == "labels"]
            self._read_place(_Place(key, task, part), images, labels, seen)

    def _read_place(self, place: _Place, images: list[str], labels: list[str], seen: dict[str, str]) -> None:
        """Read one place; `seen` maps the names of pictures that were met to their paths."""
        found: dict[str, list[LabelFile]] = {}
        for folder in labels:
            self._find_labels(folder, found)
        read = self._read_single if place.task == SINGLE else self._read_combo
        for folder in images:
            for image in self.tree.files(folder):
                stem, suffix = split_suffix(image.path[image.path.rfind("/") + 1 :])
                if suffix in IMAGE_SUFFIXES and self._is_usable(image, stem, stem in found, seen):
                    own_labels = found.get(stem, [])
                    read(image, stem, place, own_labels if len(own_labels) < 2 else self._distinct(own_labels, place))
        for stem, files in found.items():
            if stem not in seen:
                self._problem("missing_image", files[0][0], f"labels a picture {stem} that is not there")

    def _find_labels(self, folder: str, found: dict[str, list[LabelFile]]) -> None:
        folders, files = self.tree.contents(folder, LABEL_SUFFIX)
        start, end = len(folder) + 1, -len(LABEL_SUFFIX)
        for file in files:
            found.setdefault(file[0][start:end], []).append(file)
        for child in folders:
            self._find_labels(child, found)

    def _is_usable(self, image: FileEntry, stem: str, has_label: bool, seen: dict[str, str]) -> bool:
        """Tell whether a file is a picture of the data set that was not met before."""
        if not has_label and _cell_of(stem) is None:
            self._problem("stray_image", image.path, "has neither a label nor a name of the naming grid; left out")
            return False
        if stem in seen:
            self._problem("duplicate_stem", image.path, f"has the same name as {seen[stem]}, which is used; left out")
            return False
        seen[stem] = image.path
        if image.size >= MIN_IMAGE_BYTES:
            return True
        self.problems.append(empty_image_problem(image))
        self.tree.visits.watch(*image)
        return False

    def _distinct(self, labels: list[LabelFile], place: _Place) -> list[LabelFile]:
        """Return one label for a single picture, and one per pill folder for a combination."""
        kept: dict[str, LabelFile] = {}
        for label in labels:
            pill_folder = "" if place.task == SINGLE else label[0].split("/")[-2]
            first = kept.setdefault(pill_folder, label)
            if first is not label:
                self._problem("duplicate_stem", label[0], f"labels the same pill as {first[0]}, which is used")
        return list(kept.values())

    def _read_single(self, image: FileEntry, stem: str, place: _Place, labels: list[LabelFile]) -> None:
        code = place.key
        label: PillLabel | None = None
        if labels:
            label = self._read_label(labels[0], "the picture is used without its box")
        else:
            self._problem("missing_label", image.path, "has no label; used without a box, its class is the folder's")
        if label and not (label.code in (code, None) and label.folder_code in (code, None)):
            named = " and ".join(sorted({found for found in (label.code, label.folder_code) if found}))
            self._problem("code_mismatch", labels[0][0], f"names {named} for a picture of {code}; left out")
            return
        size_wh = label.size_wh if label and label.size_wh else self._size_in_header(image)
        if size_wh:
            boxes = self._single_boxes(labels[0][0], label, size_wh) if label else []
            if label and label.name:
                self.names.setdefault(code, label.name)
            # Neighbouring angles of one pill look alike and must not be split.
            group = f"{code}|{_cell_of(stem) or 'other'}"
            self._pictures.append(
                Picture(image.path, SINGLE, code, group, SOURCE, place.part, *size_wh, boxes, [code] * len(boxes))
            )

    def _single_boxes(self, path: str, label: PillLabel, size_wh: tuple[int, int]) -> list[Box]:
        """Return the pill's box in a list, or an empty one."""
        boxes = label.boxes_xyxy
        if not boxes:
            self._problem("missing_box", path, "has no box; the picture is used without one")
            return []
        if len(boxes) > 1:
            self._problem("extra_box", path, f"has {len(boxes)} boxes for one pill; the first is used")
        checked, kind, detail = check_box(boxes[0], size_wh)
        if kind:
            self._problem(kind, path, detail)
        return [checked] if checked else []

    def _read_combo(self, image: FileEntry, _stem: str, place: _Place, labels: list[LabelFile]) -> None:
        if not labels:
            self._problem("missing_label", image.path, "has no label for any of its pills; left out")
            return
        pills = self._combo_pills(place.key, labels)
        if not pills:
            return
        size_wh = pills[0][1].size_wh or self._size_in_header(image)
        if not size_wh:
            return
        codes, boxes = [], []
        unlabelled = Counter(codes_of_key(place.key))
        num_dropped = 0
        for (code, label), file in zip(pills, labels, strict=True):
            usable = self._usable_boxes(file[0], label.boxes_xyxy, size_wh)
            num_dropped += len(label.boxes_xyxy) - len(usable)
            unlabelled.subtract({code: len(label.boxes_xyxy)})
            boxes += usable
            codes += [code] * len(usable)
            if label.name:
                self.names.setdefault(code, label.name)
        missing = sorted((+unlabelled).elements())
        if missing:
            detail = f"has no box for {', '.join(missing)}; left out, or the detector would learn to miss pills"
            self._problem("missing_box", image.path, detail)
        elif not num_dropped:
            self._pictures.append(
                Picture(image.path, COMBO, None, place.key, SOURCE, place.part, *size_wh, boxes, codes)
            )

    def _combo_pills(self, key: str, labels: list[LabelFile]) -> list[tuple[str, PillLabel]] | None:
        """Read the labels of all pills of one picture, with their codes; None where one cannot be used."""
        codes_in_key = codes_of_key(key)
        pills = []
        for file in labels:
            label = self._read_label(file, "the picture is left out, because one of its pills has no box")
            if not label:
                return None
            subfolder = file[0].split("/")[-2]
            folder_code = subfolder if subfolder in codes_in_key else None
            code = label.code or folder_code
            if code not in codes_in_key or folder_code not in (code, None):
                detail = f"names {label.code} in folder {subfolder} for a picture of {key}; the picture is left out"
                self._problem("code_mismatch", file[0], detail)
                return None
            pills.append((code, label))
        return pills

    def _read_label(self, file: LabelFile, consequence: str) -> PillLabel | None:
        path, content = file
        try:
            if isinstance(content, OSError):
                raise content
            return parse_pill_label(content)
        except (OSError, ValueError) as error:
            self._problem("broken_json", path, f"cannot be read ({error}); {consequence}")
            return None

    def _usable_boxes(self, path: str, boxes: tuple[Box, ...], size_wh: tuple[int, int]) -> list[Box]:
        usable = []
        for box in boxes:
            checked, kind, detail = check_box(box, size_wh)
            if kind:
                self._problem(kind, path, detail + ("" if checked else " and the picture is left out"))
            if checked:
                usable.append(checked)
        return usable

    def _size_in_header(self, image: FileEntry) -> tuple[int, int] | None:
        """Return the picture's size from its header; a label that tells it saves opening 2.6 million files."""
        from pillsnap.data.images import image_size_wh  # imports decoders: too slow to start for most processes

        self.tree.visits.watch(*image)
        try:
            return image_size_wh(self.tree.root / image.path)
        except BrokenImageError as error:
            self.tree.visits.distrust_refused(image.path, error.__cause__)
            self._problem("broken_image", image.path, f"its header cannot be read ({error.__cause__}); left out")
            return None

    def _problem(self, kind: str, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))


def _cell_of(stem: str) -> str | None:
    """Return `background|side|light` of a file name of the naming grid, None for any other."""
    key, _, rest = stem.partition("_")
    return _cell(rest) if _is_key(key) else None


@lru_cache(maxsize=8192)  # 1,296 names after the key, the same for every drug
def _cell(rest: str) -> str | None:
    grid = GRID.fullmatch(rest)
    return "|".join(grid.group("background", "side", "light")) if grid else None


@lru_cache(maxsize=64)
def _is_key(key: str) -> bool:
    return KEY.fullmatch(key) is not None
