"""What processes share: memory, files, and the right to write."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.store.cache_lock import take_lock
from pillsnap.data.store.shared import FIRST_OFFSET, SharedMemory
from pillsnap.data.store.slab_file import SlabFile, create_slab_file
from tests.unit.data.store.builders import HOTSET, MMAP, fill, filled, in_process, layout, missing, opened

pytestmark = pytest.mark.req("DAT-3")


def test_memory_is_one_for_all_who_open_it() -> None:
    memory = SharedMemory(4096, 4096)
    other: SharedMemory = pickle.loads(pickle.dumps(memory))
    memory.array(FIRST_OFFSET, (2, 3), np.int32)[1, 2] = 7
    assert other.array(FIRST_OFFSET, (2, 3), np.int32)[1, 2] == 7
    assert other.descriptor() != memory.descriptor()
    assert other.owner_pid == os.getpid()


def test_memory_whose_number_is_another_file_by_now_is_refused(tmp_path: Path) -> None:
    memory = SharedMemory(4096, 4096)
    sent, number = pickle.dumps(memory), memory.descriptor()
    (tmp_path / "other").write_bytes(bytes(100))
    memory.close()
    assert os.open(tmp_path / "other", os.O_RDWR) == number  # the lowest that is free
    with pytest.raises(OSError, match=f"has another file open under the number {number}"):
        pickle.loads(sent).descriptor()
    os.close(number)


def test_memory_takes_only_what_is_written() -> None:
    memory = SharedMemory(1 << 40, 4096)
    assert os.fstat(memory.descriptor()).st_blocks * 512 <= 4096


def test_arrays_outlive_the_descriptor() -> None:
    memory = SharedMemory(4096, 4096)
    array = memory.array(FIRST_OFFSET, (1,), np.uint8)
    memory.close()
    array[0] = 5
    assert array[0] == 5


def test_a_file_replaced_by_another_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.slab"
    create_slab_file(path, "one", layout().keys, layout().capacity)
    file = SlabFile.look_at(path, "one", is_writable=True)
    assert file is not None
    create_slab_file(path, "one", layout().keys, layout().capacity)
    with pytest.raises(OSError, match="is another file by now"):
        file.slab()


def test_a_store_whose_file_was_replaced_goes_on_in_ram(tmp_path: Path) -> None:
    filled(tmp_path, HOTSET)
    store = opened(tmp_path, HOTSET)
    fill(store)
    sent = pickle.dumps(store)
    (path,) = tmp_path.glob("*.slab")
    create_slab_file(path, "one", layout().keys, layout().capacity)
    assert missing(pickle.loads(sent)) == []


def test_a_store_whose_file_is_gone_wants_nothing_and_serves_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, MMAP)
    other = pickle.loads(pickle.dumps(store))
    (path,) = tmp_path.glob("*.slab")
    path.unlink()
    assert (other.wants(0), other.read(0)) == (False, None)
    store.close()


def test_a_lock_is_held_by_one_process(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "x.lock")
    assert lock is not None
    in_process(_expect_no_lock, tmp_path)
    lock.release()
    lock.release()
    in_process(_expect_lock, tmp_path)


def _expect_no_lock(folder: Path) -> None:
    assert take_lock(folder / "x.lock") is None


def _expect_lock(folder: Path) -> None:
    assert take_lock(folder / "x.lock") is not None


def test_a_fork_does_not_give_its_parents_lock_back(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "x.lock")
    assert lock is not None
    in_process(lock.release)
    in_process(_expect_no_lock, tmp_path)
    lock.release()


def test_a_lock_is_held_until_its_last_use_ends(tmp_path: Path) -> None:
    first, second = take_lock(tmp_path / "x.lock"), take_lock(tmp_path / "x.lock")
    assert first is not None
    assert second is not None
    first.release()
    in_process(_expect_no_lock, tmp_path)
    second.release()
    in_process(_expect_lock, tmp_path)


def test_a_file_system_without_locks_is_an_error_that_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No locks available"):
        take_lock(tmp_path / "x.lock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
