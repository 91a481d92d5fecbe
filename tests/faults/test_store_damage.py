"""Damage to the files of a pixel store is found, and what it has hit is written again."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.store.layout import StoreOptions
from pillsnap.data.store.tiers import PixelStore
from tests.faults.disk import SmallDisk, small_disk
from tests.unit.data.store.builders import (
    HOTSET,
    LMDB,
    MMAP,
    OF_DISK,
    STAMP,
    fill,
    filled,
    layout,
    missing,
    opened,
    picture,
)

pytestmark = pytest.mark.req("DAT-3")

SIDE_PX = 64
NUM_ENTRIES = 60
of_disk = pytest.mark.parametrize("options", OF_DISK.values(), ids=OF_DISK)


def _open(folder: Path, options: StoreOptions) -> PixelStore:
    return opened(folder, options, layout(NUM_ENTRIES, side_px=SIDE_PX))


def _absent(store: PixelStore) -> list[int]:
    return missing(store, NUM_ENTRIES, side_px=SIDE_PX)


def _fill(store: PixelStore) -> None:
    fill(store, NUM_ENTRIES, side_px=SIDE_PX)


def _data_file(folder: Path) -> Path:
    (path,) = [path for path in folder.rglob("*") if path.suffix in (".slab", ".mdb") and path.stem != "lock"]
    return path


def _put(path: Path, content: bytearray) -> None:
    """Let the store consist of this content alone."""
    for other in path.parent.glob("*.slab"):  # a damaged one may have got a second one beside it
        other.unlink()
    path.write_bytes(content)


def flipped(content: bytearray, chance: random.Random) -> None:
    """Flip one bit anywhere."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def block_lost(content: bytearray, chance: random.Random) -> None:
    """Replace a disk block by zeros, as a power cut may leave it."""
    start = chance.randrange(len(content)) // 4096 * 4096
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))


def block_of_noise(content: bytearray, chance: random.Random) -> None:
    """Replace a disk block by what another file had there."""
    start = chance.randrange(len(content)) // 4096 * 4096
    content[start : start + 4096] = chance.randbytes(len(content[start : start + 4096]))


def cut_off(content: bytearray, chance: random.Random) -> None:
    """Let the file end anywhere."""
    del content[chance.randrange(len(content)) :]


@of_disk
@pytest.mark.parametrize("damage", [flipped, block_lost, block_of_noise, cut_off])
def test_whatever_is_hit_is_found_and_written_again(
    tmp_path: Path, options: StoreOptions, damage: Callable[[bytearray, random.Random], None]
) -> None:
    filled(tmp_path, options, NUM_ENTRIES, side_px=SIDE_PX)
    path = _data_file(tmp_path)
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(25):
        content = bytearray(whole)
        damage(content, chance)
        _put(path, content)
        store = _open(tmp_path, options)
        _absent(store)  # fails where an entry has other pixels
        _fill(store)
        store.close()
        store = _open(tmp_path, options)
        assert _absent(store) == []
        store.close()


@of_disk
def test_a_flipped_bit_costs_one_entry_or_the_file(tmp_path: Path, options: StoreOptions) -> None:
    filled(tmp_path, options, NUM_ENTRIES, side_px=SIDE_PX)
    path = _data_file(tmp_path)
    whole = path.read_bytes()
    chance = random.Random(1)
    costs = set()
    for _ in range(60):
        content = bytearray(whole)
        flipped(content, chance)
        _put(path, content)
        store = _open(tmp_path, options)
        costs.add(len(_absent(store)))
        store.close()
    assert 1 in costs
    assert costs <= {0, 1, NUM_ENTRIES}


def test_damage_while_the_run_goes_on_is_found(tmp_path: Path) -> None:
    store = _open(tmp_path, MMAP)
    _fill(store)
    path = _data_file(tmp_path)
    with path.open("r+b") as file:
        file.seek(-SIDE_PX * SIDE_PX * 3, 2)
        file.write(b"damage of some twenty bytes")
    assert _absent(store) == [NUM_ENTRIES - 1]
    store.write(NUM_ENTRIES - 1, picture(NUM_ENTRIES - 1, SIDE_PX), STAMP)
    assert _absent(store) == []
    assert store.counts().damaged == 1


