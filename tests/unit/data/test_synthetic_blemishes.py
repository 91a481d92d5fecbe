from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.images import decode_rgb
from pillsnap.data.synthetic import SyntheticSpec, SyntheticSummary, draw_dataset
from pillsnap.errors import BrokenImageError

SIZE_WH = (160, 200)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSummary:
    spec = SyntheticSpec(
        num_drugs=4, singles_per_drug=12, num_combos=12, width=SIZE_WH[0], height=SIZE_WH[1], blemishes=True
    )
    return draw_dataset(tmp_path_factory.mktemp("damaged"), spec, num_processes=1)


def is_broken_image(path: Path) -> bool:
    try:
        decode_rgb(path)
    except BrokenImageError:
        return True
    return False


def is_broken_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes().decode("utf-8"))
    except ValueError:
        return True
    return False


def is_outside(path: Path) -> bool:
    x, y, w, h = json.loads(path.read_text(encoding="utf-8"))["annotations"][0]["bbox"]
    return bool(x + w > SIZE_WH[0] or y + h > SIZE_WH[1])


def found_in_the_files(root: Path) -> dict[str, set[str]]:
    """Look for every kind of fault in the files alone, the slow and plain way."""
    pictures = [path for path in root.rglob("*.png") if not path.name.startswith("._")]
    labels = [path for path in root.glob("train/**/*.json") if not path.name.startswith("._")]
    stray = [path for path in pictures if path.stem.endswith("index")]
    ours = [path for path in pictures if path not in stray]
    num_labels = Counter(label.stem for label in labels)
    num_pills = {path: path.stem.split("_")[0].count("-") for path in ours}
    found = {
        "hidden_file": root.rglob("._*"),
        "stray_image": stray,
        "missing_label": [path for path in ours if num_labels[path.stem] == 0],
        "missing_box": [path for path in ours if 0 < num_labels[path.stem] < num_pills[path]],
        "empty_image": [path for path in pictures if path.stat().st_size < 100],
        "truncated_image": [path for path in pictures if path.stat().st_size >= 100 and is_broken_image(path)],
        "missing_image": [path for path in labels if path.stem not in {picture.stem for picture in pictures}],
        "broken_json": [path for path in labels if is_broken_json(path)],
        "box_outside": [path for path in labels if not is_broken_json(path) and is_outside(path)],
    }
    return {kind: {path.relative_to(root).as_posix() for path in paths} for kind, paths in found.items()}


def test_what_is_planted_is_exactly_what_is_wrong(damaged: SyntheticSummary) -> None:
    planted = {kind: set(paths) for kind, paths in damaged.faults.items()}
    assert planted == found_in_the_files(damaged.root)
    assert all(planted.values())


def test_both_sorts_of_empty_pictures_and_of_broken_labels_are_planted(damaged: SyntheticSummary) -> None:
    sizes = sorted((damaged.root / path).stat().st_size for path in damaged.faults["empty_image"])
    assert sizes[0] == 0 < sizes[-1] < 100
    contents = [(damaged.root / path).read_bytes() for path in damaged.faults["broken_json"]]
    assert sum(content.endswith(b"}") for content in contents) == 1  # whole, but in a Korean code page
    assert any("images" in json.loads(content.decode("cp949")) for content in contents if content.endswith(b"}"))


def test_a_stray_picture_lies_in_every_combination_folder(damaged: SyntheticSummary) -> None:
    folders = {path.parent.as_posix() for path in map(Path, damaged.faults["stray_image"])}
    assert len(folders) == len(damaged.faults["stray_image"]) == damaged.num_combos // 3


def test_a_box_outside_reaches_thousands_of_pixels_out(damaged: SyntheticSummary) -> None:
    for path in damaged.faults["box_outside"]:
        x, _, w, _ = json.loads((damaged.root / path).read_text(encoding="utf-8"))["annotations"][0]["bbox"]
        assert x + w > 5000


def test_the_completion_file_lists_the_faults_too(damaged: SyntheticSummary) -> None:
    content = json.loads((damaged.root / "synthetic.json").read_text(encoding="utf-8"))
    assert content["faults"] == damaged.faults


@pytest.mark.req("DAT-2")
def test_the_reader_survives_and_names_planted_files(damaged: SyntheticSummary) -> None:
    problems = read_aihub576(damaged.root).problems
    for kind in ("missing_label", "missing_image", "missing_box", "box_outside", "broken_json", "stray_image"):
        assert {problem.path for problem in problems if problem.kind == kind} == set(damaged.faults[kind])
