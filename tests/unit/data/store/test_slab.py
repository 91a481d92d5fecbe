import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.store.layout import DamagedEntryError, Kept, Stamp
from pillsnap.data.store.slab import RECORD, Slab, place_checks, plan_records
from pillsnap.fastzlib import crc32
from tests.unit.data.store.builders import STAMP, layout, picture

pytestmark = pytest.mark.req("DAT-3")

KEYS = layout(3).keys
KEY = int(KEYS[1])
TABLE = 128
KEPT = Kept(picture(1), STAMP)
CRC = crc32(KEPT.pixels)


@pytest.fixture
def slab(tmp_path: Path) -> Iterator[Slab]:
    """Lay three places of 900 bytes out in a file."""
    records, num_bytes = plan_records(KEYS, np.full(3, 900, np.int64), TABLE)
    (tmp_path / "slab").write_bytes(bytes(TABLE) + records.tobytes())
    descriptor = os.open(tmp_path / "slab", os.O_RDWR)
    os.ftruncate(descriptor, num_bytes)
    yield Slab(descriptor, TABLE, 3)
    os.close(descriptor)


def test_places_lie_side_by_side_behind_the_records_and_do_not_overlap() -> None:
    records, num_bytes = plan_records(KEYS, np.array([100, 900, 64]), TABLE)
    offsets, ends = records["offset"].astype(int), records["offset"].astype(int) + records["capacity"]
    assert offsets[0] >= TABLE + records.nbytes
    assert (offsets[1:] >= ends[:-1]).all()
    assert ends[-1] <= num_bytes
    assert (offsets % 64 == 0).all()


def test_no_entries_take_no_room() -> None:
    records, num_bytes = plan_records(KEYS[:0], np.zeros(0, np.int64), TABLE)
    assert (len(records), num_bytes) == (0, TABLE)


@pytest.mark.parametrize("field", ["key", "offset", "capacity"])
def test_every_bit_of_a_place_is_under_its_checksum(field: str) -> None:
    records, _ = plan_records(KEYS[:1], np.array([900]), TABLE)
    for bit in range(8 * RECORD[field].itemsize):
        flipped = records.copy()
        flipped[field] ^= np.array(1 << bit, RECORD[field])
        assert place_checks(flipped) != flipped["place_check"]


def test_what_was_written_is_read_with_its_stamp(slab: Slab) -> None:
    assert slab.write(1, KEY, KEPT, CRC)
    found = slab.read(1, KEY)
    assert found is not None
    assert found.stamp == STAMP
    assert np.array_equal(found.pixels, KEPT.pixels)


def test_what_was_not_written_is_absent(slab: Slab) -> None:
    slab.write(1, KEY, KEPT, CRC)
    assert (slab.read(0, int(KEYS[0])), slab.holds(0), slab.holds(1)) == (None, False, True)


def test_an_erased_entry_is_absent(slab: Slab) -> None:
    slab.write(1, KEY, KEPT, CRC)
    slab.erase(1)
    assert (slab.read(1, KEY), slab.holds(1)) == (None, False)


def test_pixels_that_do_not_fit_are_not_written(slab: Slab) -> None:
    large = Kept(np.zeros((16, 19, 3), np.uint8), STAMP)  # 912 bytes
    assert not slab.write(1, KEY, large, crc32(large.pixels))
    assert slab.read(1, KEY) is None


def test_a_side_that_the_record_has_no_number_for_is_not_written(slab: Slab) -> None:
    assert not slab.write(1, KEY, Kept(np.zeros((65536, 0, 3), np.uint8), STAMP), 0)


def test_a_slot_of_another_key_is_neither_read_nor_written(slab: Slab) -> None:
    slab.write(1, KEY, KEPT, CRC)
    assert not slab.write(0, KEY, KEPT, CRC)
    with pytest.raises(DamagedEntryError, match="record of slot 1 is wrong"):
        slab.read(1, int(KEYS[2]))


def test_an_entry_may_be_replaced(slab: Slab) -> None:
    slab.write(1, KEY, KEPT, CRC)
    other = Kept(picture(2), Stamp(7, 8))
    slab.write(1, KEY, other, crc32(other.pixels))
    found = slab.read(1, KEY)
    assert found is not None
    assert found.stamp == Stamp(7, 8)


def test_the_same_entry_is_not_written_twice(slab: Slab, monkeypatch: pytest.MonkeyPatch) -> None:
    slab.write(1, KEY, KEPT, CRC)
    monkeypatch.setattr(os, "pwrite", None)
    assert slab.write(1, KEY, KEPT, CRC)


def test_pixels_come_before_the_record(slab: Slab, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets: list[int] = []
    write = os.pwrite

    def watched(descriptor: int, data: bytes, offset: int) -> int:
        offsets.append(offset)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", watched)
    slab.write(1, KEY, KEPT, CRC)
    assert offsets == [int(slab.records()["offset"][1]), TABLE + RECORD.itemsize + 32]


def test_a_disk_that_takes_a_part_gets_the_rest(slab: Slab, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:100], at))
    slab.write(1, KEY, KEPT, CRC)
    assert slab.read(1, KEY) is not None


def test_every_flipped_byte_of_an_entry_is_found(slab: Slab) -> None:
    slab.write(1, KEY, KEPT, CRC)
    start = int(slab.records()["offset"][1])
    record = TABLE + RECORD.itemsize
    wrong = {"key": [*range(record, record + 8)], "content": [*range(record + 32, record + 60)]}
    for place in (*wrong["key"], *wrong["content"], *range(start, start + KEPT.pixels.nbytes)):
        before = os.pread(slab.descriptor, 1, place)
        os.pwrite(slab.descriptor, bytes([before[0] ^ 0x10]), place)
        with pytest.raises(DamagedEntryError):
            slab.read(1, KEY)
        os.pwrite(slab.descriptor, before, place)
    assert slab.read(1, KEY) is not None


@pytest.mark.parametrize("length", [TABLE + 70, 700])
def test_a_file_that_ends_early_is_damage(slab: Slab, length: int) -> None:
    slab.write(1, KEY, KEPT, CRC)
    os.ftruncate(slab.descriptor, length)
    with pytest.raises(DamagedEntryError):
        slab.read(1, KEY)


def test_records_behind_the_end_are_damage_and_take_nothing(slab: Slab) -> None:
    os.ftruncate(slab.descriptor, TABLE + 70)
    assert not slab.holds(2)
    assert not slab.write(2, int(KEYS[2]), KEPT, CRC)
    with pytest.raises(DamagedEntryError, match="ends inside its records"):
        slab.records()


def test_the_fast_checksum_is_the_one_of_zlib() -> None:
    assert crc32(KEPT.pixels) == zlib.crc32(KEPT.pixels.tobytes())
