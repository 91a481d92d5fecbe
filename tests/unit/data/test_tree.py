from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillsnap.data.tree import DataTree, FileEntry, no_pictures_error, require_folder
from pillsnap.errors import DataError

pytestmark = pytest.mark.req("DAT-2")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_files_come_in_the_same_order_whatever_the_order_of_creation(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/1.png", "c/d/3.png"):
        touch(tmp_path / name)
    assert [file.path for file in DataTree(tmp_path).files()] == ["a.png", "b/1.png", "b/2.png", "c/d/3.png"]


def test_hidden_files_and_folders_are_passed_over_silently(tmp_path: Path) -> None:
    touch(tmp_path / "._a.png")
    touch(tmp_path / ".cache" / "b.png")
    tree = DataTree(tmp_path)
    assert list(tree.files()) == []
    assert tree.problems == []


def test_linked_folders_on_another_disk_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "disk2" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "disk2")
    assert [file.path for file in DataTree(tmp_path / "root").files()] == ["link/a.png"]


@pytest.mark.timeout(20)
def test_a_link_to_a_folder_above_is_a_problem_and_not_an_endless_walk(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "a.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    tree = DataTree(tmp_path)
    assert [file.path for file in tree.files()] == ["sub/a.png"]
    assert [(problem.kind, problem.path) for problem in tree.problems] == [("link_loop", "sub/up")]


@pytest.mark.timeout(20)
def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        touch(tmp_path / name / "a.png")
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    tree = DataTree(tmp_path / "one")
    assert [file.path for file in tree.files()] == ["a.png", "link/a.png"]
    assert [problem.kind for problem in tree.problems] == ["link_loop"]


def test_a_link_to_nowhere_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "not_mounted" / "a.png")
    tree = DataTree(tmp_path)
    assert list(tree.files()) == []
    assert [(problem.kind, problem.path) for problem in tree.problems] == [("broken_link", "a.png")]
    assert "is a disk not mounted?" in tree.problems[0].detail


def test_a_name_in_another_encoding_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    name = os.fsdecode("약.png".encode("cp949"))
    touch(tmp_path / name)
    tree = DataTree(tmp_path)
    assert list(tree.files()) == []
    assert tree.problems[0].kind == "bad_file_name"
    assert tree.problems[0].path.encode()


def test_an_unreadable_folder_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _flags: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\).*must be readable.*chmod -R u\+rX"):
        DataTree(tmp_path).children()


def test_a_missing_root_names_the_folder_the_layout_and_the_demo(tmp_path: Path) -> None:
    missing = tmp_path / "not here" / "data"
    with pytest.raises(DataError) as error:
        require_folder(missing, "  ROOT/images")
    text = str(error.value)
    assert f"{missing} does not exist (of its path, {tmp_path} exists)" in text
    assert "  ROOT/images" in text
    assert "Set data.root=FOLDER" in text
    assert "bash scripts/train.sh --demo" in text


def test_a_file_as_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file, not a folder"):
        require_folder(touch(tmp_path / "data.zip"), "layout")


def test_the_error_for_no_pictures_says_that_the_folder_is_empty(tmp_path: Path) -> None:
    assert "holds no usable picture (it is empty)" in str(no_pictures_error(tmp_path, "layout", []))


def test_suffixes_are_read_in_any_case() -> None:
    entry = FileEntry("a/b.c.JPG", 1, 0)
    assert (entry.name, entry.stem, entry.suffix, entry.is_image) == ("b.c.JPG", "b.c", ".jpg", True)
