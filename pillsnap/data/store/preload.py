"""Fills a store before the first step, so that the first epoch does not wait for pictures that are decoded once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.tiers import PixelStore
from pillsnap.errors import BrokenImageError

logger = logging.getLogger("pillsnap")

CHUNK_ENTRIES = 32

Make = Callable[[int], object]
"""Decodes an entry and writes it to the store; may raise `BrokenImageError`."""


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What a preload did with the entries it was given."""

    written: int
    present: int
    """Were in the store already; those that lay on the disk are in RAM now."""
    broken: int
    """Originals that cannot be decoded; training skips and counts them when it meets them."""
    seconds: float


def preload(store: PixelStore, entries: Iterable[int], make: Make, num_processes: int = 0) -> Preloaded:
    """Put entries into a store, as many of them as it wants.

    Args:
        store: Where to.
        entries: Which ones; the first of `hash_order` are those that the hot set keeps.
        make: Decodes and keeps one. With processes it must survive the way into them (pickled, unless they are forked).
        num_processes: How many decode at once; 0 does it in this process.
    """
    start = time.perf_counter()
    wanted = np.fromiter(entries, np.int64)
    chunks = np.split(wanted, range(CHUNK_ENTRIES, len(wanted), CHUNK_ENTRIES))
    if num_processes == 0:
        done = [_fill(store, make, chunk) for chunk in chunks]
    else:
        done = _fill_in_processes(store, make, chunks, num_processes)
    written, present, broken = (sum(counts) for counts in zip(*done, strict=True)) if done else (0, 0, 0)
    result = Preloaded(written, present, broken, time.perf_counter() - start)
    logger.info(
        "preloaded %d picture parts in %.1f s; %d were in the store already, %d cannot be decoded",
        written,
        result.seconds,
        present,
        broken,
    )
    return result


def _fill(store: PixelStore, make: Make, entries: NDArray[np.int64]) -> tuple[int, int, int]:
    written = present = broken = 0
    for entry in entries.tolist():
        if store.read(entry) is not None:
            present += 1
            continue
        try:
            make(entry)
        except BrokenImageError:
            broken += 1
            continue
        written += 1
    store.flush()
    return written, present, broken


_job: tuple[PixelStore, Make] | None = None  # of a process of the pool, set once when it starts


def _start_process(store: PixelStore, make: Make) -> None:
    global _job
    os.setpgrp()  # Ctrl-C goes to the main process, which ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    _job = store, make


def _fill_chunk(entries: NDArray[np.int64]) -> tuple[int, int, int]:
    assert _job is not None, "every process of the pool is started with its job"
    return _fill(*_job, entries)


def _fill_in_processes(
    store: PixelStore, make: Make, chunks: list[NDArray[np.int64]], num_processes: int
) -> list[tuple[int, int, int]]:
    context = multiprocessing.get_context()
    done: list[tuple[int, int, int]] = []
    with ProcessPoolExecutor(num_processes, context, _start_process, (store, make)) as pool:
        try:
            done.extend(pool.map(_fill_chunk, chunks))
        except BrokenProcessPool as error:
            logger.warning("preloading ended early: %s. What is missing is decoded when training needs it.", error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done
