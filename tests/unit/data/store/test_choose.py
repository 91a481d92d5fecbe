import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.images import RgbImage
from pillsnap.data.store.choose import Decision, Measured, decide
from pillsnap.data.store.layout import StoreOptions
from pillsnap.data.store.measure import choose_store
from pillsnap.errors import BrokenImageError
from tests.unit.data.store.builders import NAME, filled, layout, picture

pytestmark = pytest.mark.req("DAT-3")

GB = 10**9
# 2.6 million PNG photographs at 384 px on the machine of the specification, a fast SSD with little room
FEW = Measured(
    num_entries=2_600_000,
    entry_bytes=442_368,
    decode_s=20e-3,
    read_s=0.04e-3,
    disk_bytes_per_s=3e9,
    pack_s=1e-3,
    unpack_s=0.4e-3,
    packed_share=0.45,
    free_ram=80 * GB,
    free_disk=100 * GB,
)


@pytest.mark.parametrize(
    ("changes", "policy", "use_lmdb"),
    [
        ({"decode_s": 0.02e-3}, "none", False),
        ({"num_entries": 60_000}, "hotset", False),
        ({}, "hotset", False),
        ({"free_disk": 2000 * GB}, "mmap", False),
        ({"num_entries": 1_000_000, "free_disk": 300 * GB}, "hotset", True),
        ({"free_disk": 700 * GB, "free_ram": 0}, "none", True),
        ({"num_entries": 300_000, "disk_bytes_per_s": 1e8, "free_disk": 2000 * GB}, "none", True),
        ({"free_disk": 0, "free_ram": 0}, "none", False),
        ({"disk_bytes_per_s": 5e6, "free_disk": 2000 * GB}, "hotset", False),
    ],
    ids=[
        "decoding-is-as-fast",
        "everything-fits-in-ram",
        "no-room-on-the-disk",
        "room-for-raw-pixels",
        "room-for-packed-pixels",
        "packed-without-ram",
        "slow-disk-and-packed-pixels-fit-in-its-cache",
        "no-room-anywhere",
        "disk-slower-than-decoding",
    ],
)
def test_each_way_is_chosen_where_it_is_best(changes: dict[str, float], policy: str, use_lmdb: bool) -> None:
    options = decide(replace(FEW, **changes)).options  # type: ignore[arg-type]
    assert (options.cache_policy, options.use_lmdb) == (policy, use_lmdb)


def test_the_hot_set_takes_nine_tenths_of_the_ram() -> None:
    assert decide(FEW).options.hotset_entries == int(0.9 * 80 * GB / 442_368)


def test_a_hot_set_of_everything_takes_no_more_than_that() -> None:
    assert decide(replace(FEW, num_entries=1000)).options.hotset_entries == 1000


def test_the_reason_names_what_would_be_faster_with_more_room() -> None:
    reason = decide(FEW).reason
    assert reason.startswith("RAM hot set, other pictures decoded takes 18.75 ms a picture, decoding 20.00 ms")
    assert reason.endswith("there is no room for file of raw pixels, LMDB, RAM hot set and LMDB")


def test_nothing_to_keep_needs_nothing() -> None:
    assert decide(replace(FEW, num_entries=0, free_ram=0)).options.hotset_entries == 0


def test_the_samples_decide_and_every_way_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        options = choose_store(layout(), _slow, GB, tmp_path, name=NAME)
    assert options == StoreOptions(cache_policy="hotset", hotset_entries=40)
    for text in ("measured: decoding 2.", "originals only", "file of raw pixels", "LMDB", "RAM hot set and LMDB"):
        assert text in caplog.text
    assert list(tmp_path.iterdir()) == []


def _slow(entry: int) -> RgbImage:
    time.sleep(0.002)
    return picture(entry)


def test_without_ram_and_folder_nothing_is_kept() -> None:
    assert choose_store(layout(), _slow, 0, None, name=NAME) == StoreOptions(cache_policy="none")


def test_a_folder_that_cannot_be_used_is_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    options = choose_store(layout(), _slow, 0, tmp_path / "file" / "cache", name=NAME)
    assert options == StoreOptions(cache_policy="none")
    assert "cannot be used: Not a directory" in caplog.text


def test_what_the_store_holds_already_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, StoreOptions(cache_policy="mmap"))
    monkeypatch.setattr("pillsnap.data.store.measure.room_in", lambda _: -5)
    options = choose_store(layout(), _slow, 0, tmp_path, name=NAME)
    assert options == StoreOptions(cache_policy="mmap")


def test_broken_pictures_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    def some(entry: int) -> RgbImage:
        if entry % 2:
            raise BrokenImageError(f"{entry} is broken")
        return _slow(entry)

    assert choose_store(layout(), some, GB, None, name=NAME).cache_policy == "hotset"


def test_pictures_that_are_all_broken_leave_nothing_to_keep(caplog: pytest.LogCaptureFixture) -> None:
    def none(entry: int) -> RgbImage:
        raise BrokenImageError(f"{entry} is broken")

    assert choose_store(layout(), none, GB, None, name=NAME) == StoreOptions(cache_policy="none")
    assert "none of the pictures tried can be decoded" in caplog.text


def test_the_figures_are_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Measured] = []

    def watched(measured: Measured) -> Decision:
        seen.append(measured)
        return decide(measured)

    monkeypatch.setattr("pillsnap.data.store.measure.decide", watched)
    choose_store(layout(), _slow, GB, None, name=NAME)
    assert seen[0].entry_bytes == pytest.approx(np.mean([picture(entry).nbytes for entry in range(40)]), rel=0.05)
    assert 0.002 <= seen[0].decode_s < 0.02


def test_room_that_other_stores_were_promised_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillsnap.data.store.measure.room_in", lambda _: GB)
    assert choose_store(layout(), _slow, 0, tmp_path, name=NAME).cache_policy == "mmap"
    options = choose_store(layout(), _slow, 0, tmp_path, name=NAME, promised=GB)
    assert options == StoreOptions(cache_policy="none")
