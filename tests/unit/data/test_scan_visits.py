from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pillsnap.data.scan_visits import NEVER, TICK_NS, Look, LookJob, Visits, look, look_again

pytestmark = pytest.mark.req("DAT-4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two watched labels, and files that are not watched."""
    for name in ("a.json", "b.JSON", "c.png", "._a.json", os.fsdecode("약.json".encode("cp949"))):
        (tmp_path / name).write_text(name if name.isascii() else "")
    return tmp_path


def seen(folder: Path, names: tuple[str, ...] = ()) -> Look:
    return look(folder, ".json", names)


def add(folder: Path) -> None:
    (folder / "e.png").touch()


def remove(folder: Path) -> None:
    (folder / "c.png").unlink()


def rename(folder: Path) -> None:
    (folder / "c.png").rename(folder / "f.png")


def rewrite(folder: Path) -> None:
    (folder / "a.json").write_text("longer than it was")


def touch(folder: Path) -> None:
    os.utime(folder / "b.JSON", ns=(1, 1))


@pytest.mark.parametrize("change", [add, remove, rename, rewrite, touch])
def test_a_change_is_seen(folder: Path, change: Callable[[Path], None]) -> None:
    before = seen(folder)
    assert seen(folder) == before
    change(folder)
    assert seen(folder) != before


def test_files_that_are_not_watched_can_be_rewritten(folder: Path) -> None:
    before = seen(folder)
    (folder / "c.png").write_text("longer than it was")
    assert seen(folder) == before


def test_a_watched_file_need_not_exist(folder: Path) -> None:
    before = seen(folder, ("later.yaml",))
    (folder / "later.yaml").touch()
    assert seen(folder, ("later.yaml",))[2] != before[2]


def test_what_a_reader_reads_is_seen_the_same_by_a_look(folder: Path) -> None:
    visits = Visits()
    with visits.opened(folder, "") as descriptor:
        visits.watch_all("", ".json")
        read = visits.reader("", descriptor)
        assert [read(name) for name in ("a.json", "b.JSON")] == [b"a.json", b"b.JSON"]
    visit = visits.folders[""]
    assert (visit.mtime_ns, visit.inode, visit.digest) == seen(folder)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_file = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, _size: read_file(descriptor, 2))
    visits = Visits()
    with visits.opened(folder, "") as descriptor:
        assert visits.reader("", descriptor)("a.json") == b"a.json"


def test_a_distrusted_folder_stays_so_whatever_is_watched_in_it(folder: Path) -> None:
    visits = Visits()
    with visits.opened(folder, ""):
        visits.distrust("c.png")
        visits.watch("c.png", 1, 1)
    assert visits.folders[""].digest == NEVER


def test_only_what_the_system_refused_is_distrusted(folder: Path) -> None:
    visits = Visits()
    with visits.opened(folder, ""):
        visits.distrust_refused("c.png", OSError("not a picture"))
        assert visits.folders[""].digest == 0
        visits.distrust_refused("c.png", PermissionError(13, "Permission denied"))
        assert visits.folders[""].digest == NEVER


def test_a_folder_that_is_gone_was_never_seen(folder: Path) -> None:
    looks = look_again(LookJob(str(folder), [("", ".json", []), ("gone", "", [])]))
    assert looks == [seen(folder), (0, 0, NEVER)]


def test_names_in_a_folder_that_is_not_there_are_looked_for_again(tmp_path: Path) -> None:
    visits = Visits()
    visits.watch_names(tmp_path, "gone", ["a.png"])
    assert visits.folders["gone"].digest == NEVER


def test_something_that_changed_just_now_is_waited_for_once() -> None:
    visits = Visits()
    start = time.monotonic_ns()
    now = time.time_ns()
    for _ in range(100):
        visits.settle(now)
    assert TICK_NS <= time.monotonic_ns() - start < 10 * TICK_NS


@pytest.mark.parametrize("offset_s", [-3600, 3600], ids=["long ago", "a clock ahead"])
def test_nothing_else_is_waited_for(offset_s: int) -> None:
    visits = Visits()
    start = time.monotonic_ns()
    visits.settle(time.time_ns() + offset_s * 10**9)
    assert time.monotonic_ns() - start < TICK_NS
