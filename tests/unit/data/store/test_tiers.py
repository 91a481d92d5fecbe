import gc
import logging
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pillsnap.data.store.layout import Stamp, StoreCounts, StoreOptions, hash_order
from pillsnap.data.store.tiers import PixelStore
from tests.unit.data.store.builders import (
    EVERY,
    HOTSET,
    JPEG,
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
    similarity,
)

pytestmark = pytest.mark.req("DAT-3")

every = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
of_disk = pytest.mark.parametrize("options", OF_DISK.values(), ids=OF_DISK)


@every
def test_what_was_written_is_read(tmp_path: Path, options: StoreOptions) -> None:
    store = opened(tmp_path, options)
    assert missing(store) == list(range(40))
    fill(store)
    assert missing(store) == []


@every
def test_the_next_run_finds_what_this_one_wrote(tmp_path: Path, options: StoreOptions) -> None:
    filled(tmp_path, options)
    store = opened(tmp_path, options)
    assert missing(store) == []
    assert store.counts().hits_disk == 40


def test_a_hot_set_is_filled_from_the_disk(tmp_path: Path) -> None:
    filled(tmp_path, HOTSET)
    store = opened(tmp_path, HOTSET)
    before = store.counts()
    assert missing(store) + missing(store) == []
    after = store.counts()
    assert (before.in_ram, after.in_ram, after.hits_disk, after.hits_ram) == (0, 40, 40, 40)


def test_a_hot_set_keeps_the_first_entries_in_hash_order(tmp_path: Path) -> None:
    store = opened(tmp_path, StoreOptions(hotset_entries=10))
    fill(store)
    expected = set(range(40)) - set(hash_order(layout())[:10].tolist())
    assert set(missing(store)) == expected
    counts = store.counts()
    assert (counts.entries, counts.in_ram, counts.on_disk, counts.written, counts.left_out) == (10, 10, 10, 10, 0)


def test_lmdb_keeps_what_the_hot_set_has_no_place_for(tmp_path: Path) -> None:
    store = opened(tmp_path, StoreOptions(hotset_entries=10, use_lmdb=True))
    fill(store)
    assert missing(store) == []
    assert store.counts().in_ram == 10


def test_without_a_folder_ram_keeps_the_hot_set() -> None:
    store = opened(None, HOTSET)
    fill(store)
    assert missing(store) == []
    assert store.counts().on_disk == 0


def test_a_store_of_no_tiers_keeps_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, StoreOptions(cache_policy="none"))
    pixels = picture(0)
    assert store.write(0, pixels, STAMP) is pixels
    store.flush()
    assert (store.read(0), store.wants(0), store.counts()) == (None, False, StoreCounts())
    assert list(tmp_path.iterdir()) == []


@every
def test_an_entry_is_wanted_until_it_is_there(tmp_path: Path, options: StoreOptions) -> None:
    store = opened(tmp_path, options)
    assert store.wants(3)
    store.write(3, picture(3), STAMP)
    assert not store.wants(3)
    assert store.wants(4)


@every
def test_an_entry_without_room_is_neither_wanted_nor_kept(tmp_path: Path, options: StoreOptions) -> None:
    entries = layout()
    entries.capacity[3] = 0
    store = opened(tmp_path, options, entries)
    assert not store.wants(3)
    store.write(3, picture(3), STAMP)
    assert store.read(3) is None


@every
def test_pixels_that_are_read_belong_to_the_reader(tmp_path: Path, options: StoreOptions) -> None:
    store = opened(tmp_path, options)
    fill(store)
    found = store.read(0)
    assert found is not None
    found[:] = 0
    assert missing(store) == []


