"""Writers of tiny data sets for tests, one per reader: a few PNG files of random pixels with the labels beside them.

Every function returns the folder to hand to the reader, and keeps the defaults small enough for a test of milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SINGLES = {"K-000001": 6, "K-000002": 6, "K-000003": 6}
COMBOS = {"K-000001-000002-000003": 3, "K-000001-000002": 3, "K-000002-000003": 3}
VAL_SINGLES = {"K-000009": 3}  # the released Validation part holds other drugs than Training
SIZE_WH = (96, 128)


def write_image(path: Path, size_wh: tuple[int, int] = SIZE_WH, seed: int = 0) -> Path:
    """Write an RGB picture of noise, in the format of the suffix; folders are made as needed."""
    width, height = size_wh
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def aihub_stem(code: str, index: int) -> str:
    """Return picture `index` of a folder in the naming grid: background, side, light turn fast, the angle slowly."""
    cell, angle = index % 18, index // 18
    return f"{code}_0_{cell % 3}_{cell // 3 % 2}_{cell // 6}_{(60, 70, 75, 90)[angle % 4]}_{angle * 20 % 360:03d}_200"


def aihub_label(
    file_name: str, code: str, box_xywh: Sequence[object], size_wh: tuple[int, int] = SIZE_WH
) -> dict[str, Any]:
    """Return the label of one pill, with the fields of the real files that matter (and a few that drift)."""
    folder_code = file_name.split("_")[0]
    number = int(code.removeprefix("K-"))
    image = {
        "file_name": file_name,
        "width": size_wh[0],
        "height": size_wh[1],
        "imgfile": file_name,
        "drug_N": folder_code,
        "drug_S": "정제",
        "dl_idx": str(number - 1),
        "dl_mapping_code": code,
        "dl_name": f"약 {number}정",
        "item_seq": 200000000 + number,
        "thick": None,
        "id": 1,
    }
    category: dict[str, Any] = {"supercategory": "pill", "id": 1, "name": "Drug"}
    if folder_code != code:
        category = {"supercategory": "pill", "id": number - 1, "name": f"약 {number}정"}
    annotation = {
        "area": 1,
        "iscrowd": 0,
        "bbox": list(box_xywh),
        "category_id": category["id"],
        "ignore": 0,
        "segmentation": [],
        "id": 1,
        "image_id": 1,
    }
    return {"images": [image], "type": "instances", "annotations": [annotation], "categories": [category]}


def write_json(path: Path, content: object) -> Path:
    """Write a UTF-8 JSON file; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def combo_codes(folder: str) -> list[str]:
    """Return the K-codes in the name of a combination folder: `K-000001-000002` holds two."""
    return [f"K-{number}" for number in folder.removeprefix("K-").split("-")]


def write_aihub(
    root: Path,
    *,
    singles: Mapping[str, int] = SINGLES,
    combos: Mapping[str, int] = COMBOS,
    val_singles: Mapping[str, int] | None = None,
    val_combos: Mapping[str, int] | None = None,
    size_wh: tuple[int, int] = SIZE_WH,
) -> Path:
    """Write a data set in the AI Hub 576 layout: folder name -> number of pictures, for each part and kind.

    Single pictures have one box; combination pictures one box per code, side by side. For the layout with a `data/`
    level write into `root / "data"` and hand `root` to the reader.
    """
    for part, letter, part_singles, part_combos in (
        ("train", "T", singles, combos),
        ("val", "V", val_singles or {}, val_combos or {}),
    ):
        for code, count in part_singles.items():
            images, labels = aihub_single_dirs(root, code, part=part, letter=letter)
            for index in range(count):
                stem = aihub_stem(code, index)
                write_image(images / f"{stem}.png", size_wh, seed=index)
                box = (size_wh[0] // 4, size_wh[1] // 4, size_wh[0] // 3, size_wh[1] // 3)
                write_json(labels / f"{stem}.json", aihub_label(f"{stem}.png", code, box, size_wh))
        for folder, count in part_combos.items():
            images, labels = aihub_combo_dirs(root, folder, part=part, letter=letter)
            codes = combo_codes(folder)
            step = size_wh[0] // len(codes)
            for index in range(count):
                stem = aihub_stem(folder, index)
                write_image(images / f"{stem}.png", size_wh, seed=index)
                for slot, code in enumerate(codes):
                    label = aihub_label(f"{stem}.png", code, (slot * step + 2, 10, step - 4, 30), size_wh)
                    write_json(labels / code / f"{stem}.json", label)
    return root


def aihub_single_dirs(root: Path, code: str, *, part: str = "train", letter: str = "T") -> tuple[Path, Path]:
    """Return the folder of a drug's single pictures and that of their labels."""
    return (
        root / part / "images" / "single" / f"{letter}S_1_single" / code,
        root / part / "labels" / "single" / f"{letter}L_1_single" / f"{code}_json",
    )


def aihub_combo_dirs(root: Path, folder: str, *, part: str = "train", letter: str = "T") -> tuple[Path, Path]:
    """Return the folder of a combination's pictures and that of their labels (which has a subfolder per code)."""
    return (
        root / part / "images" / "combination" / f"{letter}S_1_combo" / folder,
        root / part / "labels" / "combination" / f"{letter}L_1_combo" / f"{folder}_json",
    )


def write_yolo(
    root: Path,
    pictures: Mapping[str, Sequence[tuple[int, float, float, float, float]]] | None = None,
    *,
    names: Sequence[str] | None = ("alpha", "beta"),
    size_wh: tuple[int, int] = SIZE_WH,
) -> Path:
    """Write a YOLO data set: path below `images/` -> lines (class, cx, cy, w, h) as fractions.

    Without `pictures`: six singles of each of two classes and two combos in train, one single of each in val and test.
    """
    for index, (name, lines) in enumerate((default_yolo_pictures() if pictures is None else pictures).items()):
        image = write_image(root / "images" / name, size_wh, seed=index)
        label = root / "labels" / image.relative_to(root / "images").with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    if names is not None:
        (root / "data.yaml").write_text("names:\n" + "".join(f"- {name}\n" for name in names), encoding="utf-8")
    return root


def default_yolo_pictures() -> dict[str, list[tuple[int, float, float, float, float]]]:
    """Return the pictures `write_yolo` writes when it is given none."""
    counts = {"train": 6, "val": 1, "test": 1}
    pictures = {
        f"{part}/{letter}{index}.jpg": [(class_id, 0.5, 0.5, 0.25, 0.25)]
        for part, count in counts.items()
        for class_id, letter in enumerate("ab")
        for index in range(count)
    }
    combo = [(0, 0.25, 0.25, 0.2, 0.2), (1, 0.75, 0.75, 0.2, 0.2)]
    return pictures | {"train/c0.jpg": combo, "train/c1.jpg": combo}


def write_folders(
    root: Path,
    classes: Mapping[str, int] | None = None,
    *,
    parts: Sequence[str] = (),
    suffix: str = ".jpg",
    size_wh: tuple[int, int] = SIZE_WH,
) -> Path:
    """Write a folder-per-class data set: class -> number of pictures, below each of `parts` where given."""
    seed = 0
    for part in parts or ("",):
        for name, count in (classes or {"alpha": 4, "beta": 4}).items():
            for index in range(count):
                write_image(root / part / name / f"{name}_{part}{index}{suffix}", size_wh, seed=seed)
                seed += 1
    return root
