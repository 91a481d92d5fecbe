from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pillsnap.data import aihub576_units
from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.aihub576_labels import PillLabel, parse_pill_label
from pillsnap.data.index import load_index
from pillsnap.data.records import Scan
from pillsnap.data.scan_units import UnitJob
from tests.builders import (
    aihub_combo_dirs,
    aihub_label,
    aihub_single_dirs,
    aihub_stem,
    write_aihub,
    write_folders,
    write_image,
    write_json,
    write_yolo,
)

pytestmark = pytest.mark.req("DAT-4")

SINGLES = {f"K-{number:06d}": 3 for number in range(1, 13)}
COMBOS = {f"K-{number:06d}-{number + 1:06d}": 2 for number in range(1, 9)}


def assert_same(one: Scan, other: Scan) -> None:
    assert one.records.table.equals(other.records.table)
    assert list(one.problems) == list(other.problems)
    assert one.names == other.names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of AI Hub's layout with something wrong in many of its folders."""
    root = write_aihub(tmp_path / "data", singles=SINGLES, combos=COMBOS, val_singles={"K-000009": 2, "K-000099": 1})
    choice = random.Random(0)
    for label in choice.sample(sorted(root.rglob("*.json")), 12):
        label.write_bytes(choice.choice([b"{", b"", b'{"images": [{}]}']))
    for image in choice.sample(sorted(root.rglob("*.png")), 8):
        image.write_bytes(b"\x89PNG")
    return root


@pytest.fixture
def many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit is a job of its own, and helpers start at once."""
    monkeypatch.setattr("pillsnap.data.scan.jobs_of", lambda folder, units: [UnitJob(folder, [unit]) for unit in units])
    monkeypatch.setattr("pillsnap.data.scan.WORTH_READING_S", 0.0)
    monkeypatch.setattr("pillsnap.data.scan.WORTH_LOOKING_S", 0.0)


@pytest.mark.usefixtures("many_jobs")
@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_nothing(root: Path, processes: int) -> None:
    alone = read_aihub576(root, 1)
    assert alone.problems
    assert_same(read_aihub576(root, processes), alone)


class Editor:
    """Makes one random change in a data set."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.count = 0

    def edit(self) -> None:
        """Make one change of a random kind."""
        self.count += 1
        kinds: list[Callable[[], object]] = [
            self.add_picture,
            self.remove_picture,
            self.remove_label,
            self.rename_picture,
            self.rewrite_label,
            self.break_label,
            self.touch_label,
            self.add_drug,
            self.add_stray_files,
            self.remove_folder,
            self.move_to_another_disk,
            self.cut_off_a_new_picture,
            self.add_a_label_twice,
            self.nest_pictures,
        ]
        self.random.choice(kinds)()

    def any_file(self, pattern: str) -> Path:
        return self.random.choice(sorted(self.root.rglob(pattern)))

    def add_picture(self) -> None:
        images, labels = aihub_single_dirs(self.root, self.random.choice(sorted(SINGLES)))
        stem = aihub_stem(images.name, 100 + self.count)
        write_image(images / f"{stem}.png")
        write_json(labels / f"{stem}.json", aihub_label(f"{stem}.png", images.name, (1, 2, 30, 40)))

    def remove_picture(self) -> None:
        self.any_file("*.png").unlink()

    def remove_label(self) -> None:
        self.any_file("*.json").unlink()

    def rename_picture(self) -> None:
        image = self.any_file("*.png")
        image.rename(image.with_stem(f"renamed{self.count}"))

    def rewrite_label(self) -> None:
        label = self.any_file("*.json")
        label.write_bytes(label.read_bytes().replace(b"32", b"31").replace(b"24", b"23"))

    def break_label(self) -> None:
        self.any_file("*.json").write_bytes(b'{"images": [')

    def touch_label(self) -> None:
        os.utime(self.any_file("*.json"))

    def add_drug(self) -> None:
        code = f"K-{1000 + self.count:06d}"
        write_aihub(self.root, singles={code: 1}, combos={f"K-000001-{code[2:]}": 1})

    def add_stray_files(self) -> None:
        write_image(self.root / "train" / "images" / "single" / "TS_1_single" / f"overview{self.count}.png")
        write_json(aihub_combo_dirs(self.root, sorted(COMBOS)[0])[1] / f"notes{self.count}.json", {})

    def remove_folder(self) -> None:
        shutil.rmtree(self.any_file("*.png").parent)

    def move_to_another_disk(self) -> None:
        folder = self.any_file("*.png").parent
        disk = self.root.parent / f"disk{self.count}"
        shutil.move(folder.resolve(), disk)
        folder.unlink(missing_ok=True)
        folder.symlink_to(disk)

    def cut_off_a_new_picture(self) -> None:
        image = self.any_file("*.png")
        image.unlink()
        image.write_bytes(b"\x89PNG")

    def add_a_label_twice(self) -> None:
        label = self.any_file("*.json")
        copy = Path(str(label).replace("L_1_", "L_2_"))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(label, copy)

    def nest_pictures(self) -> None:
        image = self.any_file("*.png")
        (image.parent / "nested").mkdir(exist_ok=True)
        image.rename(image.parent / "nested" / image.name)


