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

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pillsnap.data.aihub576_units import SOURCE, UNIT_PREFIX, read_units
from pillsnap.data.records import COMBO, SINGLE, Problem, Scan
from pillsnap.data.scan import Found, Reader, read_all
from pillsnap.data.scan_units import Unit, UnitFolder
from pillsnap.data.tree import DataTree

LAYOUT = """  AI Hub 576 (data.reader=aihub576), with or without a data/ level below ROOT:
    ROOT/{train,val}/images/single/*/K-000059/*.png
    ROOT/{train,val}/labels/single/*/K-000059_json/*.json
    ROOT/{train,val}/images/combination/*/K-000059-001900/*.png
    ROOT/{train,val}/labels/combination/*/K-000059-001900_json/K-000059/*.json"""

PARTS = ("train", "val")
FOLDER_OF_TASK = {SINGLE: "single", COMBO: "combination"}
KEY_FOLDER = {SINGLE: re.compile(r"(K-\d+)(_json)?"), COMBO: re.compile(r"(K-\d+(?:-\d+)+)(_json)?")}
COMBO_WEIGHT = 0.06  # three pictures with four labels each, beside a drug's two hundred or more


def read_aihub576(root: Path, processes: int | None = None) -> Scan:
    """Read all pictures and labels below `root`.

    Args:
        root: The folder that holds `train/` and `val/`, or the one above it with a `data/` level between.
        processes: How many read; None for one per core. It changes nothing in the result.

    Returns:
        The pictures (singles with at most one box, combinations with a box per pill), the problems, and the drug
        names by K-code. Paths are relative to `root`.

    Raises:
        DataError: The folder is missing or unreadable, or holds no usable picture.
    """
    return read_all(root, READER, processes)


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


def discover(root: Path) -> Found:
    """Find the folders of all drugs and combinations, and the files that lie beside them."""
    level = level_of(root)
    search = _Search(DataTree(root))
    units = [] if level is None else [unit for task in (SINGLE, COMBO) for unit in search.units(level, task)]
    return Found(units, [*search.problems, *search.tree.problems])


def unit_of_rows(records: pa.Table) -> pa.ChunkedArray:
    """Return the key of the unit that each row of a picture table belongs to."""
    is_single = pc.equal(records.column("task"), SINGLE)
    prefix = pc.if_else(is_single, UNIT_PREFIX[SINGLE], UNIT_PREFIX[COMBO])
    return pc.binary_join_element_wise(prefix, pc.coalesce(records.column("code"), records.column("group")), "")


READER = Reader(SOURCE, LAYOUT, discover, read_units, folders_read, unit_of_rows)


class _Search:
    """Looks for the folders that are named after K-codes."""

    def __init__(self, tree: DataTree) -> None:
        self.tree = tree
        self.problems: list[Problem] = []

    def units(self, level: str, task: str) -> list[Unit]:
        """Return the drugs or combinations with their folders in both parts."""
        found: dict[str, list[UnitFolder]] = {}
        for part in PARTS:
            for side in ("images", "labels"):
                folder = f"{level}{part}/{side}/{FOLDER_OF_TASK[task]}"
                if self.tree.has_folder(folder):
                    for key, path in self._key_folders(folder, task):
                        found.setdefault(key, []).append(UnitFolder(part, side, path))
        weight = 1.0 if task == SINGLE else COMBO_WEIGHT
        return [Unit(UNIT_PREFIX[task] + key, tuple(found[key]), weight) for key in sorted(found)]

    def _key_folders(self, folder: str, task: str) -> Iterator[tuple[str, str]]:
        """Yield (key, folder) for the folders named after a drug or combination, however deep they lie."""
        folders, files = self.tree.children(folder)
        for file in files:
            if file.is_image or file.suffix == ".json":
                kind = "stray_image" if file.is_image else "stray_label"
                detail = "does not lie in a folder named after a K-code; left out"
                self.problems.append(Problem(kind, file.path, detail))
        for child in folders:
            match = KEY_FOLDER[task].fullmatch(child.rpartition("/")[2])
            if match:
                yield match.group(1), child
            else:
                yield from self._key_folders(child, task)
