import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from pillsnap.data.store import lmdb_tier
from pillsnap.data.store.layout import DamagedEntryError, Kept
from pillsnap.data.store.lmdb_tier import (
    ABSENT,
    BATCH_ENTRIES,
    NO_PLACE,
    PRESENT,
    LmdbEntries,
    LmdbTier,
    prepare_lmdb,
)
from tests.unit.data.store.builders import LMDB, STAMP, fill, in_process, layout, missing, opened, picture

pytestmark = pytest.mark.req("DAT-3")

ANOTHER_PROCESS = -1


def _known(num_entries: int = 40) -> LmdbEntries:
    zeros = np.zeros(num_entries, np.uint8)
    return LmdbEntries(layout(num_entries).keys, zeros.copy(), zeros.copy())


def _tier(path: Path, known: LmdbEntries, owner_pid: int = ANOTHER_PROCESS) -> LmdbTier:
    prepare_lmdb(path, known)
    return LmdbTier(path, "lossless", owner_pid)


def _write(tier: LmdbTier, known: LmdbEntries, *entries: int) -> list[bool]:
    return [tier.write(entry, tier.pack(entry, Kept(picture(entry), STAMP), known), known) for entry in entries]


def _stored(path: Path) -> list[bytes]:
    """Return the keys in the file, by LMDB itself."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [bytes(key) for key, _ in transaction.cursor()]


def test_entries_are_committed_a_few_at_a_time(tmp_path: Path) -> None:
    known = _known()
    tier = _tier(tmp_path, known, os.getpid())
    _write(tier, known, *range(BATCH_ENTRIES - 1))
    assert _stored(tmp_path) == []
    _write(tier, known, BATCH_ENTRIES - 1)
    assert len(_stored(tmp_path)) == BATCH_ENTRIES


def test_an_entry_that_has_waited_for_long_is_committed_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _known()
    tier = _tier(tmp_path, known, os.getpid())
    _write(tier, known, 0)
    now = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: now)
    _write(tier, known, 1)
    assert len(_stored(tmp_path)) == 2


def test_large_entries_are_committed_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _known()
    tier = _tier(tmp_path, known, os.getpid())
    monkeypatch.setattr(lmdb_tier, "BATCH_BYTES", 100)
    _write(tier, known, 0)
    assert len(_stored(tmp_path)) == 1


def test_an_entry_that_waits_can_be_read(tmp_path: Path) -> None:
    known = _known()
    tier = _tier(tmp_path, known)
    _write(tier, known, 0)
    found = tier.read(0, known)
    assert found is not None
    assert np.array_equal(found.pixels, picture(0))


@pytest.mark.parametrize("owner_pid", [ANOTHER_PROCESS, None], ids=["worker", "owner"])
def test_the_file_grows_as_needed(tmp_path: Path, owner_pid: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_tier, "FIRST_MAP_BYTES", 1 << 16)
    known = _known(400)
    tier = _tier(tmp_path, known, os.getpid() if owner_pid is None else owner_pid)
    _write(tier, known, *range(400))
    tier.flush(known)
    assert (tmp_path / "data.mdb").stat().st_size > 1 << 17
    assert all(tier.read(entry, known) is not None for entry in range(400))


def test_growth_by_another_process_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_tier, "FIRST_MAP_BYTES", 1 << 16)
    store = opened(tmp_path, LMDB, layout(400))
    reader = _tier_of(store)
    store.write(0, picture(0), STAMP)
    store.flush()
    reader._owner_pid = ANOTHER_PROCESS  # keeps its environment open, as a worker does
    assert store.read(0) is not None
    in_process(fill, store, 400)
    assert missing(store, 400) == []


def _tier_of(store: Any) -> LmdbTier:
    tier = store._tiers.lmdb
    assert isinstance(tier, LmdbTier)
    return tier


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_waits_is_committed_when_a_process_ends(tmp_path: Path, method: str) -> None:
    store = opened(tmp_path, LMDB)
    in_process(_write_three, store, method=method)
    assert missing(store) == list(range(3, 40))


def _write_three(store: Any) -> None:
    for entry in range(3):
        store.write(entry, picture(entry), STAMP)


def test_what_waits_in_a_process_that_is_killed_is_wanted_again(tmp_path: Path) -> None:
    store = opened(tmp_path, LMDB)
    process: Any = get_context("fork").Process(target=_write_three_and_die, args=(store,))
    process.start()
    process.join()
    assert not store.wants(0)
    assert missing(store) == list(range(40))
    assert store.wants(0)


def _write_three_and_die(store: Any) -> None:
    _write_three(store)
    os.kill(os.getpid(), 9)


def test_a_fork_leaves_what_waits_to_its_parent(tmp_path: Path) -> None:
    store = opened(tmp_path, LMDB)
    _write_three(store)
    in_process(store.flush)
    assert _stored(_tier_of(store).path) == []
    store.flush()
    assert len(_stored(_tier_of(store).path)) == 3


def _damage(path: Path, entry: int, known: LmdbEntries) -> None:
    """Flip one bit in the middle of an entry's packed pixels (LMDB leaves older copies of a page lying about)."""
    packed = LmdbTier(path, "lossless", ANOTHER_PROCESS).pack(entry, Kept(picture(entry), STAMP), known)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    content = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(content.replace(packed, flipped))


