from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.records import Scan
from pillsnap.errors import DataError
from tests.builders import (
    aihub_combo_dirs,
    aihub_label,
    aihub_single_dirs,
    aihub_stem,
    write_aihub,
    write_image,
    write_json,
)

pytestmark = pytest.mark.req("DAT-2")

CODE = "K-000001"
COMBO = "K-000001-000002"
STEM = aihub_stem(CODE, 0)
COMBO_STEM = aihub_stem(COMBO, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures of one drug and two of one combination."""
    return write_aihub(tmp_path / "data set", singles={CODE: 2}, combos={COMBO: 2})


def single_image(root: Path) -> Path:
    return aihub_single_dirs(root, CODE)[0] / f"{STEM}.png"


def single_label(root: Path) -> Path:
    return aihub_single_dirs(root, CODE)[1] / f"{STEM}.json"


def combo_image(root: Path) -> Path:
    return aihub_combo_dirs(root, COMBO)[0] / f"{COMBO_STEM}.png"


def combo_label(root: Path, code: str = CODE) -> Path:
    return aihub_combo_dirs(root, COMBO)[1] / code / f"{COMBO_STEM}.json"


def kinds(scan: Scan) -> list[str]:
    return [problem.kind for problem in scan.problems]


def stems(scan: Scan) -> list[str]:
    return [Path(path).stem for path in scan.records.column("image_path").tolist()]


def row_of(scan: Scan, stem: str) -> int:
    return stems(scan).index(stem)


def test_a_single_picture_has_its_folder_as_class_and_its_angle_grid_as_group(root: Path) -> None:
    scan = read_aihub576(root)
    row = scan.records.table.slice(row_of(scan, STEM), 1).to_pylist()[0]
    assert (row["task"], row["code"], row["group"], row["part"]) == ("single", CODE, f"{CODE}|0|0|0", "train")
    assert row["boxes_xyxy"] == [24, 32, 56, 74]  # x, y, w, h = 24, 32, 32, 42 in the label
    assert (row["width"], row["height"], row["source"]) == (96, 128, "aihub576")
    assert scan.problems == []


def test_the_boxes_of_a_combination_are_united_over_its_pill_folders(root: Path) -> None:
    scan = read_aihub576(root)
    row = row_of(scan, COMBO_STEM)
    assert scan.records.box_codes(row) == ["K-000001", "K-000002"]
    np.testing.assert_array_equal(scan.records.boxes_xyxy(row), [[2, 10, 46, 40], [50, 10, 94, 40]])
    assert scan.records.column("group")[row] == COMBO
    assert scan.records.column("code")[row] is None


def test_drug_names_come_from_the_labels(root: Path) -> None:
    assert read_aihub576(root).names == {"K-000001": "약 1정", "K-000002": "약 2정"}


def test_a_data_level_below_the_root_makes_no_difference_but_in_the_paths(root: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    (above / "data").symlink_to(root)
    plain, nested = read_aihub576(root), read_aihub576(above)
    assert nested.records.column("image_path").tolist() == [
        f"data/{path}" for path in plain.records.column("image_path").tolist()
    ]


def test_pictures_of_the_validation_part_keep_their_part(tmp_path: Path) -> None:
    scan = read_aihub576(write_aihub(tmp_path, singles={CODE: 1}, combos={}, val_singles={"K-000009": 1}))
    assert scan.records.column("part").tolist() == ["train", "val"]


def test_korean_folder_names_and_spaces_work(tmp_path: Path) -> None:
    scan = read_aihub576(write_aihub(tmp_path / "경구약제 이미지 (1)", singles={CODE: 1}, combos={}))
    assert len(scan.records) == 1


def test_a_class_folder_on_another_disk_is_read_through_its_link(root: Path, tmp_path: Path) -> None:
    images, _ = aihub_single_dirs(root, CODE)
    images.rename(tmp_path / "disk2")
    images.symlink_to(tmp_path / "disk2")
    assert len(read_aihub576(root).records) == 4


def test_hidden_files_of_an_archive_are_no_problem(root: Path) -> None:
    write_image(single_image(root).with_name(f"._{STEM}.png"))
    single_label(root).with_name(f"._{STEM}.json").write_bytes(b"\x00\x05\x16\x07")
    scan = read_aihub576(root)
    assert (len(scan.records), scan.problems) == (4, [])


def test_a_single_picture_without_label_is_used_without_a_box(root: Path) -> None:
    single_label(root).unlink()
    scan = read_aihub576(root)
    row = row_of(scan, STEM)
    assert kinds(scan) == ["missing_label"]
    assert scan.records.column("code")[row] == CODE
    assert scan.records.boxes_xyxy(row).shape == (0, 4)
    assert (scan.records.column("width")[row], scan.records.column("height")[row]) == (96, 128)


@pytest.mark.parametrize("content", [b'{"images": [', b"\xbe\xe0", b"{}"], ids=["cut off", "not UTF-8", "no images"])
def test_a_broken_label_costs_a_single_picture_only_its_box(root: Path, content: bytes) -> None:
    single_label(root).write_bytes(content)
    scan = read_aihub576(root)
    assert kinds(scan) == ["broken_json"]
    assert scan.problems[0].path == single_label(root).relative_to(root).as_posix()
    assert "the picture is used without its box" in scan.problems[0].detail
    assert len(scan.records.boxes_xyxy(row_of(scan, STEM))) == 0


def test_a_broken_label_makes_a_combination_unusable(root: Path) -> None:
    combo_label(root).write_bytes(b"{")
    scan = read_aihub576(root)
    assert kinds(scan) == ["broken_json"]
    assert "the picture is left out" in scan.problems[0].detail
    assert COMBO_STEM not in stems(scan)


def test_a_combination_with_an_unlabelled_pill_is_left_out(root: Path) -> None:
    combo_label(root, "K-000002").unlink()
    scan = read_aihub576(root)
    assert kinds(scan) == ["missing_box"]
    assert "has no box for K-000002; left out" in scan.problems[0].detail
    assert COMBO_STEM not in stems(scan)


def test_a_combination_whose_label_has_no_box_is_left_out(root: Path) -> None:
    write_json(combo_label(root), aihub_label(f"{COMBO_STEM}.png", CODE, ()))
    scan = read_aihub576(root)
    assert kinds(scan) == ["missing_box"]
    assert len(scan.records) == 3


def test_a_combination_without_any_label_is_left_out(root: Path) -> None:
    for code in ("K-000001", "K-000002"):
        combo_label(root, code).unlink()
    scan = read_aihub576(root)
    assert kinds(scan) == ["missing_label"]
    assert COMBO_STEM not in stems(scan)


@pytest.mark.parametrize("image", [single_image, combo_image], ids=["single", "combo"])
def test_labels_without_their_picture_are_one_problem(root: Path, image: Callable[[Path], Path]) -> None:
    image(root).unlink()
    scan = read_aihub576(root)
    assert kinds(scan) == ["missing_image"]
    assert len(scan.records) == 3


def test_the_stray_index_picture_of_a_combination_is_no_record(root: Path) -> None:
    stray = write_image(combo_image(root).with_name(f"{COMBO}_index.png"))
    scan = read_aihub576(root)
    assert [(problem.kind, problem.path) for problem in scan.problems] == [
        ("stray_image", stray.relative_to(root).as_posix())
    ]
    assert len(scan.records) == 4


@pytest.mark.parametrize("size", [0, 40])
def test_pictures_of_no_or_few_bytes_are_left_out_without_opening_them(root: Path, size: int) -> None:
    single_image(root).write_bytes(b"\x89" * size)
    scan = read_aihub576(root)
    assert kinds(scan) == ["empty_image"]
    assert f"has {size} bytes" in scan.problems[0].detail
    assert STEM not in stems(scan)


def test_the_second_picture_of_the_same_name_is_left_out(root: Path) -> None:
    twin = write_image(root / "train" / "images" / "single" / "TS_2_single" / CODE / f"{STEM}.png")
    scan = read_aihub576(root)
    assert [(problem.kind, problem.path) for problem in scan.problems] == [
        ("duplicate_stem", twin.relative_to(root).as_posix())
    ]
    assert len(scan.records) == 4


def test_a_picture_of_train_that_also_lies_in_val_is_used_once(root: Path) -> None:
    images, labels = aihub_single_dirs(root, CODE, part="val", letter="V")
    write_image(images / f"{STEM}.png")
    write_json(labels / f"{STEM}.json", aihub_label(f"{STEM}.png", CODE, (1, 1, 9, 9)))
    scan = read_aihub576(root)
    assert kinds(scan) == ["duplicate_stem"]
    assert set(scan.records.column("part").tolist()) == {"train"}


@pytest.mark.parametrize("label", [single_label, combo_label], ids=["single", "combo"])
def test_a_second_label_of_the_same_pill_is_not_united(root: Path, label: Callable[[Path], Path]) -> None:
    first = label(root)
    other = Path(str(first).replace("TL_1_", "TL_2_"))
    write_json(other, aihub_label(first.with_suffix(".png").name, CODE, (1, 1, 9, 9)))
    scan = read_aihub576(root)
    assert kinds(scan) == ["duplicate_stem"]
    assert len(scan.records.boxes_xyxy(row_of(scan, first.stem))) == first.stem.partition("_")[0].count("-")


def test_a_label_that_names_another_drug_makes_the_picture_unusable(root: Path) -> None:
    write_json(single_label(root), aihub_label(f"{STEM}.png", "K-000777", (1, 1, 9, 9)))
    scan = read_aihub576(root)
    assert kinds(scan) == ["code_mismatch"]
    assert "names K-000001 and K-000777 for a picture of K-000001; left out" in scan.problems[0].detail
    assert STEM not in stems(scan)


@pytest.mark.parametrize("code", ["K-000002", "K-000777"], ids=["of another folder", "of another combination"])
def test_a_pill_label_in_the_wrong_folder_makes_the_combination_unusable(root: Path, code: str) -> None:
    write_json(combo_label(root), aihub_label(f"{COMBO_STEM}.png", code, (1, 1, 9, 9)))
    scan = read_aihub576(root)
    assert kinds(scan) == ["code_mismatch"]
    assert COMBO_STEM not in stems(scan)


def test_category_ids_are_not_looked_at(root: Path) -> None:
    content = aihub_label(f"{STEM}.png", CODE, (1, 1, 9, 9))
    content["annotations"][0]["category_id"] = "nonsense"
    del content["categories"]
    write_json(single_label(root), content)
    assert read_aihub576(root).problems == []


def drifted(content: dict[str, Any]) -> dict[str, Any]:
    content["images"][0].update(width="96", height=None, item_seq="200000001", thick=0, dl_idx=0, dl_name=None)
    content["annotations"][0]["bbox"] = ["24", "32", 32, 42.0]
    return content


def test_drifting_types_change_nothing(root: Path) -> None:
    write_json(single_label(root), drifted(aihub_label(f"{STEM}.png", CODE, ())))
    scan = read_aihub576(root)
    row = row_of(scan, STEM)
    assert scan.problems == []
    np.testing.assert_array_equal(scan.records.boxes_xyxy(row), [[24, 32, 56, 74]])
    assert scan.records.column("height")[row] == 128  # from the picture's header


def test_the_size_in_the_label_saves_opening_the_picture(root: Path) -> None:
    single_image(root).write_bytes(b"not a picture" * 20)
    assert read_aihub576(root).problems == []


def test_without_a_size_in_the_label_a_file_that_is_no_picture_is_left_out(root: Path) -> None:
    single_image(root).write_bytes(b"not a picture" * 20)
    single_label(root).unlink()
    scan = read_aihub576(root)
    assert kinds(scan) == ["broken_image", "missing_label"]
    assert STEM not in stems(scan)


@pytest.mark.parametrize(
    ("box", "kind", "num_boxes"),
    [
        pytest.param((70, 32, 40, 42), "box_outside", 1, id="reaches out"),
        pytest.param((3000, 32, 40, 42), "box_outside", 0, id="outside"),
        pytest.param((24, 32, 0, 42), "zero_size_box", 0, id="zero width"),
    ],
)
def test_a_bad_box_of_a_single_picture_is_cut_or_dropped(
    root: Path, box: tuple[int, ...], kind: str, num_boxes: int
) -> None:
    write_json(single_label(root), aihub_label(f"{STEM}.png", CODE, box))
    scan = read_aihub576(root)
    assert kinds(scan) == [kind]
    boxes = scan.records.boxes_xyxy(row_of(scan, STEM))
    assert len(boxes) == num_boxes
    assert (boxes[:, 2] <= 96).all()


def test_a_combination_with_a_box_outside_is_left_out_once(root: Path) -> None:
    write_json(combo_label(root), aihub_label(f"{COMBO_STEM}.png", CODE, (3000, 10, 40, 40)))
    scan = read_aihub576(root)
    assert kinds(scan) == ["box_outside"]
    assert scan.problems[0].detail.endswith("the box is not used and the picture is left out")
    assert COMBO_STEM not in stems(scan)


def test_a_single_picture_with_an_empty_label_is_used_without_a_box(root: Path) -> None:
    write_json(single_label(root), aihub_label(f"{STEM}.png", CODE, ()))
    scan = read_aihub576(root)
    assert kinds(scan) == ["missing_box"]
    assert len(scan.records) == 4


def test_a_single_picture_with_two_boxes_keeps_the_first(root: Path) -> None:
    content = aihub_label(f"{STEM}.png", CODE, (1, 2, 9, 9))
    content["annotations"].append({"bbox": [50, 60, 9, 9]})
    write_json(single_label(root), content)
    scan = read_aihub576(root)
    assert kinds(scan) == ["extra_box"]
    np.testing.assert_array_equal(scan.records.boxes_xyxy(row_of(scan, STEM)), [[1, 2, 10, 11]])


def test_files_outside_the_drug_folders_are_named(root: Path) -> None:
    folder = root / "train" / "images" / "single" / "TS_1_single"
    write_image(folder / "overview.png")
    write_json(root / "train" / "labels" / "single" / "notes.json", {})
    assert kinds(read_aihub576(root)) == ["stray_image", "stray_label"]


def test_a_picture_outside_the_naming_grid_is_grouped_with_its_like(root: Path) -> None:
    images, labels = aihub_single_dirs(root, CODE)
    write_image(images / "photo.png")
    write_json(labels / "photo.json", aihub_label("photo.png", CODE, (1, 1, 9, 9)))
    scan = read_aihub576(root)
    assert scan.records.column("group")[row_of(scan, "photo")] == f"{CODE}|other"


def test_a_missing_root_tells_how_the_data_must_lie(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)does not exist.*ROOT/\{train,val\}/images/single.*train\.sh --demo"):
        read_aihub576(tmp_path / "nowhere")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no usable picture"):
        read_aihub576(tmp_path)


def test_a_folder_without_a_usable_picture_says_what_was_found(tmp_path: Path) -> None:
    write_aihub(tmp_path, singles={CODE: 1}, combos={})
    single_image(tmp_path).write_bytes(b"")
    with pytest.raises(DataError, match=r"only problems: empty_image 1; first: .*has 0 bytes"):
        read_aihub576(tmp_path)