@pytest.mark.parametrize("seed", range(4))
def test_after_any_changes_the_cache_gives_what_a_fresh_reading_gives(tmp_path: Path, root: Path, seed: int) -> None:
    load_index(root, cache_dir=tmp_path / "cache")
    editor = Editor(root, seed)
    for _ in range(12):
        for _ in range(editor.random.choice([1, 1, 4])):
            editor.edit()
        assert_same(load_index(root, cache_dir=tmp_path / "cache"), load_index(root))


def test_only_what_changed_is_read_again(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load_index(root, cache_dir=tmp_path / "cache")
    label = aihub_single_dirs(root, "K-000003")[1] / f"{aihub_stem('K-000003', 1)}.json"
    label.write_bytes(b"{")
    parsed: list[bytes] = []

    def note(text: bytes) -> PillLabel:
        parsed.append(text)
        return parse_pill_label(text)

    monkeypatch.setattr(aihub576_units, "parse_pill_label", note)
    caplog.set_level(logging.INFO, "pillsnap")
    load_index(root, cache_dir=tmp_path / "cache")
    assert b"{" in parsed
    assert len(parsed) <= 3
    assert "reading 1 of its 21 parts again" in caplog.text


@pytest.mark.usefixtures("many_jobs")
def test_several_processes_look_again_as_one_does(tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_index(root, cache_dir=tmp_path / "cache")
    caplog.set_level(logging.INFO, "pillsnap")
    assert_same(load_index(root, cache_dir=tmp_path / "cache", processes=3), first)
    assert "from the label cache" in caplog.text


def test_a_link_to_a_picture_that_leads_nowhere_for_a_while_is_noticed_both_times(tmp_path: Path, root: Path) -> None:
    image = sorted(aihub_single_dirs(root, "K-000005")[0].iterdir())[0]
    elsewhere = tmp_path / "disk2.png"
    shutil.copy(image, elsewhere)
    image.unlink()
    image.symlink_to(elsewhere)
    counts = []
    for name, other in (("disk2.png", "away.png"), ("away.png", "disk2.png"), ("disk2.png", "disk2.png")):
        counts.append(len(load_index(root, cache_dir=tmp_path / "cache").records))
        (tmp_path / name).rename(tmp_path / other)
    assert counts == [counts[0], counts[0] - 1, counts[0]]


def test_a_label_that_may_be_read_again_is_read_though_no_time_has_changed(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = aihub_stem("K-000004", 0)
    open_file = os.open

    def refuse(path: str, *rest: int, dir_fd: int | None = None) -> int:
        if path == f"{stem}.json":
            raise PermissionError(13, "Permission denied", path)
        return open_file(path, *rest, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        problems = load_index(root, cache_dir=tmp_path / "cache").problems
    assert [f"'{root}/train/labels" in problem.detail for problem in problems if stem in problem.path] == [True]
    assert_same(load_index(root, cache_dir=tmp_path / "cache"), load_index(root))


@pytest.mark.parametrize("write", [write_yolo, write_folders], ids=["yolo", "folders"])
def test_pictures_of_other_readers_are_noticed_when_rewritten(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = write(tmp_path / "data")
    first = load_index(root, cache_dir=tmp_path / "cache")
    write_image(sorted(root.rglob("*.jpg"))[0], (48, 64))
    again = load_index(root, cache_dir=tmp_path / "cache")
    assert_same(again, load_index(root))
    assert not again.records.table.equals(first.records.table)


def test_a_label_folder_that_comes_later_is_noticed(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    (root / "labels").rename(tmp_path / "labels")
    with pytest.raises(Exception, match="holds no usable picture"):
        load_index(root, "yolo", tmp_path / "cache")
    (tmp_path / "labels").rename(root / "labels")
    assert_same(load_index(root, "yolo", tmp_path / "cache"), load_index(root, "yolo"))
