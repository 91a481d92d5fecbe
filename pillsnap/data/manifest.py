"""What a CSV manifest does to a data set.

In a folder that lies like a known data set it chooses pictures: those it does not name are not used. In any other
folder it is the data set: its single pictures train the classifier, without boxes; its combos have none and are left
out. Lines that name no usable picture, or another class than the data set does, become problems.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pillsnap.data.aihub576_units import codes_of_key
from pillsnap.data.manifest_csv import JOINT, joined_codes, read_manifest_csv
from pillsnap.data.records import COMBO, PROBLEM_SCHEMA, SINGLE, Picture, Problem, Problems, Scan, sorted_by
from pillsnap.data.scan import Found, Reader
from pillsnap.data.scan_units import Tables, Unit, UnitColumns, UnitFolder, UnitJob
from pillsnap.data.tree import IMAGE_SUFFIXES, MIN_IMAGE_BYTES, DataTree, FileEntry, empty_image_problem, source_photo
from pillsnap.data.yolo import PART_OF_FOLDER
from pillsnap.errors import BrokenImageError, DataError

SOURCE = "manifest"
LAYOUT = "  pictures in any folders, listed in a CSV file (data.manifest=FILE)"
LABEL_SUFFIXES = [".json", ".txt"]
ROWS_A_UNIT = 200  # of weight 1: each has its header read


def restrict(scan: Scan, manifest: Path) -> Scan:
    """Return the pictures of `scan` that a manifest names.

    Problems of pictures that it does not name, and of their labels, are left out; its own are added: `not_in_data`,
    `code_mismatch` (the line's class or type differs from the data set's: the picture is left out), `duplicate_line`.

    Raises:
        DataError: The manifest cannot be used, or names no picture of the data set.
    """
    lines, problems = _read_lines(manifest)
    rows = pc.index_in(lines.column("image_path"), scan.records.table.column("image_path"))
    listed = lines.append_column("row", rows)
    is_absent = pc.is_null(listed.column("row"))
    for path in listed.filter(is_absent).column("image_path").to_pylist():
        detail = "is named by the manifest, but is no usable picture of the data set; left out"
        problems.append(Problem("not_in_data", path, detail))
    present = listed.filter(pc.invert(is_absent))
    is_same, found = _agreement(scan, present)
    problems += found
    chosen = np.sort(present.column("row").to_numpy()[is_same]).astype(np.int64)
    if not len(chosen):
        first = f"; first: {problems[0].path}: {problems[0].detail}" if problems else ""
        raise DataError(
            f"The manifest {manifest} names no picture of the data set that can be used ({len(lines)} lines{first}). "
            "Paths relative to data.root are wanted. Check data.root and data.manifest."
        )
    table = pa.concat_tables([_problems_of(scan, lines.column("image_path")), Problems.of(problems).table])
    return Scan(scan.records.select(chosen), Problems(sorted_by(table, "path", "kind")), scan.names)


def manifest_reader(manifest: Path) -> Reader:
    """Return the reader of a folder of no known layout, whose pictures a manifest names.

    Raises:
        DataError: The manifest cannot be used (raised when the reader looks for its units).
    """
    return Reader(SOURCE, LAYOUT, lambda root: _discover(root, manifest), read_units, _folders_read, unit_of_rows)


def read_units(job: UnitJob) -> Tables:
    """Read the headers of some pictures; runs in any process."""
    columns = UnitColumns()
    for unit in job.units:
        (folder,) = unit.folders
        tree = DataTree(Path(job.root))
        names = [name for name, _, _ in unit.rows]
        tree.visits.watch_names(tree.root, folder.path, names)
        prefix = f"{folder.path}/" if folder.path else ""
        found = [_read_picture(tree, prefix + name, code, kind, folder.part) for name, code, kind in unit.rows]
        columns.pictures += [entry for entry in found if isinstance(entry, Picture)]
        problems = [entry for entry in found if isinstance(entry, Problem)]
        columns.close_unit(unit.key, problems, {}, tree.visits)
    return columns.tables()


def unit_of_rows(records: pa.Table) -> pa.ChunkedArray:
    """Return the key of the unit that each row of a picture table belongs to: its folder."""
    return pc.replace_substring_regex(records.column("image_path"), r"/?[^/]*$", "")


def _folders_read(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _discover(_root: Path, manifest: Path) -> Found:
    """Sort the lines of a manifest by folder."""
    lines, problems = _read_lines(manifest)
    by_folder: dict[str, list[tuple[str, str, str]]] = {}
    columns = (lines.column(name).to_pylist() for name in ("image_path", "mapping_code", "image_type"))
    for path, code, image_type in zip(*columns, strict=True):
        folder, _, name = path.rpartition("/")
        by_folder.setdefault(folder, []).append((name, code, image_type))
    units = []
    for folder, rows in sorted(by_folder.items()):
        part = PART_OF_FOLDER.get(folder.partition("/")[0], "")
        # What the lines say is part of where the unit lies: a manifest that says otherwise makes it another one.
        digest = hashlib.blake2b(repr(sorted(rows)).encode(), digest_size=12).hexdigest()
        place = UnitFolder(part, digest, folder)
        units.append(Unit(folder, (place,), len(rows) / ROWS_A_UNIT, tuple(sorted(rows))))
    return Found(units, problems)


def _read_picture(tree: DataTree, path: str, code: str, image_type: str, part: str) -> Picture | Problem:
    from pillsnap.data.images import image_size_wh  # imports decoders: too slow to start for most processes

    if image_type == COMBO:
        return Problem("combo_without_boxes", path, "is a combo, and a manifest has no boxes; left out")
    try:
        size = (tree.root / path).stat().st_size
    except OSError as error:
        return Problem("not_in_data", path, f"is named by the manifest, but is not there ({error.strerror}); left out")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        return Problem("not_in_data", path, "is named by the manifest, but is no picture by its name; left out")
    if size < MIN_IMAGE_BYTES:
        return empty_image_problem(FileEntry(path, size, 0))
    try:
        width, height = image_size_wh(tree.root / path)
    except BrokenImageError as error:
        tree.visits.distrust_refused(path, error.__cause__)
        return Problem("broken_image", path, f"its header cannot be read ({error.__cause__}); left out")
    group = f"{code}|{source_photo(os.path.splitext(path)[0])}"  # noqa: PTH122 - a text, not a file
    return Picture(path, SINGLE, code, group, SOURCE, part, width, height)


def _read_lines(manifest: Path) -> tuple[pa.Table, list[Problem]]:
    """Return the lines of a manifest, of those with one path the first, and the problems of the others."""
    lines = read_manifest_csv(manifest)
    numbers = lines.column("image_path").combine_chunks().dictionary_encode().indices.to_numpy()
    is_first = np.zeros(len(lines), bool)
    is_first[np.unique(numbers, return_index=True)[1]] = True
    repeated = lines.column("image_path").filter(pa.array(~is_first)).to_pylist()
    detail = "is named more than once by the manifest; its first line is used"
    return lines.filter(pa.array(is_first)), [Problem("duplicate_line", path, detail) for path in repeated]


def _agreement(scan: Scan, lines: pa.Table) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Tell which lines name the type and class that the data set has, and return the problems of the others."""
    records = scan.records.table
    rows = lines.column("row")
    found_types = records.column("task").take(rows)
    found_codes = joined_codes(scan.records).take(rows)
    wanted = lines.column("mapping_code")
    is_open = pc.and_(pc.equal(wanted, ""), pc.equal(found_types, COMBO))
    is_same = pc.and_(pc.equal(found_types, lines.column("image_type")), pc.or_(pc.equal(wanted, found_codes), is_open))
    agrees = np.array(is_same.to_numpy(), bool)
    problems = []
    for number in np.flatnonzero(~agrees).tolist():
        path, code, image_type, *_ = lines.slice(number, 1).to_pylist()[0].values()
        found_type, found_code = found_types[number].as_py(), found_codes[number].as_py()
        if image_type == found_type == COMBO and _pills(code) == _pills(found_code):
            agrees[number] = True
            continue
        detail = f"is {image_type} {code} by the manifest and {found_type} {found_code} in the data set; left out"
        problems.append(Problem("code_mismatch", path, detail))
    return agrees, problems


