import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lmdb
import pytest

from pillsnap.data.store import opening
from pillsnap.data.store.layout import StoreOptions
from pillsnap.data.store.slab_folder import MAX_FILES
from tests.unit.data.store.builders import (
    HOTSET,
    LMDB,
    MMAP,
    OF_DISK,
    STAMP,
    fill,
    filled,
    in_process,
    is_same,
    layout,
    missing,
    opened,
    picture,
)

pytestmark = pytest.mark.req("DAT-3")

of_disk = pytest.mark.parametrize("options", OF_DISK.values(), ids=OF_DISK)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize(
    "options", [StoreOptions(cache_policy="auto"), replace(MMAP, use_lmdb=True)], ids=["auto", "mmap-lmdb"]
)
def test_options_that_name_no_tiers_are_refused(options: StoreOptions) -> None:
    with pytest.raises(ValueError, match="wanted hotset, mmap .without LMDB. or none"):
        opened(None, options)


@of_disk
def test_pixels_made_in_another_way_are_deleted_with_a_line_in_the_log(
    tmp_path: Path, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, options)
    (before,) = _files(tmp_path)
    with caplog.at_level(logging.INFO):
        store = opened(tmp_path, options, layout(identity="two"))
    assert missing(store) == list(range(40))
    assert f"{before} was deleted: its pictures were made in another way" in caplog.text
    assert before not in _files(tmp_path)


@of_disk
def test_stores_of_other_names_are_left_alone(tmp_path: Path, options: StoreOptions) -> None:
    filled(tmp_path, options)
    opening.open_store(layout(identity="two"), options, tmp_path, name="test.more").close()
    opening.open_store(layout(identity="two"), options, tmp_path, name="tes").close()
    assert missing(opened(tmp_path, options)) == []


@of_disk
def test_what_cannot_be_deleted_is_said(
    tmp_path: Path, options: StoreOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, options)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr("shutil.rmtree", refuse)
    opened(tmp_path, options, layout(identity="two"))
    assert "cannot be deleted" in caplog.text


@of_disk
def test_entries_of_another_selection_are_taken_over(tmp_path: Path, options: StoreOptions) -> None:
    filled(tmp_path, options)
    store = opened(tmp_path, options, layout(30, first=25))
    found = [entry for entry in range(30) if store.read(entry) is not None]
    assert found == list(range(15))
    assert is_same(store.read(0), picture(25))
    for entry in range(15, 30):
        store.write(entry, picture(25 + entry), STAMP)
    store.close()
    again = opened(tmp_path, options, layout(30, first=25))
    assert all(is_same(again.read(entry), picture(25 + entry)) for entry in range(30))


def test_going_back_to_an_earlier_selection_finds_everything(tmp_path: Path) -> None:
    filled(tmp_path, MMAP)
    store = opened(tmp_path, MMAP, layout(10, first=35))
    for entry in range(10):
        store.write(entry, picture(35 + entry), STAMP)
    store.close()
    assert missing(opened(tmp_path, MMAP)) == []


def test_a_file_that_nothing_is_used_of_is_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, MMAP)
    with caplog.at_level(logging.INFO):
        opened(tmp_path, MMAP, layout(10, first=100)).close()
    assert "held none of the pictures in use any more and was deleted" in caplog.text
    assert len(_files(tmp_path)) == 1


def test_there_are_never_more_than_a_few_files(tmp_path: Path) -> None:
    for num_entries in range(10, 10 * (MAX_FILES + 3), 10):
        filled(tmp_path, MMAP, num_entries)
    assert len(_files(tmp_path)) == MAX_FILES
    store = opened(tmp_path, MMAP, layout(num_entries))
    assert missing(store, num_entries) == []  # what was in a file that was dropped has a place in the next one


def test_a_place_that_has_become_too_small_is_made_anew(tmp_path: Path) -> None:
    filled(tmp_path, MMAP)
    store = opened(tmp_path, MMAP, layout(side_px=20))
    assert missing(store) == list(range(40))
    store.write(0, picture(0, 20), STAMP)
    assert is_same(store.read(0), picture(0, 20))


def test_a_larger_hot_set_completes_the_files(tmp_path: Path) -> None:
    small = opened(tmp_path, StoreOptions(hotset_entries=10))
    fill(small)
    small.close()
    store = opened(tmp_path, HOTSET)
    assert len(missing(store)) == 30
    fill(store)
    assert missing(store) == []


def _hold(folder: Path, options: StoreOptions, ready: Any, done: Any) -> None:
    store = opened(folder, options)
    fill(store)
    ready.set()
    done.wait()


