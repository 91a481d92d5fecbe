"""Small stores: entries of a few hundred bytes whose pixels are a function of their number."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pillsnap.data.images import RgbImage
from pillsnap.data.store.layout import Stamp, StoreLayout, StoreOptions
from pillsnap.data.store.opening import open_store
from pillsnap.data.store.tiers import PixelStore

NAME = "test"
STAMP = Stamp(1000, 5)
HOTSET = StoreOptions(cache_policy="hotset", hotset_entries=10**6)
MMAP = StoreOptions(cache_policy="mmap")
LMDB = StoreOptions(cache_policy="none", use_lmdb=True)
JPEG = StoreOptions(cache_policy="none", use_lmdb=True, lmdb_codec="jpeg")
OF_DISK = {"mmap": MMAP, "lmdb": LMDB}
EVERY = {"hotset": HOTSET, **OF_DISK, "hotset+lmdb": StoreOptions(hotset_entries=10**6, use_lmdb=True)}


def picture(number: int, side_px: int = 16) -> RgbImage:
    """Return noise on a slope, (side, side + number % 3, 3), another one for each number."""
    shape = (side_px, side_px + number % 3, 3)
    noise = np.random.default_rng(number).integers(0, 60, shape, np.uint8)
    return noise + np.arange(shape[1], dtype=np.uint8)[None, :, None]


def layout(num_entries: int = 40, *, identity: str = "one", first: int = 0, side_px: int = 16) -> StoreLayout:
    """Return places for `picture(first)` and so on; an entry's key depends on its picture's number alone."""
    numbers = np.arange(first, first + num_entries)
    keys = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    return StoreLayout(keys, np.full(num_entries, side_px * (side_px + 2) * 3, np.int64), identity)


def opened(folder: Path | None, options: StoreOptions, entries: StoreLayout | None = None) -> PixelStore:
    """Open a store of the usual name."""
    return open_store(layout() if entries is None else entries, options, folder, name=NAME)


def fill(store: PixelStore, num_entries: int = 40, *, side_px: int = 16) -> None:
    """Write all entries and commit them."""
    for entry in range(num_entries):
        store.write(entry, picture(entry, side_px), STAMP)
    store.flush()


def filled(folder: Path, options: StoreOptions, num_entries: int = 40, *, side_px: int = 16) -> None:
    """Leave a complete store in a folder, as a run that has ended does."""
    store = opened(folder, options, layout(num_entries, side_px=side_px))
    fill(store, num_entries, side_px=side_px)
    store.close()


def missing(store: PixelStore, num_entries: int = 40, *, side_px: int = 16) -> list[int]:
    """Return the entries that are absent; each other one must be what was written.

    Raises:
        AssertionError: One is there with other pixels.
    """
    absent = []
    for entry in range(num_entries):
        pixels = store.read(entry)
        if pixels is None:
            absent.append(entry)
        else:
            assert np.array_equal(pixels, picture(entry, side_px)), f"entry {entry} has other pixels"
    return absent


def is_same(found: RgbImage | None, expected: RgbImage) -> bool:
    """Tell whether an entry was found with these pixels."""
    return found is not None and np.array_equal(found, expected)


def in_process(action: Callable[..., Any], *args: Any, method: str = "fork") -> None:
    """Run `action` in a process of its own.

    Raises:
        AssertionError: It failed.
    """
    process = multiprocessing.get_context(method).Process(target=action, args=args)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 0


def similarity(one: RgbImage, other: RgbImage) -> float:
    """Return the PSNR in dB, by OpenCV."""
    return float(cv2.PSNR(one, other))
