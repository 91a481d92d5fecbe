import random
import struct
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from pillsnap.data.store.layout import DamagedEntryError
from pillsnap.data.store.lmdb_check import check_lmdb_file
from tests.unit.data.store.builders import in_process

pytestmark = pytest.mark.req("DAT-3")

KEY_BYTES, MOST_BYTES = 9, 20_000
PAGE = 4096


def _fill(path: Path, num_commits: int) -> list[bytes]:
    """Write entries of all kinds of sizes, a few a commit; returns the keys in order."""
    chance = random.Random(0)
    keys = []
    environment = lmdb.open(str(path), map_size=1 << 28, sync=False)
    for _ in range(num_commits):
        with environment.begin(write=True) as transaction:
            for _ in range(8):
                keys.append(chance.randbytes(KEY_BYTES))
                transaction.put(keys[-1], chance.randbytes(chance.choice((30, 900, 3000, 5000, MOST_BYTES))))
    environment.close()
    return sorted(keys)


@pytest.mark.parametrize("num_commits", [0, 1, 5, 100], ids=["empty", "leaf", "branch", "deep"])
def test_a_whole_file_passes_with_all_keys(tmp_path: Path, num_commits: int) -> None:
    keys = _fill(tmp_path / "db", num_commits)
    assert check_lmdb_file(tmp_path / "db" / "data.mdb", KEY_BYTES, MOST_BYTES) == keys


def test_a_file_with_long_lists_of_free_pages_passes(tmp_path: Path) -> None:
    keys = _fill(tmp_path, 60)
    environment = lmdb.open(str(tmp_path), map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        for key in keys[::2]:
            transaction.delete(key)  # frees some 800 pages: their list has pages of its own
    environment.close()
    assert check_lmdb_file(tmp_path / "data.mdb", KEY_BYTES, MOST_BYTES) == keys[1::2]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is too short"),
        (bytes(2 * PAGE), "its pages have 0 bytes"),
        (b"\xff" * 2 * PAGE, "its pages have 4294967295 bytes"),
    ],
    ids=["empty", "zeros", "ones"],
)
def test_another_file_is_damaged(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DamagedEntryError, match=text):
        check_lmdb_file(tmp_path / "data.mdb", KEY_BYTES, MOST_BYTES)


@pytest.mark.parametrize("key_bytes", [8, 10])
def test_keys_of_another_length_are_damage(tmp_path: Path, key_bytes: int) -> None:
    _fill(tmp_path, 5)
    with pytest.raises(DamagedEntryError, match="odd"):
        check_lmdb_file(tmp_path / "data.mdb", key_bytes, MOST_BYTES)


def test_a_value_too_large_is_damage(tmp_path: Path) -> None:
    _fill(tmp_path, 5)
    with pytest.raises(DamagedEntryError, match=f"a value has {MOST_BYTES} bytes"):
        check_lmdb_file(tmp_path / "data.mdb", KEY_BYTES, MOST_BYTES - 1)


def test_a_file_that_was_cut_off_is_damage(tmp_path: Path) -> None:
    _fill(tmp_path, 20)
    path = tmp_path / "data.mdb"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedEntryError):
        check_lmdb_file(path, KEY_BYTES, MOST_BYTES)


def _use_everything(path: Path) -> None:
    """Read all and write some more: LMDB comes across whatever is wrong with its trees, by an error or by a signal."""
    with suppress(lmdb.Error):
        _read_and_write(path)


def _read_and_write(path: Path) -> None:
    environment = lmdb.open(str(path), map_size=1 << 28, sync=False)
    chance = random.Random(1)
    for _ in range(2):
        with environment.begin() as transaction:
            for _key, value in transaction.cursor():
                bytes(value)
        for _ in range(12):
            with environment.begin(write=True) as transaction:
                for size in (30, 900, 5000):
                    transaction.put(chance.randbytes(KEY_BYTES), bytes(size), overwrite=False)


def _structure(content: bytes) -> list[int]:
    """Return the places of all bytes that LMDB follows: meta pages, page headers, node offsets, node headers, keys."""
    places = [*range(16, 152), *range(PAGE + 16, PAGE + 152)]
    for start in range(2 * PAGE, len(content), PAGE):
        own, _, flags, lower, _ = struct.unpack_from("<QHHHH", content, start)
        if own * PAGE == start and flags in (1, 2):
            places += range(start, start + lower)
            for (offset,) in struct.iter_unpack("<H", content[start + 16 : start + lower]):
                places += range(start + offset, min(start + offset + 8 + KEY_BYTES + 8, len(content)))
    return places


@pytest.mark.parametrize("seed", range(2))
def test_lmdb_survives_every_damaged_file_that_passes(tmp_path: Path, seed: int) -> None:
    _fill(tmp_path, 20)
    path = tmp_path / "data.mdb"
    whole = path.read_bytes()
    chance = random.Random(seed)
    found = passed = 0
    for place in chance.sample(_structure(whole), 40):
        content = bytearray(whole)
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            check_lmdb_file(path, KEY_BYTES, MOST_BYTES)
        except DamagedEntryError:
            found += 1
            continue
        passed += 1
        in_process(_use_everything, tmp_path)
    assert found
    assert passed
