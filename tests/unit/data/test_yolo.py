from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.records import Scan
from pillsnap.data.yolo import read_yolo
from pillsnap.errors import DataError
from tests.builders import write_image, write_yolo

pytestmark = pytest.mark.req("DAT-2")

PHOTOGRAPHS = Path(__file__).parents[3].parent / "shared" / "data" / "mypillbox"
needs_photographs = pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="the photographs at ../shared/data/mypillbox are not on this machine"
)

GOOD = (0, 0.5, 0.5, 0.25, 0.25)


def kinds(scan: Scan) -> list[str]:
    return [problem.kind for problem in scan.problems]


def paths(scan: Scan) -> list[str]:
    return list(scan.records.column("image_path"))


def write_with(root: Path, label: str | bytes) -> Path:
    """Write two pictures, `good` and `odd`, the latter with the given label text."""
    write_yolo(root, {"train/good.jpg": [GOOD], "train/odd.jpg": []})
    content = label.encode() if isinstance(label, str) else label
    (root / "labels" / "train" / "odd.txt").write_bytes(content)
    return root


def test_one_box_is_a_single_picture_of_its_class(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"train/a.jpg": [(1, 0.5, 0.5, 0.5, 0.25)]}))
    row = scan.records.table.to_pylist()[0]
    assert (row["task"], row["code"], row["part"], row["source"]) == ("single", "beta", "train", "yolo")
    assert row["boxes_xyxy"] == [24, 48, 72, 80]
    assert row["box_codes"] == ["beta"]
    assert (row["width"], row["height"]) == (96, 128)


def test_several_boxes_are_a_combo(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"train/a.jpg": [GOOD, (1, 0.2, 0.2, 0.1, 0.1)]}))
    row = scan.records.table.to_pylist()[0]
    assert (row["task"], row["code"], row["box_codes"]) == ("combo", None, ["alpha", "beta"])


def test_an_empty_label_file_is_a_picture_without_pills(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"train/a.jpg": []}))
    assert (scan.records.column("task")[0], scan.problems) == ("combo", [])
    assert len(scan.records.boxes_xyxy(0)) == 0


@pytest.mark.parametrize(
    ("folder", "part"), [("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"), ("nulls", "")]
)
def test_the_part_is_the_folder(tmp_path: Path, folder: str, part: str) -> None:
    scan = read_yolo(write_yolo(tmp_path, {f"{folder}/a.jpg": [GOOD]}))
    assert scan.records.column("part")[0] == part


def test_a_data_set_without_parts_is_read(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"a.jpg": [GOOD]}))
    assert (scan.records.column("part")[0], scan.records.column("group")[0]) == ("", "a")


def test_a_roboflow_export_with_the_parts_on_top_is_read(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        write_yolo(tmp_path / part, {"a.jpg": [GOOD]}, names=None)
    scan = read_yolo(tmp_path)
    assert paths(scan) == ["train/images/a.jpg", "valid/images/a.jpg"]
    assert scan.records.column("part").tolist() == ["train", "val"]
    assert scan.records.column("group").tolist() == ["a", "a"]


def test_copies_of_one_photograph_are_one_group(tmp_path: Path) -> None:
    pictures = {f"train/IMG_1_jpg.rf.{letter}.jpg": [GOOD] for letter in "abc"} | {"val/IMG_1_jpg.rf.d.jpg": [GOOD]}
    scan = read_yolo(write_yolo(tmp_path, pictures))
    assert scan.records.column("group").tolist() == ["IMG_1_jpg"] * 4


def test_same_names_in_different_folders_are_different_groups(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"train/x/1.jpg": [GOOD], "train/y/1.jpg": [GOOD]}))
    assert scan.records.column("group").tolist() == ["x/1", "y/1"]


def test_without_names_the_class_number_is_the_key(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path, {"train/a.jpg": [(7, 0.5, 0.5, 0.2, 0.2)]}, names=None))
    assert scan.records.column("code")[0] == "7"


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.PNG", "a.bmp", "a.webp", "a.tif", "약 사진 1.jpg"])
def test_all_common_picture_files_are_read(tmp_path: Path, name: str) -> None:
    assert paths(read_yolo(write_yolo(tmp_path, {f"train/{name}": [GOOD]}))) == [f"images/train/{name}"]


def test_an_outline_becomes_a_box(tmp_path: Path) -> None:
    scan = read_yolo(write_with(tmp_path, "0 0.25 0.25 0.75 0.25 0.5 0.5\n"))
    np.testing.assert_allclose(scan.records.boxes_xyxy(1), [[24, 32, 72, 64]])