def test_a_flipped_bit_in_an_entry_is_found_and_only_that_entry_is_written_again(tmp_path: Path) -> None:
    store = opened(tmp_path, LMDB)
    fill(store)
    path = _tier_of(store).path
    store.close()
    _damage(path, 7, _known())
    again = opened(tmp_path, LMDB)
    assert missing(again) == [7]
    assert again.counts().damaged == 1
    again.write(7, picture(7), STAMP)
    again.close()
    assert missing(opened(tmp_path, LMDB)) == []
    assert len(_stored(path)) == 41  # the damaged one is left where it is


def test_an_entry_written_too_often_has_no_place_any_more(tmp_path: Path) -> None:
    known = _known()
    known.next_numbers[0] = 255
    tier = _tier(tmp_path, known)
    assert _write(tier, known, 0, 1) == [False, True]
    assert known.states[:2].tolist() == [NO_PLACE, PRESENT]


def test_a_damaged_tree_is_made_anew_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path, LMDB)
    fill(store)
    path = _tier_of(store).path
    store.close()
    (path / "data.mdb").write_bytes((path / "data.mdb").read_bytes()[:9000])
    again = opened(tmp_path, LMDB)
    assert missing(again) == list(range(40))
    assert "is damaged" in caplog.text
    fill(again)
    again.close()
    assert missing(opened(tmp_path, LMDB)) == []


def test_a_file_that_a_killed_process_left_empty_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data.mdb").touch()
    known = _known()
    tier = _tier(tmp_path, known)
    _write(tier, known, 0)
    tier.flush(known)
    assert caplog.text == ""


def test_keys_that_are_not_in_use_are_left_alone(tmp_path: Path) -> None:
    known = _known()
    tier = _tier(tmp_path, known, os.getpid())
    _write(tier, known, *range(40))
    tier.flush(known)
    fewer = _known(10)
    fewer.states[3] = NO_PLACE
    prepare_lmdb(tmp_path, fewer)
    assert fewer.states.tolist() == [PRESENT] * 3 + [NO_PLACE] + [PRESENT] * 6


@pytest.mark.parametrize("value", [b"short", bytes(60)], ids=["short", "zeros"])
def test_a_value_that_is_no_entry_is_damage(tmp_path: Path, value: bytes) -> None:
    known = _known()
    with pytest.raises(DamagedEntryError, match="a value is"):
        _tier(tmp_path, known).unpack(0, value, known)


@contextmanager
def _broken_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise lmdb.DiskError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb_tier, "_begin", fail)
        yield


def test_a_commit_that_fails_leaves_its_entries_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _known()
    tier = _tier(tmp_path, known)
    _write(tier, known, 0, 1)
    with _broken_disk(monkeypatch), pytest.raises(lmdb.DiskError, match="No space left"):
        tier.flush(known)
    assert known.states[:3].tolist() == [ABSENT, ABSENT, ABSENT]
    assert _write(tier, known, 0) == [True]


def test_a_disk_that_fails_ends_writing_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path, LMDB)
    with _broken_disk(monkeypatch), caplog.at_level(logging.WARNING):
        fill(store)
        store.flush()
    assert caplog.text.count("takes no more pictures: No space left on device") == 1
    assert (store.counts().is_disk_full, store.counts().on_disk, store.wants(0)) == (True, 0, False)
