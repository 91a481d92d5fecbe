import os
from pathlib import Path

import pytest

from pillsnap.data.store import room, tiers
from pillsnap.data.store.layout import StoreOptions
from pillsnap.data.store.room import planned_bytes, room_in
from tests.unit.data.store.builders import HOTSET, LMDB, MMAP, STAMP, fill, filled, layout, missing, opened, picture

pytestmark = pytest.mark.req("DAT-3")

ENTRY_BYTES = 16 * 18 * 3
kinds = pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])


def _set_free(monkeypatch: pytest.MonkeyPatch, free: int, size: int = 10**12) -> None:
    """Let every disk have so many bytes."""
    disk = os.statvfs_result((1, 1, size, free, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: disk)


@pytest.mark.parametrize(("size", "reserve"), [(10**12, 10**10), (10**11, 5 * 10**9)], ids=["large", "small"])
def test_ten_gb_or_a_twentieth_of_the_disk_is_left_free(
    size: int, reserve: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _set_free(monkeypatch, reserve + 7, size)
    assert room_in(tmp_path) == 7


@kinds
def test_writing_ends_when_the_reserve_is_touched(
    options: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tiers, "CHECK_BYTES", 1)
    store = opened(tmp_path, options)
    store.write(0, picture(0), STAMP)
    _set_free(monkeypatch, room.RESERVE_BYTES - 1)
    fill(store)
    assert (store.counts().is_disk_full, store.counts().on_disk) == (True, 1)
    assert caplog.text.count("takes no more pictures") == 1
    assert "what is left of the disk is for checkpoints" in caplog.text
    assert len(missing(store)) == (0 if options == HOTSET else 39)


@kinds
def test_a_store_opened_on_the_reserve_serves_what_it_has(
    options: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, options)
    _set_free(monkeypatch, room.RESERVE_BYTES - 1)
    store = opened(tmp_path, options, layout(50))
    assert missing(store, 50) == list(range(40, 50))
    store.write(45, picture(45), STAMP)
    assert (store.counts().is_disk_full, store.counts().on_disk) == (True, 40)
    assert caplog.text.count("takes no more pictures") == 1


def test_the_room_is_looked_at_every_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    store = opened(tmp_path, MMAP)
    monkeypatch.setattr(tiers, "CHECK_BYTES", 10 * ENTRY_BYTES)
    monkeypatch.setattr(tiers, "require_room", looks.append)
    fill(store)
    assert looks == [tmp_path] * 3


@kinds
def test_places_without_room_are_said_when_the_store_is_opened(
    options: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _set_free(monkeypatch, room.RESERVE_BYTES + 10**6)
    opened(tmp_path, options).close()
    assert "GB more in" not in caplog.text
    opened(tmp_path, options, layout(4000)).close()
    assert "the pixel store test needs up to" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [(MMAP, 40), (LMDB, 16), (StoreOptions(hotset_entries=5), 5), (StoreOptions(cache_policy="none"), 0)],
    ids=["mmap", "lmdb", "hotset", "none"],
)
def test_the_bytes_of_a_full_store_are_known_before(options: StoreOptions, expected: int) -> None:
    assert planned_bytes(layout(), options) == expected * ENTRY_BYTES
