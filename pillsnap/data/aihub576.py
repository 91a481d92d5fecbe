"""Reader of AI Hub data set 576 (oral medicine images) as it lies on disks, blemishes included.

    <root>[/data]/{train,val}/images/single/TS_1_single/K-000059/K-000059_0_2_0_1_75_320_200.png
    <root>[/data]/{train,val}/labels/single/TL_1_single/K-000059_json/<same stem>.json
    <root>[/data]/{train,val}/images/combination/TS_1_combo/K-000059-000250-001900/*.png
    <root>[/data]/{train,val}/labels/combination/TL_1_combo/K-000059-000250-001900_json/K-000059/*.json

Decisions on what is wrong with the data:

- The class of a single picture is its folder. A label that names another drug makes the picture unusable; one that is
  missing or broken only costs its box.
- A combination picture is used only when every pill in its name has a usable box. One unlabelled pill in the picture
  would teach the detector that a pill is background; the others are not worth that. Such pictures are left out
  (`missing_box`, `missing_label`, `broken_json`, or the problem of the box), from validation as well.
- Pictures are not decoded here: a truncated file is found by `pillsnap data check` or when it is trained on.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pillsnap.data.aihub576_labels import PillLabel, read_pill_label
from pillsnap.data.box_checks import Box, check_box
from pillsnap.data.images import image_size_wh
from pillsnap.data.records import COMBO, SINGLE, Picture, Problem, Records, Scan
from pillsnap.data.tree import DataTree, FileEntry, empty_image_problem, no_pictures_error, require_folder
from pillsnap.errors import BrokenImageError

logger = logging.getLogger("pillsnap")

SOURCE = "aihub576"
LAYOUT = """  AI Hub 576 (data.reader=aihub576), with or without a data/ level below ROOT:
    ROOT/{train,val}/images/single/*/K-000059/*.png
    ROOT/{train,val}/labels/single/*/K-000059_json/*.json
    ROOT/{train,val}/images/combination/*/K-000059-001900/*.png
    ROOT/{train,val}/labels/combination/*/K-000059-001900_json/K-000059/*.json"""

PARTS = ("train", "val")
FOLDER_OF_TASK = {SINGLE: "single", COMBO: "combination"}
KEY_FOLDER = {SINGLE: re.compile(r"(K-\d+)(_json)?"), COMBO: re.compile(r"(K-\d+(?:-\d+)+)(_json)?")}
GRID_NAME = re.compile(r"K-[\d-]+_\d+_(?P<background>\d+)_(?P<side>\d+)_(?P<light>\d+)_\d+_\d+_\d+")
PROGRESS_EVERY = 50_000


@dataclass(frozen=True, slots=True)
class _Place:
    """The drug or combination (`key`), task and part that pictures belong to."""

    key: str
    task: str
    part: str


@dataclass(slots=True)
class _KeyFolders:
    """Where the pictures and the labels of one place lie."""

    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def read_aihub576(root: Path) -> Scan:
    """Read all pictures and labels below `root`.

    Args:
        root: The folder that holds `train/` and `val/`, or the one above it with a `data/` level between.

    Returns:
        The pictures (singles with at most one box, combinations with a box per pill), the problems, and the drug
        names by K-code. Paths are relative to `root`.

    Raises:
        DataError: The folder is missing or unreadable, or holds no usable picture.
    """
    require_folder(root, LAYOUT)
    reader = _Reader(DataTree(root))
    level = level_of(root)
    if level is not None:
        for task in (SINGLE, COMBO):
            reader.read_task(level, task)
    problems = sorted([*reader.problems, *reader.tree.problems], key=lambda problem: (problem.path, problem.kind))
    if not reader.pictures:
        raise no_pictures_error(root, LAYOUT, problems)
    return Scan(Records.from_pictures(reader.pictures), problems, dict(sorted(reader.names.items())))


def codes_of_key(key: str) -> list[str]:
    """Return the K-codes in the name of a combination: `K-000059-001900` holds K-000059 and K-001900."""
    return [f"K-{number}" for number in key.removeprefix("K-").split("-")]


def level_of(root: Path) -> str | None:
    """Return the prefix below `root` ("" or "data/") at which train and val lie, None where neither does."""
    for level in ("", "data/"):
        for part in PARTS:
            if any((root / f"{level}{part}/images/{kind}").is_dir() for kind in FOLDER_OF_TASK.values()):
                return level
    return None


def folders_read(root: Path) -> list[str]:
    """Return the folders below `root` that the reader looks into."""
    level = level_of(root) or ""
    folders = [f"{level}{part}/{side}" for part in PARTS for side in ("images", "labels")]
    return [folder for folder in folders if (root / folder).is_dir()]


class _Reader:
    """Collects pictures, problems and names while walking one data set."""

    def __init__(self, tree: DataTree) -> None:
        self.tree = tree
        self.pictures: list[Picture] = []
        self.problems: list[Problem] = []
        self.names: dict[str, str] = {}

    def read_task(self, level: str, task: str) -> None:
        """Read the pictures of one task in both parts, one drug or combination after the other."""
        found: dict[str, dict[str, _KeyFolders]] = {}
        for part in PARTS:
            for side in ("images", "labels"):
                folder = f"{level}{part}/{side}/{FOLDER_OF_TASK[task]}"
                if not self.tree.has_folder(folder):
                    continue
                for key, key_folder in self._key_folders(folder, task):
                    folders = found.setdefault(key, {}).setdefault(part, _KeyFolders())
                    (folders.images if side == "images" else folders.labels).append(key_folder)
        for key in sorted(found):
            # One key at a time: two pictures of the same name share their key, and only its files are in memory.
            seen: dict[str, str] = {}
            for part, folders in found[key].items():
                self._read_folders(_Place(key, task, part), folders, seen)

    def _key_folders(self, folder: str, task: str) -> Iterator[tuple[str, str]]:
        """Yield (key, folder) for the folders named after a drug or combination, however deep they lie."""
        folders, files = self.tree.children(folder)
        for file in files:
            if file.is_image or file.suffix == ".json":
                kind = "stray_image" if file.is_image else "stray_label"
                self._problem(kind, file.path, "does not lie in a folder named after a K-code; left out")
        for child in folders:
            match = KEY_FOLDER[task].fullmatch(child.rpartition("/")[2])
            if match:
                yield match.group(1), child
            else:
                yield from self._key_folders(child, task)

    def _read_folders(self, place: _Place, folders: _KeyFolders, seen: dict[str, str]) -> None:
        """Read one place; `seen` maps the names of pictures that were met to their paths."""
        labels: dict[str, list[FileEntry]] = {}
        for folder in folders.labels:
            for file in self.tree.files(folder):
                if file.suffix == ".json":
                    labels.setdefault(file.stem, []).append(file)
        for folder in folders.images:
            for image in self.tree.files(folder):
                if image.is_image and self._is_usable(image, image.stem in labels, seen):
                    own_labels = self._distinct(labels.get(image.stem, []), place.task)
                    read = self._read_single if place.task == SINGLE else self._read_combo
                    read(image, place, own_labels)
        for stem, files in labels.items():
            if stem not in seen:
                self._problem("missing_image", files[0].path, f"labels a picture {stem} that is not there")

    def _is_usable(self, image: FileEntry, has_label: bool, seen: dict[str, str]) -> bool:
        """Tell whether a file is a picture of the data set that was not met before."""
        stem = image.stem
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
        return empty is None

    def _distinct(self, labels: list[FileEntry], task: str) -> list[FileEntry]:
        """Return one label for a single picture, and one per pill folder for a combination."""
        kept: dict[str, FileEntry] = {}
        for label in labels:
            pill_folder = label.path.split("/")[-2] if task == COMBO else ""
            first = kept.setdefault(pill_folder, label)
            if first is not label:
                self._problem("duplicate_stem", label.path, f"labels the same pill as {first.path}, which is used")
        return list(kept.values())

    def _read_single(self, image: FileEntry, place: _Place, labels: list[FileEntry]) -> None:
        code = place.key
        label: PillLabel | None = None
        if labels:
            label = self._read_label(labels[0], "the picture is used without its box")
        else:
            self._problem("missing_label", image.path, "has no label; used without a box, its class is the folder's")
        if label and not {label.code, label.folder_code} <= {code, None}:
            named = " and ".join(sorted({found for found in (label.code, label.folder_code) if found}))
            self._problem("code_mismatch", labels[0].path, f"names {named} for a picture of {code}; left out")
            return
        size_wh = self._size_wh(image, label)
        if size_wh:
            boxes = self._single_boxes(labels[0].path, label, size_wh) if label else []
            self._keep_name(code, label)
            self._add(image, place, size_wh, boxes, [code] * len(boxes))

    def _single_boxes(self, path: str, label: PillLabel, size_wh: tuple[int, int]) -> list[Box]:
        """Return the pill's box in a list, or an empty one."""
        if not label.boxes_xyxy:
            self._problem("missing_box", path, "has no box; the picture is used without one")
        if len(label.boxes_xyxy) > 1:
            self._problem("extra_box", path, f"has {len(label.boxes_xyxy)} boxes for one pill; the first is used")
        return self._usable_boxes(path, label.boxes_xyxy[:1], size_wh)

    def _read_combo(self, image: FileEntry, place: _Place, labels: list[FileEntry]) -> None:
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
            usable = self._usable_boxes(file.path, label.boxes_xyxy, size_wh, " and the picture is left out")
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
            self._add(image, place, size_wh, boxes, codes)

    def _combo_pills(self, key: str, labels: list[FileEntry]) -> list[tuple[str, PillLabel]] | None:
        """Read the labels of all pills of one picture, with their codes; None where one cannot be used."""
        codes_in_key = codes_of_key(key)
        pills = []
        for file in labels:
            label = self._read_label(file, "the picture is left out, because one of its pills has no box")
            if not label:
                return None
            subfolder = file.path.split("/")[-2]
            folder_code = subfolder if subfolder in codes_in_key else None
            code = label.code or folder_code
            if code not in codes_in_key or folder_code not in (code, None):
                detail = f"names {label.code} in folder {subfolder} for a picture of {key}; the picture is left out"
                self._problem("code_mismatch", file.path, detail)
                return None
            pills.append((code, label))
        return pills

    def _read_label(self, file: FileEntry, consequence: str) -> PillLabel | None:
        try:
            return read_pill_label(self.tree.root / file.path)
        except (OSError, ValueError) as error:
            self._problem("broken_json", file.path, f"cannot be read ({error}); {consequence}")
            return None

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
        try:
            return image_size_wh(self.tree.root / image.path)
        except BrokenImageError as error:
            self._problem("broken_image", image.path, f"its header cannot be read ({error.__cause__}); left out")
            return None

    def _keep_name(self, code: str, label: PillLabel | None) -> None:
        if label and label.name:
            self.names.setdefault(code, label.name)

    def _add(
        self, image: FileEntry, place: _Place, size_wh: tuple[int, int], boxes: list[Box], codes: list[str]
    ) -> None:
        is_single = place.task == SINGLE
        self.pictures.append(
            Picture(
                image_path=image.path,
                task=place.task,
                code=place.key if is_single else None,
                group=_single_group(place.key, image.stem) if is_single else place.key,
                source=SOURCE,
                part=place.part,
                width=size_wh[0],
                height=size_wh[1],
                boxes_xyxy=boxes,
                box_codes=codes,
            )
        )
        if len(self.pictures) % PROGRESS_EVERY == 0:
            logger.info("read the labels of %d pictures so far", len(self.pictures))

    def _problem(self, kind: str, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))


def _single_group(code: str, stem: str) -> str:
    """Return `code|background|side|light`: neighbouring angles of one pill look alike and must not be split."""
    grid = GRID_NAME.fullmatch(stem)
    return "|".join([code, *(grid.group("background", "side", "light") if grid else ("other",))])