def _pills(code: str) -> Counter[str]:
    """Return the class keys in a combo's `mapping_code`."""
    is_folder = code.startswith("K-") and JOINT not in code
    return Counter(codes_of_key(code) if is_folder else code.split(JOINT))


def _problems_of(scan: Scan, listed: pa.ChunkedArray) -> pa.Table:
    """Return the problems of `scan` but those of pictures that are not listed, and of their labels (by file name)."""
    table = Problems.of(scan.problems).table if not isinstance(scan.problems, Problems) else scan.problems.table
    paths = table.column("path")
    suffix = pc.utf8_lower(pc.replace_substring_regex(paths, r"^.*(\.[^./]*)$", r"\1"))
    is_label = pc.is_in(suffix, pa.array(LABEL_SUFFIXES))
    is_other = pc.invert(pc.or_(pc.is_in(suffix, pa.array(sorted(IMAGE_SUFFIXES))), is_label))
    is_listed = pc.is_in(paths, listed.combine_chunks())
    is_of_listed = pc.and_(is_label, pc.is_in(_stems(paths), _stems(listed).combine_chunks()))
    return table.filter(pc.or_(is_other, pc.or_(is_listed, is_of_listed))).select(PROBLEM_SCHEMA.names)


def _stems(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return file names without suffix: a picture and its labels share theirs in every layout."""
    return pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/", ""), r"\.[^.]*$", "")