def test_a_file_that_is_cut_off_while_the_run_goes_on_ends_nothing(tmp_path: Path) -> None:
    store = _open(tmp_path, MMAP)
    _fill(store)
    with _data_file(tmp_path).open("r+b") as file:
        file.truncate(100)
    assert _absent(store) == list(range(NUM_ENTRIES))
    _fill(store)


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_files_deleted_while_the_run_goes_on_end_nothing(tmp_path: Path, options: StoreOptions) -> None:
    store = _open(tmp_path, options)
    _fill(store)
    _data_file(tmp_path).unlink()
    _absent(store)
    _fill(store)
    store.close()
    store = _open(tmp_path, options)
    _fill(store)
    assert _absent(store) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a disk with room for about half of the entries."""
    try:
        mounted = small_disk(tmp_path / "disk", NUM_ENTRIES * SIDE_PX * SIDE_PX * 3 // 2)
        small = mounted.__enter__()
    except PermissionError as error:
        pytest.skip(f"needs to mount a tmpfs: {error}")
    yield small
    mounted.__exit__(None, None, None)


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_a_full_disk_is_said_once_and_the_run_goes_on(
    disk: SmallDisk, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    store = _open(disk.dir, options)
    _fill(store)
    _fill(store)
    assert caplog.text.count("the pixel store takes no more pictures") == 1
    assert re.search("No space left on device|Input/output error", caplog.text)  # LMDB has the second for half a write
    absent, counts = _absent(store), store.counts()
    assert counts.is_disk_full
    assert 0 < counts.on_disk < NUM_ENTRIES
    assert absent == [] if options == HOTSET else len(absent) == NUM_ENTRIES - counts.on_disk
    store.close()


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_a_run_with_room_again_goes_on_where_the_disk_was_full(disk: SmallDisk, options: StoreOptions) -> None:
    store = _open(disk.dir, options)
    _fill(store)
    store.close()
    disk.grow(NUM_ENTRIES * SIDE_PX * SIDE_PX * 3 * 2)
    again = _open(disk.dir, options)
    assert 0 < len(_absent(again)) < NUM_ENTRIES
    _fill(again)
    again.close()
    assert _absent(_open(disk.dir, options)) == []


@pytest.mark.parametrize("options", [HOTSET, LMDB], ids=["hotset", "lmdb"])
def test_a_disk_without_room_for_anything_leaves_ram(
    disk: SmallDisk, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    disk.leave(0)
    store = _open(disk.dir, options)
    _fill(store)
    assert _absent(store) == ([] if options == HOTSET else list(range(NUM_ENTRIES)))
    assert "pixel store" in caplog.text


def _remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@pytest.mark.parametrize("options", [HOTSET, MMAP], ids=["hotset", "mmap"])
def test_a_folder_that_may_only_be_read_serves_what_it_has(
    disk: SmallDisk, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    disk.grow(NUM_ENTRIES * SIDE_PX * SIDE_PX * 3 * 2)
    filled(disk.dir, options, NUM_ENTRIES, side_px=SIDE_PX)
    _remount(disk.dir, "ro")
    store = _open(disk.dir, options)
    assert _absent(store) == []
    assert "cannot be written to (Read-only file system)" in caplog.text
    assert not store.wants(0)
    store.close()
    _remount(disk.dir, "rw")


def test_pixels_are_identical_in_every_tier(tmp_path: Path) -> None:
    num_entries = 1000
    entries = layout(num_entries, side_px=24)
    originals = [hashlib.sha256(picture(entry, 24).tobytes()).hexdigest() for entry in range(num_entries)]
    for name, options in {"hotset": HOTSET, "mmap": MMAP, "lmdb": LMDB, "both": replace(HOTSET, use_lmdb=True)}.items():
        store = opened(tmp_path / name, options, entries)
        fill(store, num_entries, side_px=24)
        store.close()
        again = opened(tmp_path / name, options, entries)  # from the disk first, then from RAM where there is a hot set
        for _ in range(2):
            order = np.random.default_rng(0).permutation(num_entries).tolist()
            found = {entry: again.read(entry) for entry in order}
            digests = [hashlib.sha256(np.asarray(found[entry]).tobytes()).hexdigest() for entry in range(num_entries)]
            assert digests == originals, name
