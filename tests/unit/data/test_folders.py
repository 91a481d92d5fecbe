from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.data.folders import read_folders
from pillsnap.errors import DataError
from tests.builders import write_folders, write_image

pytestmark = pytest.mark.req("DAT-2")


def test_the_folder_is_the_class(tmp_path: Path) -> None:
    scan = read_folders(write_folders(tmp_path, {"타이레놀 500": 1, "beta": 1}))
    assert scan.records.column("code").tolist() == ["beta", "타이레놀 500"]
    assert set(scan.records.column("task")) == {"single"}
    assert len(scan.records.boxes_xyxy(0)) == 0
    assert (scan.records.column("width")[0], scan.records.column("height")[0]) == (96, 128)
    assert scan.problems == []


@pytest.mark.parametrize(("folder", "part"), [("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test")])
def test_part_folders_on_top_are_the_parts(tmp_path: Path, folder: str, part: str) -> None:
    scan = read_folders(write_folders(tmp_path, {"alpha": 1}, parts=[folder]))
    assert scan.records.column("part").tolist() == [part]
    assert scan.records.column("code").tolist() == ["alpha"]


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    scan = read_folders(write_folders(tmp_path, {"test": 1, "placebo": 1}))
    assert scan.records.column("code").tolist() == ["placebo", "test"]


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    write_image(tmp_path / "alpha" / "front" / "1.jpg")
    write_image(tmp_path / "alpha" / "back" / "1.jpg")
    scan = read_folders(tmp_path)
    assert scan.records.column("code").tolist() == ["alpha", "alpha"]
    assert scan.records.column("group").tolist() == ["alpha|back/1", "alpha|front/1"]


def test_copies_of_one_photograph_are_one_group(tmp_path: Path) -> None:
    for name in ("1_jpg.rf.a.jpg", "1_jpg.rf.b.jpg", "2.JPG"):
        write_image(tmp_path / "alpha" / name)
    assert set(read_folders(tmp_path).records.column("group")) == {"alpha|1_jpg", "alpha|2"}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path)
    write_image(tmp_path / "loose.jpg")
    (tmp_path / "gamma").mkdir()
    (tmp_path / "alpha" / "none.jpg").write_bytes(b"")
    (tmp_path / "alpha" / "text.jpg").write_bytes(b"not a picture" * 20)
    scan = read_folders(tmp_path)
    assert [(problem.kind, problem.path) for problem in scan.problems] == [
        ("empty_image", "alpha/none.jpg"),
        ("broken_image", "alpha/text.jpg"),
        ("empty_class", "gamma"),
        ("stray_image", "loose.jpg"),
    ]
    assert len(scan.records) == 8


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)it is empty.*ROOT/<drug>/\*\.jpg"):
        read_folders(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_folders(tmp_path / "nowhere")