@pytest.mark.parametrize(
    ("label", "kind", "detail"),
    [
        pytest.param("0 0.5 0.5 0.2 0.2\n0 0.5\n", "broken_label", "line 2 is '0 0.5': 2 numbers", id="short line"),
        pytest.param(b"\xbe\xe0", "broken_label", "cannot be read", id="not UTF-8"),
        pytest.param("9 0.5 0.5 0.2 0.2\n", "unknown_class", "class 9 has no name; 2 names are given", id="class"),
        pytest.param("0 1.5 0.5 0.2 0.2\n", "box_outside", "line 1: box of", id="outside"),
        pytest.param("0 240 320 50 50\n", "box_outside", "line 1: box of", id="pixels instead of fractions"),
        pytest.param("0 0.5 0.5 0 0.2\n", "zero_size_box", "has no area", id="only box without area"),
        pytest.param("0 0.5 0.5 0.005 0.2\n", "tiny_box", "narrower than 2 px", id="only box half a pixel wide"),
    ],
)
def test_a_picture_whose_pills_are_not_all_known_is_left_out(
    tmp_path: Path, label: str | bytes, kind: str, detail: str
) -> None:
    scan = read_yolo(write_with(tmp_path, label))
    assert kinds(scan) == [kind]
    assert scan.problems[0].path == "labels/train/odd.txt"
    assert detail in scan.problems[0].detail
    assert scan.problems[0].detail.endswith("the picture is left out")
    assert paths(scan) == ["images/train/good.jpg"]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        pytest.param("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.005 0.002\n", "tiny_box", id="a slip beside a good box"),
        pytest.param("0 0.95 0.5 0.2 0.2\n", "box_outside", id="reaching outside"),
        pytest.param("0 0.5 0.5 0.2 0.2\n\n0 0.5 0.5 0.2 0.2 \n", "duplicate_box", id="the same line twice"),
    ],
)
def test_a_picture_with_one_good_box_left_is_a_single(tmp_path: Path, label: str, kind: str) -> None:
    scan = read_yolo(write_with(tmp_path, label))
    assert kinds(scan) == [kind]
    assert scan.records.column("task").tolist() == ["single", "single"]
    assert scan.records.boxes_xyxy(1)[0, 2] <= 96


def test_a_picture_without_a_label_file_is_left_out(tmp_path: Path) -> None:
    write_image(write_yolo(tmp_path) / "images" / "train" / "new.jpg")
    scan = read_yolo(tmp_path)
    assert [(problem.kind, problem.path) for problem in scan.problems] == [("missing_label", "images/train/new.jpg")]
    assert "images/train/new.jpg" not in paths(scan)


def test_a_label_without_its_picture_is_a_problem(tmp_path: Path) -> None:
    (write_yolo(tmp_path) / "images" / "train" / "a0.jpg").unlink()
    assert [(problem.kind, problem.path) for problem in read_yolo(tmp_path).problems] == [
        ("missing_image", "labels/train/a0.txt")
    ]


def test_a_class_list_among_the_labels_is_no_label(tmp_path: Path) -> None:
    (write_yolo(tmp_path) / "labels" / "classes.txt").write_text("alpha\nbeta\n")
    assert read_yolo(tmp_path).problems == []


def test_pictures_without_any_label_folder_are_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"only problems: missing_label 1; first: images/a\.jpg: has no label file"):
        read_yolo(tmp_path)


def test_other_files_among_the_pictures_are_passed_over(tmp_path: Path) -> None:
    (write_yolo(tmp_path) / "images" / "train" / "README.txt").write_text("licence")
    assert read_yolo(tmp_path).problems == []


def test_two_pictures_for_one_label_are_used_once(tmp_path: Path) -> None:
    write_image(write_yolo(tmp_path, {"train/a.jpg": [GOOD]}) / "images" / "train" / "a.png")
    scan = read_yolo(tmp_path)
    assert kinds(scan) == ["duplicate_stem"]
    assert paths(scan) == ["images/train/a.jpg"]


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "empty_image"), (b"not a picture" * 20, "broken_image")], ids=["no bytes", "text"]
)
def test_a_file_that_is_no_picture_is_left_out(tmp_path: Path, content: bytes, kind: str) -> None:
    (write_yolo(tmp_path) / "images" / "train" / "a0.jpg").write_bytes(content)
    scan = read_yolo(tmp_path)
    assert kinds(scan) == [kind]
    assert "images/train/a0.jpg" not in paths(scan)


def test_a_names_file_with_notes_is_named(tmp_path: Path) -> None:
    with (write_yolo(tmp_path) / "data.yaml").open("a") as file:
        file.write("\nnotes\nmore notes\n")
    scan = read_yolo(tmp_path)
    assert [(problem.kind, problem.path) for problem in scan.problems] == [("broken_names", "data.yaml")]


@pytest.mark.parametrize("pictures", [{}, {"train/a.jpg": [(5, 0.5, 0.5, 0.2, 0.2)]}], ids=["empty", "unusable"])
def test_no_usable_picture_is_an_error(
    tmp_path: Path, pictures: dict[str, Sequence[tuple[int, float, float, float, float]]]
) -> None:
    with pytest.raises(DataError, match=r"(?s)holds no usable picture.*ROOT/labels/\{train,val,test\}.*--demo"):
        read_yolo(write_yolo(tmp_path, pictures))


@needs_photographs
def test_the_photographs_of_single_pills_are_read_with_their_blemishes() -> None:
    scan = read_yolo(PHOTOGRAPHS / "drug1")
    assert len(scan.records) == 912  # 932 pictures, 20 of them without a label file
    assert Counter(kinds(scan)) == {"missing_label": 20, "missing_image": 20, "tiny_box": 1}
    assert len({code for code in scan.records.column("code") if code is not None}) == 31


@needs_photographs
def test_the_photographs_of_many_pills_are_read_with_all_their_boxes() -> None:
    scan = read_yolo(PHOTOGRAPHS / "pushin_pill")
    assert len(scan.records) == 267
    assert sum(len(scan.records.boxes_xyxy(row)) for row in range(len(scan.records))) == 1383
    assert kinds(scan) == ["broken_names"]  # its data.yaml has notes pasted below
