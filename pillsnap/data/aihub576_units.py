"""Reader of the drugs and combinations of AI Hub data set 576: one folder's pictures with their labels.

What is done about everything that is wrong with the data is told in `aihub576`, which finds the folders.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pillsnap.data.aihub576_labels import PillLabel, parse_pill_label
from pillsnap.data.box_checks import Box, check_box
from pillsnap.data.records import COMBO, SINGLE, Picture, Problem
from pillsnap.data.scan_units import Tables, Unit, UnitColumns, UnitJob
from pillsnap.data.tree import IMAGE_SUFFIXES, DataTree, FileEntry, empty_image_problem, split_suffix
from pillsnap.errors import BrokenImageError

SOURCE = "aihub576"
LABEL_SUFFIX = ".json"
UNIT_PREFIX = {SINGLE: "1/", COMBO: "2/"}  # singles come first when units are sorted
GRID_NAME = re.compile(r"K-[\d-]+_\d+_(?P<background>\d+)_(?P<side>\d+)_(?P<light>\d+)_\d+_\d+_\d+")
MAX_LABEL_BYTES = 1 << 16  # read in one go; real ones have some 3,000


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
        self._root = f"{tree.root}/"
        self._unread: set[str] = set()

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
        found: dict[str, list[str]] = {}
        for folder in labels:
            self._find_labels(folder, found)
        self._unread = {path for paths in found.values() for path in paths}
        read = self._read_single if place.task == SINGLE else self._read_combo
        for folder in images:
            for image in self.tree.files(folder):
                start = image.path.rfind("/") + 1
                stem, suffix = split_suffix(image.path[start:])
                if suffix in IMAGE_SUFFIXES and self._is_usable(image, stem, stem in found, seen):
                    read(image, stem, place, self._distinct(found.get(stem, []), place.task))
        for stem, paths in found.items():
            if stem not in seen:
                self._problem("missing_image", paths[0], f"labels a picture {stem} that is not there")
        for path in sorted(self._unread):
            self.tree.visits.watch_unread(self.tree.root, path)

    def _find_labels(self, folder: str, found: dict[str, list[str]]) -> None:
        folders, paths = self.tree.names(folder)
        self.tree.visits.watch_all(folder, LABEL_SUFFIX)
        start = len(folder) + 1
        for path in paths:
            stem, suffix = split_suffix(path[start:])
            if suffix == LABEL_SUFFIX:
                found.setdefault(stem, []).append(path)
        for child in folders:
            self._find_labels(child, found)

    def _is_usable(self, image: FileEntry, stem: str, has_label: bool, seen: dict[str, str]) -> bool:
        """Tell whether a file is a picture of the data set that was not met before."""
        if not has_label and not GRID_NAME.fullmatch(stem):
            self._problem("stray_image", image.path, "has neither a label nor a name of the naming grid; left out")
            return False
        if stem in seen:
            self._problem("duplicate_stem", image.path, f"has the same name as {seen[stem]}, which is used; left out")
            return False
        seen[stem] = image.path
        empty = empty_image_problem(image)
        if empty:
            self.problems.append(empty)
            self.tree.visits.watch(*image)
        return empty is None

    def _distinct(self, labels: list[str], task: str) -> list[str]:
        """Return one label for a single picture, and one per pill folder for a combination."""
        if len(labels) < 2:
            return labels
        kept: dict[str, str] = {}
        for label in labels:
            pill_folder = "" if task == SINGLE else label.split("/")[-2]
            first = kept.setdefault(pill_folder, label)
            if first is not label:
                self._problem("duplicate_stem", label, f"labels the same pill as {first}, which is used")
        return list(kept.values())

    def _read_single(self, image: FileEntry, stem: str, place: _Place, labels: list[str]) -> None:
        code = place.key
        label: PillLabel | None = None
        if labels:
            label = self._read_label(labels[0], "the picture is used without its box")
        else:
            self._problem("missing_label", image.path, "has no label; used without a box, its class is the folder's")
        if label and not {label.code, label.folder_code} <= {code, None}:
            named = " and ".join(sorted({found for found in (label.code, label.folder_code) if found}))
            self._problem("code_mismatch", labels[0], f"names {named} for a picture of {code}; left out")
            return
        size_wh = self._size_wh(image, label)
        if size_wh:
            boxes = self._single_boxes(labels[0], label, size_wh) if label else []
            self._keep_name(code, label)
            self._add(image, _single_group(code, stem), place, size_wh, boxes, [code] * len(boxes))

    def _single_boxes(self, path: str, label: PillLabel, size_wh: tuple[int, int]) -> list[Box]:
        """Return the pill's box in a list, or an empty one."""
        if not label.boxes_xyxy:
            self._problem("missing_box", path, "has no box; the picture is used without one")
        if len(label.boxes_xyxy) > 1:
            self._problem("extra_box", path, f"has {len(label.boxes_xyxy)} boxes for one pill; the first is used")
        return self._usable_boxes(path, label.boxes_xyxy[:1], size_wh)

    def _read_combo(self, image: FileEntry, _stem: str, place: _Place, labels: list[str]) -> None:
        if not labels:
            self._problem("missing_label", image.path, "has no label for any of its pills; left out")
            return
        pills = self._combo_pills(place.key, labels)
        size_wh = self._size_wh(image, pills[0][1]) if pills else None
        if not pills or not size_wh:
            return
        codes, boxes = [], []
        unlabelled = Counter(codes_of_key(place.key))
        num_dropped = 0
        for (code, label), file in zip(pills, labels, strict=True):
            usable = self._usable_boxes(file, label.boxes_xyxy, size_wh, " and the picture is left out")
            num_dropped += len(label.boxes_xyxy) - len(usable)
            unlabelled.subtract({code: len(label.boxes_xyxy)})
            boxes += usable
            codes += [code] * len(usable)
            self._keep_name(code, label)
        missing = sorted((+unlabelled).elements())
        if missing:
            detail = f"has no box for {', '.join(missing)}; left out, or the detector would learn to miss pills"
            self._problem("missing_box", image.path, detail)
        elif not num_dropped:
            self._add(image, place.key, place, size_wh, boxes, codes)

    def _combo_pills(self, key: str, labels: list[str]) -> list[tuple[str, PillLabel]] | None:
        """Read the labels of all pills of one picture, with their codes; None where one cannot be used."""
        codes_in_key = codes_of_key(key)
        pills = []
        for file in labels:
            label = self._read_label(file, "the picture is left out, because one of its pills has no box")
            if not label:
                return None
            subfolder = file.split("/")[-2]
            folder_code = subfolder if subfolder in codes_in_key else None
            code = label.code or folder_code
            if code not in codes_in_key or folder_code not in (code, None):
                detail = f"names {label.code} in folder {subfolder} for a picture of {key}; the picture is left out"
                self._problem("code_mismatch", file, detail)
                return None
            pills.append((code, label))
        return pills

    def _read_label(self, path: str, consequence: str) -> PillLabel | None:
        self._unread.discard(path)
        try:
            return parse_pill_label(self._content(path))
        except (OSError, ValueError) as error:
            self.tree.visits.distrust_refused(path, error)
            self._problem("broken_json", path, f"cannot be read ({error}); {consequence}")
            return None

    def _content(self, path: str) -> bytes:
        # A named pipe would be waited for without O_NONBLOCK.
        descriptor = os.open(self._root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            self.tree.visits.watch(path, status.st_size, status.st_mtime_ns)
            content = os.read(descriptor, MAX_LABEL_BYTES)
            if len(content) == MAX_LABEL_BYTES:
                with open(descriptor, "rb", closefd=False) as rest:
                    content += rest.read()
            return content
        finally:
            os.close(descriptor)

    def _usable_boxes(
        self, path: str, boxes: tuple[Box, ...], size_wh: tuple[int, int], consequence: str = ""
    ) -> list[Box]:
        usable = []
        for box in boxes:
            checked = check_box(box, size_wh)
            if checked.kind:
                self._problem(checked.kind, path, checked.detail + ("" if checked.box_xyxy else consequence))
            if checked.box_xyxy:
                usable.append(checked.box_xyxy)
        return usable

    def _size_wh(self, image: FileEntry, label: PillLabel | None) -> tuple[int, int] | None:
        """Return the picture's size from its label (saves opening 2.6 million files), else from its header."""
        if label and label.size_wh:
            return label.size_wh
        from pillsnap.data.images import image_size_wh  # imports decoders: too slow to start for most processes

        self.tree.visits.watch(*image)
        try:
            return image_size_wh(self.tree.root / image.path)
        except BrokenImageError as error:
            self.tree.visits.distrust_refused(image.path, error.__cause__)
            self._problem("broken_image", image.path, f"its header cannot be read ({error.__cause__}); left out")
            return None

    def _keep_name(self, code: str, label: PillLabel | None) -> None:
        if label and label.name:
            self.names.setdefault(code, label.name)

    def _add(
        self, image: FileEntry, group: str, place: _Place, size_wh: tuple[int, int], boxes: list[Box], codes: list[str]
    ) -> None:
        self._pictures.add(
            Picture(
                image_path=image.path,
                task=place.task,
                code=place.key if place.task == SINGLE else None,
                group=group,
                source=SOURCE,
                part=place.part,
                width=size_wh[0],
                height=size_wh[1],
                boxes_xyxy=boxes,
                box_codes=codes,
            )
        )

    def _problem(self, kind: str, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))


def _single_group(code: str, stem: str) -> str:
    """Return `code|background|side|light`: neighbouring angles of one pill look alike and must not be split."""
    grid = GRID_NAME.fullmatch(stem)
    return "|".join([code, *(grid.group("background", "side", "light") if grid else ("other",))])
