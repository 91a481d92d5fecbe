"""Reader of data sets in YOLO format, as Roboflow and CVAT export them and ultralytics trains on them.

    ROOT/images/{train,val,test}/**/*.jpg   + ROOT/labels/{train,val,test}/**/*.txt   (or without the part level)
    ROOT/{train,valid,test}/images/*.jpg    + ROOT/{train,valid,test}/labels/*.txt    (Roboflow)
    ROOT/data.yaml with `names`, or ROOT/classes.txt; without either the class numbers are the class keys

The paths written in data.yaml are not followed: exports carry those of the machine they were made on.

Decisions on what is wrong with the data:

- A picture with a line that cannot be read, of a class that has no name, or with a box outside the picture is left out:
  it holds a pill whose place or name is not known, and would teach the detector that a pill is background.
- A box without area or narrower than two pixels is a slip of the mouse and is dropped; a picture is left out when no
  other box remains, because it is not a picture of nothing.
- An empty label file says that the picture shows no pill; a missing one says nothing, so the picture is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pillsnap.boxes import cxcywh_norm_to_xyxy
from pillsnap.data.box_checks import Box, check_box
from pillsnap.data.images import image_size_wh
from pillsnap.data.records import COMBO, SINGLE, Picture, Problem, Scan
from pillsnap.data.scan import Found, Reader, only_unit, read_all
from pillsnap.data.scan_units import Tables, Unit, UnitColumns, UnitFolder, UnitJob
from pillsnap.data.tree import MIN_IMAGE_BYTES, DataTree, FileEntry, empty_image_problem, source_photo
from pillsnap.data.yolo_labels import NAMES_FILES, ClassNames, parse_label_line, read_class_names
from pillsnap.errors import BrokenImageError

SOURCE = "yolo"
LAYOUT = """  YOLO format (data.reader=yolo), with names in ROOT/data.yaml or ROOT/classes.txt:
    ROOT/images/{train,val,test}/*.jpg and ROOT/labels/{train,val,test}/*.txt   (the part level may be absent)
    ROOT/{train,valid,test}/images/*.jpg and ROOT/{train,valid,test}/labels/*.txt"""

PART_OF_FOLDER = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SLIP_KINDS = frozenset({"zero_size_box", "tiny_box"})  # slips of the mouse: there is no pill without a box


def read_yolo(root: Path) -> Scan:
    """Read all pictures and labels below `root`.

    Args:
        root: The folder that holds `images/` and `labels/`, or the part folders that do.

    Returns:
        The pictures (one box: a single of its class; any other number: a combo) and the problems. Class keys are the
        class names. Paths are relative to `root`.

    Raises:
        DataError: The folder is missing or unreadable, its `data.yaml` is not usable, or no picture is.
    """
    return read_all(root, READER)


def read_units(job: UnitJob) -> Tables:
    """Read the data set, which is one unit.

    Raises:
        DataError: A folder cannot be read, or `data.yaml` is not usable.
    """
    columns, root = UnitColumns(), Path(job.root)
    for unit in job.units:
        tree = DataTree(root)
        tree.visits.watch_names(root, "", NAMES_FILES)
        reader = _Reader(tree, read_class_names(root), columns.pictures)
        for images, labels in image_label_folders(root):
            reader.read_pair(images, labels)
        columns.close_unit(unit.key, [*reader.problems, *tree.problems], {}, tree.visits)
    return columns.tables()


def image_label_folders(root: Path) -> list[tuple[str, str]]:
    """Return the pairs of picture and label folders below `root`, relative to it; the label folder may not exist."""
    prefixes = ["", *(f"{part}/" for part in PART_OF_FOLDER)]
    return [(f"{prefix}images", f"{prefix}labels") for prefix in prefixes if (root / f"{prefix}images").is_dir()]


def has_names_file(root: Path) -> bool:
    """Tell whether a file with class names lies in `root`."""
    return any((root / name).is_file() for name in NAMES_FILES)


def folders_read(root: Path) -> list[str]:
    """Return the folders and files below `root` that the reader looks into."""
    folders = [folder for pair in image_label_folders(root) for folder in pair]
    return [path for path in (*folders, *NAMES_FILES) if (root / path).exists()]


def discover(root: Path) -> Found:
    """Return the data set as one unit."""
    folders = [
        UnitFolder("", side, path)
        for pair in image_label_folders(root)
        for side, path in zip(("images", "labels"), pair, strict=True)
        if (root / path).is_dir()
    ]
    return Found([Unit("", tuple(folders))], [])


READER = Reader(SOURCE, LAYOUT, discover, read_units, folders_read, only_unit)


class _UnknownClassError(ValueError):
    """A class number beyond the names that are given."""


class _Reader:
    """Collects pictures and problems while walking one data set."""

    def __init__(self, tree: DataTree, class_names: ClassNames | None, pictures: list[Picture]) -> None:
        self.tree = tree
        self.names = class_names.names if class_names else None
        self.pictures = pictures
        self.problems: list[Problem] = []
        if class_names and class_names.fault:
            self._problem("broken_names", class_names.file_name, class_names.fault)

    def read_pair(self, images: str, labels: str) -> None:
        """Read a folder of pictures with its folder of labels, which has the same folders below it."""
        label_files = self._label_files(labels)
        seen: dict[str, str] = {}
        for image in self.tree.files(images):
            if not image.is_image:
                continue
            self.tree.visits.watch(*image)  # its header is read
            key = image.bare_path.removeprefix(f"{images}/")
            if key in seen:
                detail = f"has the same name as {seen[key]}, and so the same label; left out"
                self._problem("duplicate_stem", image.path, detail)
                continue
            seen[key] = image.path
            self._read_picture(image, key, images, label_files.get(key))
        for key, label in label_files.items():
            if key not in seen:
                self._problem("missing_image", label.path, f"labels a picture {images}/{key}.* that is not there")

    def _label_files(self, labels: str) -> dict[str, FileEntry]:
        if not self.tree.has_folder(labels):
            return {}
        files = [file for file in self.tree.files(labels) if file.suffix == ".txt" and file.name != "classes.txt"]
        for file in files:
            self.tree.visits.watch(*file)
        return {file.bare_path.removeprefix(f"{labels}/"): file for file in files}

    def _read_picture(self, image: FileEntry, key: str, images: str, label: FileEntry | None) -> None:
        if image.size < MIN_IMAGE_BYTES:
            self.problems.append(empty_image_problem(image))
            return
        if label is None:
            self._problem("missing_label", image.path, "has no label file (not even an empty one); left out")
            return
        try:
            size_wh = image_size_wh(self.tree.root / image.path)
        except BrokenImageError as error:
            self.tree.visits.distrust_refused(image.path, error.__cause__)
            self._problem("broken_image", image.path, f"its header cannot be read ({error.__cause__}); left out")
            return
        found = self._boxes(label, size_wh)
        if found:
            self._add(image, key, images, size_wh, *found)

    def _boxes(self, label: FileEntry, size_wh: tuple[int, int]) -> tuple[list[Box], list[str]] | None:
        """Return the usable boxes of a label file with their class keys; None where the picture cannot be used."""
        lines = self._distinct_lines(label)
        if lines is None:
            return None
        boxes: list[Box] = []
        codes: list[str] = []
        faults: list[tuple[str, str]] = []
        num_lost_pills = 0
        for line_number, text in lines:
            try:
                line = parse_label_line(text)
                code = self._class_key(line.class_id)
            except (ValueError, OverflowError) as error:
                kind = "unknown_class" if isinstance(error, _UnknownClassError) else "broken_label"
                faults.append((kind, f"line {line_number} is {text[:60]!r}: {error}"))
                num_lost_pills += 1
                continue
            checked = check_box(_to_xyxy(line.box_cxcywh_norm, size_wh), size_wh)
            if checked.kind:
                faults.append((checked.kind, f"line {line_number}: {checked.detail}"))
            if checked.box_xyxy:
                boxes.append(checked.box_xyxy)
                codes.append(code)
            elif checked.kind not in SLIP_KINDS:
                num_lost_pills += 1
        is_usable = not num_lost_pills and (bool(boxes) or not lines)
        for kind, detail in faults:
            self._problem(kind, label.path, detail if is_usable else f"{detail}; the picture is left out")
        return (boxes, codes) if is_usable else None

    def _distinct_lines(self, label: FileEntry) -> list[tuple[int, str]] | None:
        """Return (line number, text) of the lines that are not blank and no repetition; None if unreadable."""
        try:
            text = (self.tree.root / label.path).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            self.tree.visits.distrust_refused(label.path, error)
            self._problem("broken_label", label.path, f"cannot be read ({error}); the picture is left out")
            return None
        first_line: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            first = first_line.setdefault(line.strip(), number)
            if first != number:
                self._problem("duplicate_box", label.path, f"line {number} repeats line {first}; used once")
        return [(number, line) for line, number in first_line.items()]

    def _class_key(self, class_id: int) -> str:
        if self.names is None:
            return str(class_id)
        if class_id not in self.names:
            raise _UnknownClassError(f"class {class_id} has no name; {len(self.names)} names are given")
        return self.names[class_id]

    def _add(
        self,
        image: FileEntry,
        key: str,
        images: str,
        size_wh: tuple[int, int],
        boxes: Sequence[Box],
        codes: Sequence[str],
    ) -> None:
        part_folder = images.partition("/")[0] if "/" in images else key.partition("/")[0]
        part = PART_OF_FOLDER.get(part_folder, "")
        is_single = len(boxes) == 1
        self.pictures.append(
            Picture(
                image_path=image.path,
                task=SINGLE if is_single else COMBO,
                code=codes[0] if is_single else None,
                group=source_photo(key.removeprefix(f"{part_folder}/") if part else key),
                source=SOURCE,
                part=part,
                width=size_wh[0],
                height=size_wh[1],
                boxes_xyxy=boxes,
                box_codes=codes,
            )
        )

    def _problem(self, kind: str, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))


def _to_xyxy(box_cxcywh_norm: tuple[float, float, float, float], size_wh: tuple[int, int]) -> Box:
    x_min, y_min, x_max, y_max = cxcywh_norm_to_xyxy(np.array([box_cxcywh_norm], np.float32), size_wh)[0].tolist()
    return x_min, y_min, x_max, y_max