@every
def test_an_entry_without_room_is_not_looked_at(
    tmp_path: Path, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = layout()
    entries.capacity[3] = 0
    store = opened(tmp_path, options, entries)
    monkeypatch.setattr("pillsnap.data.store.tiers.crc32", None)
    pixels = picture(3)
    assert store.write(3, pixels, STAMP) is pixels
    assert store.counts().left_out == 0


@every
def test_an_entry_that_is_there_already_is_not_left_out(tmp_path: Path, options: StoreOptions) -> None:
    store = opened(tmp_path, options)
    fill(store)
    fill(store)
    assert store.counts().left_out == 0


def test_jpeg_gives_the_same_pixels_when_the_disk_takes_no_more(tmp_path: Path) -> None:
    store = opened(tmp_path, JPEG, layout(4, side_px=64))
    before = store.write(0, picture(0, 64), STAMP)
    store.flush()
    store._stop_writing(store._ledger, OSError("full"))  # type: ignore[arg-type]
    assert is_same(store.write(0, picture(0, 64), STAMP), before)
    store.write(1, picture(1, 64), STAMP)
    assert store.counts().left_out == 1


def test_pixels_too_large_for_their_place_are_left_out_and_counted(tmp_path: Path) -> None:
    store = opened(tmp_path, MMAP)
    store.write(0, picture(0, 17), STAMP)
    assert (store.read(0), store.counts().left_out) == (None, 1)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 0, 3), np.uint8)], ids=str
)
def test_what_is_no_rgb_picture_is_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"A store got \w+ of shape .*; wanted uint8 \(h, w, 3\)"):
        opened(None, HOTSET).write(0, pixels, STAMP)


def test_pixels_that_are_not_contiguous_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, MMAP)
    store.write(1, picture(1)[::-1][::-1], STAMP)
    assert is_same(store.read(1), picture(1))


@pytest.mark.parametrize("options", [HOTSET, MMAP, LMDB], ids=["hotset", "mmap", "lmdb"])
def test_what_was_kept_of_a_changed_original_is_absent_and_written_anew(tmp_path: Path, options: StoreOptions) -> None:
    filled(tmp_path, options)
    stamps = np.tile(np.array(STAMP), (40, 1))
    stamps[3] = STAMP.size + 1, STAMP.mtime_ns
    stamps[5] = STAMP.size, STAMP.mtime_ns + 1
    changed = replace(layout(), stamps=stamps)
    store = opened(tmp_path, options, changed)
    assert missing(store) == [3, 5]
    assert store.counts().stale == 2
    for entry in (3, 5):
        store.write(entry, picture(entry), Stamp(*stamps[entry].tolist()))
    store.close()
    again = opened(tmp_path, options, changed)
    assert missing(again) == []
    assert again.counts().stale == 0


@of_disk
def test_an_original_that_changed_while_the_run_went_on_is_kept_as_it_was_decoded(
    tmp_path: Path, options: StoreOptions
) -> None:
    store = opened(tmp_path, options, replace(layout(), stamps=np.tile(np.array(STAMP), (40, 1))))
    store.write(0, picture(0), Stamp(2, 2))
    assert is_same(store.read(0), picture(0))


@every
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes_write_the_same_store(tmp_path: Path, options: StoreOptions, method: str) -> None:
    store = opened(tmp_path, options)
    assert store.read(0) is None  # open in this process before the fork
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=fill, args=(store,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert missing(store) == []
    assert store.counts().damaged == 0


def _expect_everything(store: PixelStore) -> None:
    assert missing(store) == []


@every
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_what_this_one_wrote(tmp_path: Path, options: StoreOptions, method: str) -> None:
    store = opened(tmp_path, options)
    fill(store)
    in_process(_expect_everything, store, method=method)
    assert missing(store) == []


def test_a_pickled_store_is_small() -> None:
    entries = layout(20_000)
    assert len(pickle.dumps(opened(None, HOTSET, entries))) < 2000


def test_a_pickled_store_reads_and_counts_with_the_others(tmp_path: Path) -> None:
    store = opened(tmp_path, HOTSET)
    fill(store)
    other = pickle.loads(pickle.dumps(store))
    assert missing(other) == []
    assert store.counts().hits_ram == 40


def test_a_process_that_cannot_reach_the_memory_decodes_instead(caplog: pytest.LogCaptureFixture) -> None:
    store = opened(None, HOTSET)
    fill(store)
    sent = pickle.dumps(store)
    store.close()
    other: PixelStore = pickle.loads(sent)
    assert (other.read(0), other.wants(0)) == (None, False)
    assert "this process does without the pixel store and decodes every picture" in caplog.text


def test_a_closed_store_keeps_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, LMDB)
    fill(store, 3)
    store.close()
    assert (store.read(0), store.wants(0), store.counts()) == (None, False, StoreCounts())


