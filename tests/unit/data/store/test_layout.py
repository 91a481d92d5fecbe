from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.store.layout import hash_order, stat_stamps
from tests.unit.data.store.builders import layout

pytestmark = pytest.mark.req("DAT-3")


def test_the_order_depends_on_keys_alone() -> None:
    one, grown = layout(40), layout(60)
    ours = [int(one.keys[entry]) for entry in hash_order(one)]
    theirs = [int(grown.keys[entry]) for entry in hash_order(grown)]
    assert ours == [key for key in theirs if key in set(ours)]
    assert ours != sorted(ours)


def test_entries_without_room_are_in_no_order() -> None:
    entries = replace(layout(4), capacity=np.array([0, 5, 0, 7]))
    assert sorted(hash_order(entries)) == [1, 3]


def test_a_key_that_occurs_twice_is_refused() -> None:
    entries = layout(3)
    entries.keys[2] = entries.keys[0]
    with pytest.raises(ValueError, match="1 keys of a layout occur twice"):
        entries.check()


def test_a_key_may_occur_again_where_nothing_is_kept() -> None:
    entries = replace(layout(3), capacity=np.array([9, 9, 0]))
    entries.keys[2] = entries.keys[0]
    entries.check()


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 keys, 2 capacities and stamps of shape None"):
        replace(layout(3), capacity=np.ones(2, np.int64)).check()
    with pytest.raises(ValueError, match=r"stamps of shape \(3, 1\)"):
        replace(layout(3), stamps=np.ones((3, 1), np.int64)).check()


def test_stamps_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"four")
    stamps = stat_stamps(lambda entry: str(tmp_path / str(entry)), 2)
    assert stamps.tolist() == [[4, (tmp_path / "0").stat().st_mtime_ns], [0, 0]]