@contextmanager
def _another_run(folder: Path, options: StoreOptions) -> Iterator[None]:
    """Let another process have the store open, complete, while the block runs."""
    context = get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(folder, options, ready, done))
    process.start()
    assert ready.wait(30)
    yield
    done.set()
    process.join()


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_a_second_run_leaves_the_files_of_the_first_alone(
    tmp_path: Path, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with _another_run(tmp_path, options):
        store = opened(tmp_path, options, layout(identity="two"))
        assert "another run writes the pixel store test" in caplog.text
        fill(store)
        assert store.counts().on_disk == 0
        assert missing(store) == ([] if options == HOTSET else list(range(40)))
    assert missing(opened(tmp_path, options)) == []


def test_a_second_run_reads_what_the_first_has_written(tmp_path: Path) -> None:
    with _another_run(tmp_path, HOTSET):
        store = opened(tmp_path, HOTSET)
        assert missing(store) == []
        assert not store.wants(0)


def test_the_next_run_may_write_again(tmp_path: Path) -> None:
    with _another_run(tmp_path, HOTSET):
        pass
    store = opened(tmp_path, HOTSET, layout(50))
    assert store.wants(45)
    assert store.counts().on_disk == 40


def test_a_worker_left_behind_does_not_keep_the_next_run_from_writing(tmp_path: Path) -> None:
    context = get_context("fork")
    done = context.Event()
    store = opened(tmp_path, MMAP)
    orphan = context.Process(target=done.wait)
    orphan.start()
    store.close()
    in_process(_expect_writable, tmp_path)
    done.set()
    orphan.join()


def _expect_writable(folder: Path) -> None:
    assert opened(folder, MMAP).wants(0)


def test_two_stores_of_one_process_share_the_right_to_write(tmp_path: Path) -> None:
    first, second = opened(tmp_path, MMAP), opened(tmp_path, MMAP)
    first.close()
    assert second.wants(0)
    with _another_run(tmp_path, MMAP):
        fill(second)
    assert missing(second) == []


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_a_folder_that_cannot_be_made_leaves_ram(
    tmp_path: Path, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = opened(tmp_path / "file" / "cache", options)
    fill(store)
    assert "keeps pictures in RAM only" in caplog.text
    assert missing(store) == ([] if options == HOTSET else list(range(40)))


def test_a_system_without_shared_memory_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    store = opened(None, HOTSET)
    fill(store)
    assert store.read(0) is None
    assert "no pixel store: there is no shared memory" in caplog.text


@pytest.mark.parametrize("error", [lmdb.Error("broken"), OSError(5, "broken")], ids=["lmdb", "os"])
def test_without_lmdb_ram_is_left(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(opening, "prepare_lmdb", fail)
    store = opened(tmp_path, replace(HOTSET, use_lmdb=True))
    fill(store)
    assert missing(store) == []
    assert "does without LMDB" in caplog.text


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path: Path) -> None:
    filled(tmp_path, MMAP)
    (name,) = _files(tmp_path)
    (tmp_path / f".{name}.999999999.tmp").touch()
    (tmp_path / f".{name}.{os.getppid()}.tmp").touch()
    opened(tmp_path, MMAP)
    assert _files(tmp_path) == [f".{name}.{os.getppid()}.tmp", name]


Damage = Callable[[Path], None]


def _flip(offset: int) -> Damage:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 4
        path.write_bytes(content)

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        _flip(0),
        _flip(9),
        _flip(20),
        _flip(50),
        _flip(66),
        _flip(75),
        _flip(78),
        lambda path: os.truncate(path, 50),
        Path.touch,
    ],
    ids=["magic", "format", "identity", "file-id", "slots", "size", "checksum", "truncated", "none"],
)
def test_a_file_with_a_damaged_header_is_made_anew(
    tmp_path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, MMAP)
    (name,) = _files(tmp_path)
    damage(tmp_path / name)
    is_damaged = damage is not Path.touch
    store = opened(tmp_path, MMAP)
    assert missing(store) == (list(range(40)) if is_damaged else [])
    assert ("is damaged (its header is wrong); its pictures are decoded again" in caplog.text) is is_damaged
    fill(store)
    store.close()
    assert missing(opened(tmp_path, MMAP)) == []


def test_only_the_entry_of_a_damaged_place_is_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, MMAP)
    (name,) = _files(tmp_path)
    _flip(4096 + 64 * 7 + 9)(tmp_path / name)  # the offset in record 7
    store = opened(tmp_path, MMAP)
    assert "1 records of" in caplog.text
    assert missing(store) == [7]
    fill(store)
    store.close()
    assert missing(opened(tmp_path, MMAP)) == []


@pytest.mark.parametrize("length", [4096 + 64 * 20, 4096 + 64 * 40 + 4000], ids=["records", "pixels"])
def test_what_a_truncated_file_has_lost_is_written_again(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, MMAP)
    (name,) = _files(tmp_path)
    os.truncate(tmp_path / name, length)
    store = opened(tmp_path, MMAP)
    assert "what is lost is decoded again" in caplog.text
    assert missing(store)
    fill(store)
    store.close()
    assert missing(opened(tmp_path, MMAP)) == []


def test_a_file_that_cannot_be_read_is_kept_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, MMAP)
    (name,) = _files(tmp_path)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pillsnap.data.store.slab_file.read_header", fail)
    store = opened(tmp_path, StoreOptions(hotset_entries=0))
    assert "cannot be read" in caplog.text
    assert (missing(store), name in _files(tmp_path)) == (list(range(40)), True)
