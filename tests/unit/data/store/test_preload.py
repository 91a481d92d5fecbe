import logging
import os
from functools import partial
from pathlib import Path

import pytest

from pillsnap.data.store.layout import StoreOptions, hash_order
from pillsnap.data.store.preload import preload
from pillsnap.data.store.tiers import PixelStore
from pillsnap.errors import BrokenImageError
from tests.unit.data.store.builders import EVERY, HOTSET, STAMP, filled, layout, missing, opened, picture

pytestmark = pytest.mark.req("DAT-3")


def _make(store: PixelStore, entry: int) -> None:
    if entry == 13:
        raise BrokenImageError("13 is broken")
    store.write(entry, picture(entry), STAMP)


@pytest.mark.parametrize("num_processes", [0, 2])
@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_entries_are_there_before_anybody_reads_them(tmp_path: Path, options: StoreOptions, num_processes: int) -> None:
    store = opened(tmp_path, options)
    done = preload(store, range(35), partial(_make, store), num_processes)
    assert (done.written, done.present, done.broken) == (34, 0, 1)
    assert missing(store) == [13, *range(35, 40)]
    assert (store.counts().written, store.counts().left_out) == (34, 0), "each was written once"
    assert done.seconds > 0


def test_what_the_disk_has_is_brought_into_ram(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, HOTSET)
    store = opened(tmp_path, HOTSET)
    with caplog.at_level(logging.INFO):
        done = preload(store, hash_order(layout())[:10], partial(_make, store))
    assert (done.written, done.present, store.counts().in_ram) == (0, 10, 10)
    assert "preloaded 0 picture parts" in caplog.text


def test_nothing_to_preload_is_fine() -> None:
    store = opened(None, HOTSET)
    done = preload(store, [], partial(_make, store))
    assert (done.written, done.present, done.broken) == (0, 0, 0)


def _die(entry: int) -> None:
    os._exit(3)


def test_processes_that_end_leave_the_rest_to_training(caplog: pytest.LogCaptureFixture) -> None:
    store = opened(None, HOTSET)
    assert preload(store, range(40), _die, 2).written == 0
    assert "preloading ended early" in caplog.text


def test_an_error_of_the_maker_is_not_hidden() -> None:
    def fail(entry: int) -> None:
        raise RuntimeError(f"entry {entry}")

    with pytest.raises(RuntimeError, match="entry 0"):
        preload(opened(None, HOTSET), range(3), fail, 2)
