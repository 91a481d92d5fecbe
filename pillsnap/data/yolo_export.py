"""Detection labels in YOLO format, so that the pictures of a run can be opened in any YOLO tool.

Pictures are linked, never copied, and all files lie in the experiment: nothing is written into the user's data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import xyxy_to_cxcywh_norm
from pillsnap.data.records import Records
from pillsnap.errors import DataError

MARK = "# PillSnap detection data "
CLASS_NAME = "pill"

RowsBySplit = Mapping[str, NDArray[np.int64]]


def export_yolo(records: Records, rows_by_split: RowsBySplit, root: Path, out_dir: Path) -> Path:
    """Write `images/<split>/` (links), `labels/<split>/` (one class: pill) and `data.yaml` below `out_dir`.

    Files are named by sample id, so pictures of the same name in different folders stay apart. Everything is written
    beside `out_dir` first and moved there when complete; when the same pictures are there already nothing is done.

    Args:
        records: All pictures.
        rows_by_split: Split name -> row numbers of its pictures.
        root: The data root, which the paths in `records` are relative to.
        out_dir: The folder to write; replaced if an earlier export lies there.

    Returns:
        The path of `data.yaml`.

    Raises:
        DataError: `out_dir` holds something else, or cannot be written or linked into.
    """
    data_yaml = out_dir / "data.yaml"
    mark = MARK + _digest(records, rows_by_split, root, out_dir)
    if out_dir.exists():
        found = data_yaml.read_text(encoding="utf-8").splitlines()[:1] if data_yaml.is_file() else []
        if found == [mark]:
            return data_yaml
        _require_own(out_dir, found)
    new_dir = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(new_dir, ignore_errors=True)
        new_dir.mkdir(parents=True)
        for split, rows in rows_by_split.items():
            _write_split(records, rows, root.resolve(), new_dir, split)
        (new_dir / "data.yaml").write_text(_data_yaml(mark, out_dir, rows_by_split), encoding="utf-8")
        shutil.rmtree(out_dir, ignore_errors=True)
        new_dir.rename(out_dir)
    except OSError as error:
        shutil.rmtree(new_dir, ignore_errors=True)
        raise DataError(
            f"The detection labels cannot be written to {out_dir} ({error.strerror}). A folder with free space, on a "
            "file system with symbolic links, is wanted. Set paths.exp_dir to such a folder."
        ) from error
    return data_yaml


def _write_split(records: Records, rows: NDArray[np.int64], root: Path, out_dir: Path, split: str) -> None:
    images, labels = out_dir / "images" / split, out_dir / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    sample_ids, widths, heights = (records.column(name) for name in ("sample_id", "width", "height"))
    for row in map(int, rows):
        image_path = records.image_path(row)
        name = f"{int(sample_ids[row]):016x}"
        (images / f"{name}{PurePosixPath(image_path).suffix.lower()}").symlink_to(root / image_path)
        boxes = xyxy_to_cxcywh_norm(records.boxes_xyxy(row), (int(widths[row]), int(heights[row])))
        lines = (" ".join(["0", *(f"{value:.6f}" for value in box)]) for box in boxes.tolist())
        (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _data_yaml(mark: str, out_dir: Path, rows_by_split: RowsBySplit) -> str:
    # A JSON string is a YAML string too: any path is quoted rightly.
    lines = [mark, f"path: {json.dumps(str(out_dir.resolve()), ensure_ascii=False)}"]
    lines += [f"{split}: images/{split}" for split in rows_by_split]
    return "\n".join([*lines, "names:", f"  0: {CLASS_NAME}", ""])


def _digest(records: Records, rows_by_split: RowsBySplit, root: Path, out_dir: Path) -> str:
    digest = hashlib.blake2b(os.fsencode(root.resolve()) + b"\0" + os.fsencode(out_dir.resolve()), digest_size=16)
    for split, rows in rows_by_split.items():
        digest.update(f"\0{split}\0".encode())
        for row in map(int, rows):
            digest.update(records.image_path(row).encode())
            digest.update(records.boxes_xyxy(row).tobytes())
    return digest.hexdigest()


def _require_own(out_dir: Path, first_lines: list[str]) -> None:
    """Refuse to replace a folder that this module did not write."""
    is_own = bool(first_lines) and first_lines[0].startswith(MARK)
    if is_own or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return
    raise DataError(
        f"{out_dir} holds something other than detection data written by this program, which is not replaced. A new or "
        "an empty folder is wanted. Move it away or choose another paths.exp_dir."
    )
