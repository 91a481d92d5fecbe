from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.folders import read_folders
from pillsnap.data.records import Records
from pillsnap.data.yolo import read_yolo
from pillsnap.data.yolo_export import export_yolo
from pillsnap.errors import DataError
from tests.builders import write_aihub, write_image

pytestmark = pytest.mark.req("DAT-2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_aihub(tmp_path / "약 data", singles={"K-000001": 1}, combos={"K-000001-000002": 3})


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def test_pictures_are_links_and_labels_are_of_one_class(root: Path, tmp_path: Path) -> None:
    records = read_aihub576(root).records
    data_yaml = export_yolo(records, {"train": rows(0, 1), "val": rows(2)}, root, tmp_path / "out")
    images = sorted((tmp_path / "out" / "images" / "train").iterdir())
    assert len(images) == 2
    assert all(image.is_symlink() for image in images)
    assert {image.resolve() for image in images} == {(root / records.image_path(row)).resolve() for row in (0, 1)}
    label = tmp_path / "out" / "labels" / "train" / f"{images[0].stem}.txt"
    # 96x128 px; boxes 2..46 and 50..94 wide, 10..40 high
    assert label.read_text() == "0 0.250000 0.195312 0.458333 0.234375\n0 0.750000 0.195312 0.458333 0.234375\n"
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    assert content["names"] == {0: "pill"}
    assert (Path(content["path"]) / content["val"]).is_dir()


def test_what_was_exported_is_read_back_the_same(root: Path, tmp_path: Path) -> None:
    records = read_aihub576(root).records
    export_yolo(records, {"train": rows(0, 1, 2), "val": rows(3)}, root, tmp_path / "out")
    back = read_yolo(tmp_path / "out")
    assert back.problems == []
    by_id = {f"{int(number):016x}": row for row, number in enumerate(records.column("sample_id"))}
    for row, path in enumerate(back.records.column("image_path")):
        original = by_id[Path(path).stem]
        np.testing.assert_allclose(back.records.boxes_xyxy(row), records.boxes_xyxy(original), atol=1e-3)
    assert back.records.column("part").tolist() == ["train"] * 3 + ["val"]


def test_pictures_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    for drug in ("alpha", "beta"):
        write_image(tmp_path / "in" / drug / "1.jpg")
    export_yolo(read_folders(tmp_path / "in").records, {"train": rows(0, 1)}, tmp_path / "in", tmp_path / "out")
    assert len(list((tmp_path / "out" / "images" / "train").iterdir())) == 2


def test_the_same_export_again_changes_nothing(root: Path, tmp_path: Path) -> None:
    records = read_aihub576(root).records
    first = export_yolo(records, {"train": rows(0)}, root, tmp_path / "out").stat()
    assert export_yolo(records, {"train": rows(0)}, root, tmp_path / "out").stat().st_ino == first.st_ino


def test_another_split_replaces_the_earlier_export(root: Path, tmp_path: Path) -> None:
    records = read_aihub576(root).records
    export_yolo(records, {"train": rows(0, 1)}, root, tmp_path / "out")
    export_yolo(records, {"train": rows(2), "val": rows(0)}, root, tmp_path / "out")
    assert len(list((tmp_path / "out" / "labels" / "train").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_written_into_the_data(root: Path, tmp_path: Path) -> None:
    before = sorted(root.rglob("*"))
    export_yolo(read_aihub576(root).records, {"train": rows(0, 1, 2, 3)}, root, tmp_path / "out")
    assert sorted(root.rglob("*")) == before


def test_a_folder_with_something_else_is_not_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.yaml").write_text("names: [mine]\n")
    with pytest.raises(DataError, match="holds something other than detection data .* which is not replaced"):
        export_yolo(read_aihub576(root).records, {"train": rows(0)}, root, tmp_path / "out")
    assert (tmp_path / "out" / "data.yaml").read_text() == "names: [mine]\n"


def test_an_empty_folder_is_used(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export_yolo(Records.from_pictures([]), {}, root, tmp_path / "out").is_file()


def test_a_file_system_without_links_is_an_error_that_leaves_nothing_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported", str(self), None, str(target))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(DataError, match=r"cannot be written to .*out \(Operation not supported\)"):
        export_yolo(read_aihub576(root).records, {"train": rows(0)}, root, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["약 data"]