def test_memory_and_files_are_given_back(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for options in EVERY.values():
        store = opened(tmp_path, options)
        fill(store)
        store.close()
        del store
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private"))


def _expect_little_memory(store: PixelStore, num_entries: int, before_opening: Callable[[], object]) -> None:
    before_opening()
    start = _private_bytes()
    for entry in np.random.default_rng(0).integers(0, num_entries, 20_000).tolist():
        store.read(entry)
    assert _private_bytes() - start < 30e6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_of_a_large_store_grows_little(tmp_path: Path, method: str) -> None:
    entries = layout(2_600_000)
    store = opened(tmp_path, StoreOptions(hotset_entries=60_000), entries)
    assert len(pickle.dumps(store)) < 2000
    in_process(_expect_little_memory, store, 2_600_000, gc.collect, method=method)


def test_reading_384_px_with_its_checksum_takes_about_a_tenth_of_a_millisecond(tmp_path: Path) -> None:
    entries = layout(20, side_px=384)
    store = opened(tmp_path, HOTSET, entries)
    fill(store, 20, side_px=384)
    seconds = []
    for entry in [*range(20)] * 5:
        start = time.perf_counter()
        store.read(entry)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.5e-3  # a loose bound: it is 0.04 ms on a quiet machine


def test_jpeg_gives_what_later_reads_will_give_and_says_its_psnr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path, JPEG, layout(70, side_px=64))
    with caplog.at_level(logging.INFO):
        written = [store.write(entry, picture(entry, 64), STAMP) for entry in range(70)]
    assert all(is_same(store.read(entry), pixels) for entry, pixels in enumerate(written))
    expected = [similarity(pixels, picture(entry, 64)) for entry, pixels in enumerate(written[:64])]
    counts = store.counts()
    assert counts.jpeg_psnr_mean_db == pytest.approx(np.mean(expected), abs=1e-3)
    assert counts.jpeg_psnr_min_db == pytest.approx(min(expected), abs=1e-3)
    assert caplog.text.count("keeps JPEG: PSNR of the first 64 pictures") == 1


def test_the_hot_set_over_jpeg_holds_the_pixels_that_the_disk_has(tmp_path: Path) -> None:
    store = opened(tmp_path, replace(JPEG, cache_policy="hotset", hotset_entries=100), layout(4, side_px=64))
    from_ram = store.write(0, picture(0, 64), STAMP)
    store.close()
    assert not np.array_equal(from_ram, picture(0, 64))
    assert is_same(opened(tmp_path, JPEG, layout(4, side_px=64)).read(0), from_ram)


def test_damage_in_ram_is_found_and_mended(tmp_path: Path) -> None:
    store = opened(tmp_path, HOTSET)
    fill(store)
    ram = store._ram
    assert ram is not None
    slot = 7
    os.pwrite(ram.descriptor, b"damage", int(ram.records()["offset"][slot]) + 100)
    assert missing(store) == []  # the disk has it
    assert (store.counts().damaged, store.counts().hits_disk, store.counts().in_ram) == (1, 1, 40)


def test_memory_that_runs_out_leaves_entries_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise OSError(12, "Cannot allocate memory")

    store = opened(tmp_path, HOTSET)
    assert store.read(0) is None
    monkeypatch.setattr(store._ram, "write", fail)
    fill(store)
    assert missing(store) == []
    assert store.counts().in_ram == 0


def test_counts_are_plain_data(tmp_path: Path) -> None:
    store = opened(tmp_path, HOTSET)
    fill(store)
    values = store.counts().to_dict()
    assert values["ram_bytes"] == sum(picture(entry).nbytes for entry in range(40)) + 40 * 64
    assert values["disk_bytes"] >= values["ram_bytes"]
