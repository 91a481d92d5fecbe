from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pillsnap.data import aihub576_units
from pillsnap.data.index import CACHE_FORMAT, detect_reader, load_index
from pillsnap.data.records import Records, Scan
from pillsnap.errors import ConfigError, DataError
from tests.builders import aihub_single_dirs, write_aihub, write_folders, write_image, write_yolo

pytestmark = pytest.mark.req("DAT-4")

SMALL = {"K-000001": 2}


def same(one: Scan, other: Scan) -> bool:
    tables_are_equal = one.records.table.equals(other.records.table)
    return tables_are_equal and one.problems == other.problems and one.names == other.names


@pytest.fixture
def no_label_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_text: bytes) -> None:
        raise AssertionError("a label file was opened")

    monkeypatch.setattr(aihub576_units, "parse_pill_label", refuse)


def test_the_second_start_reads_no_label_file(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_aihub(tmp_path / "약 data", singles=SMALL, combos={"K-000001-000002": 1})
    next((root / "train" / "labels").rglob("*.json")).write_bytes(b"{")
    first = load_index(root, cache_dir=tmp_path / "cache")
    assert first.problems
    assert first.names
    request.getfixturevalue("no_label_can_be_read")
    caplog.set_level(logging.INFO, "pillsnap")
    assert same(first, load_index(root, cache_dir=tmp_path / "cache"))
    assert "from the label cache" in caplog.text


def test_a_data_set_reached_by_another_path_uses_the_same_cache(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = write_aihub(tmp_path / "a", singles=SMALL, combos={})
    first = load_index(root, cache_dir=tmp_path / "cache")
    (tmp_path / "link").symlink_to(root)
    request.getfixturevalue("no_label_can_be_read")
    assert same(first, load_index(tmp_path / "link", cache_dir=tmp_path / "cache"))


def test_a_new_picture_makes_the_cache_out_of_date(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_folders(tmp_path / "data")
    load_index(root, cache_dir=tmp_path / "cache")
    write_image(root / "alpha" / "new.jpg")
    caplog.set_level(logging.INFO, "pillsnap")
    assert len(load_index(root, cache_dir=tmp_path / "cache").records) == 9
    assert "the data set has changed since" in caplog.text


def test_a_label_changed_in_place_makes_the_cache_out_of_date(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"train/a.jpg": [(0, 0.5, 0.5, 0.2, 0.2)]})
    load_index(root, cache_dir=tmp_path / "cache")
    label = root / "labels" / "train" / "a.txt"
    label.write_text("1 0.5 0.5 0.2 0.2\n")  # as long as before
    os.utime(label, ns=(1, 1))
    assert load_index(root, cache_dir=tmp_path / "cache").records.column("code")[0] == "beta"


def test_renamed_classes_make_the_cache_out_of_date(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"train/a.jpg": [(0, 0.5, 0.5, 0.2, 0.2)]})
    load_index(root, cache_dir=tmp_path / "cache")
    (root / "data.yaml").write_text("names: [gamma, delta]\n")
    assert load_index(root, cache_dir=tmp_path / "cache").records.column("code")[0] == "gamma"


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_without_metadata(path: Path) -> None:
    Records.from_pictures([]).write(path)


def write_text(path: Path) -> None:
    path.write_text("not Arrow")


@pytest.mark.parametrize("damage", [cut_in_half, write_without_metadata, write_text])
def test_a_damaged_cache_is_rebuilt_and_the_log_says_so(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folders(tmp_path / "data")
    first = load_index(root)
    load_index(root, cache_dir=tmp_path / "cache")
    (cache_file,) = (tmp_path / "cache").iterdir()
    damage(cache_file)
    assert same(first, load_index(root, cache_dir=tmp_path / "cache"))
    assert f"the label cache {cache_file} is damaged" in caplog.text
    caplog.clear()
    assert same(first, load_index(root, cache_dir=tmp_path / "cache"))
    assert "damaged" not in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    scan = load_index(write_folders(tmp_path / "data"), cache_dir=tmp_path / "cache")
    assert len(scan.records) == 8
    assert "cannot be written" in caplog.text


def test_nothing_is_written_into_the_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_folders(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    assert len(load_index(root, cache_dir=root / "alpha" / "cache").records) == 8
    assert sorted(tmp_path.rglob("*")) == before
    assert "lies in the data set, which is not written to" in caplog.text


def test_a_cache_beside_the_parts_of_the_data_set_is_used(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = write_aihub(tmp_path, singles=SMALL, combos={})  # config.yaml's own paths lie like this
    first = load_index(root, cache_dir=root / "exp" / "cache")
    (root / "exp" / "log.txt").write_text("files of a run")
    request.getfixturevalue("no_label_can_be_read")
    assert same(first, load_index(root, cache_dir=root / "exp" / "cache"))


def test_two_readers_of_one_folder_have_their_own_caches(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"train/a.jpg": [(0, 0.5, 0.5, 0.2, 0.2)]})
    by_yolo = load_index(root, "yolo", tmp_path / "cache")
    by_folders = load_index(root, "folders", tmp_path / "cache")
    assert [scan.records.column("source")[0] for scan in (by_yolo, by_folders)] == ["yolo", "folders"]


def test_another_cache_format_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folders(tmp_path / "data")
    load_index(root, cache_dir=tmp_path / "cache")
    monkeypatch.setattr("pillsnap.data.index.CACHE_FORMAT", CACHE_FORMAT + "x")
    load_index(root, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.req("DAT-2")
def test_the_reader_is_found_from_how_the_data_lie(tmp_path: Path) -> None:
    write_aihub(tmp_path / "a", singles=SMALL, combos={})
    write_aihub(tmp_path / "b" / "data", singles={}, combos={"K-000001-000002": 1})
    write_yolo(tmp_path / "c")
    write_yolo(tmp_path / "d" / "train", {"a.jpg": []}, names=None)
    write_folders(tmp_path / "e", parts=["train"])
    write_folders(tmp_path / "f")
    found = [detect_reader(tmp_path / letter) for letter in "abcdef"]
    assert found == ["aihub576", "aihub576", "yolo", "yolo", "folders", "folders"]


@pytest.mark.req("DAT-2")
def test_data_that_lie_like_nothing_known_are_an_error_that_shows_the_ways(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match=r"(?s)holds \['photo.jpg'\].*AI Hub 576.*YOLO format.*one folder per drug"):
        detect_reader(tmp_path)


@pytest.mark.req("DAT-2")
def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds nothing"):
        load_index(tmp_path)


@pytest.mark.req("DAT-2")
@pytest.mark.parametrize("reader", ["auto", "aihub576", "yolo", "folders"])
def test_a_missing_folder_is_named_with_the_way_data_must_lie_and_the_demo(tmp_path: Path, reader: str) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(DataError, match=rf"(?s){missing} does not exist.*must lie like this:.*ROOT.*--demo") as error:
        load_index(missing, reader)
    assert error.value.exit_code == 3


@pytest.mark.req("DAT-2")
def test_an_unknown_reader_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.reader is 'coco'; there are auto, aihub576, yolo, folders"):
        load_index(tmp_path, "coco")


@pytest.mark.req("DAT-2")
def test_an_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_aihub(tmp_path, singles=SMALL, combos={})
    closed = aihub_single_dirs(root, "K-000001")[1]
    open_file = os.open

    def refuse(path: Path, flags: int, *rest: int, **others: int) -> int:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied")
        return open_file(path, flags, *rest, **others)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=f"{closed} cannot be read"):
        load_index(root)
