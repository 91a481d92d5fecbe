"""Takes the figures that `choose` decides by, on a few pictures and the disk of the cache folder."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from pillsnap.data.images import RgbImage
from pillsnap.data.store.choose import GB, MS, Decision, Measured, decide
from pillsnap.data.store.codec import decode, encode
from pillsnap.data.store.layout import StoreLayout, StoreOptions, hash_order
from pillsnap.data.store.room import room_in
from pillsnap.data.store.slab_folder import file_stem
from pillsnap.errors import BrokenImageError
from pillsnap.fastzlib import crc32

logger = logging.getLogger("pillsnap")

NUM_SAMPLES = 24
NO_DISK_BYTES_PER_S = 1.0

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def choose_store(
    layout: StoreLayout,
    sample: Callable[[int], RgbImage],
    free_ram: int,
    cache_dir: Path | None,
    *,
    name: str,
    promised: int = 0,
) -> StoreOptions:
    """Measure, decide, and log every way with its figures.

    Args:
        layout: What the store will hold.
        sample: Decodes an entry from its original; may raise `BrokenImageError`.
        free_ram: Bytes the store may use, by the RAM plan.
        cache_dir: As for `open_store`.
        name: As for `open_store`; what lies there for it already counts as room.
        promised: As for `open_store`.

    Returns:
        Options without `auto`; nothing is kept when no sample can be decoded.
    """
    samples, decode_s = _decode_samples(layout, sample)
    if not samples:
        logger.warning("cache_policy auto: none of the pictures tried can be decoded; nothing is kept")
        return StoreOptions(cache_policy="none")
    free_disk, disk_bytes_per_s = _disk(layout, samples, cache_dir, name, promised)
    packed, pack_s = _timed(lambda image: encode(image, "lossless"), samples)
    pairs = list(zip(packed, samples, strict=True))
    _, unpack_s = _timed(lambda pair: decode(pair[0], pair[1].shape[:2], "lossless"), pairs)
    _, read_s = _timed(lambda image: crc32(image.copy()), samples)
    num_bytes = sum(image.nbytes for image in samples)
    measured = Measured(
        num_entries=len(layout.kept),
        entry_bytes=num_bytes / len(samples),
        decode_s=decode_s,
        read_s=read_s,
        disk_bytes_per_s=disk_bytes_per_s,
        pack_s=pack_s,
        unpack_s=unpack_s,
        packed_share=sum(map(len, packed)) / num_bytes,
        free_ram=free_ram,
        free_disk=free_disk,
    )
    decision = decide(measured)
    _say(decision, measured, name)
    return decision.options


def _say(decision: Decision, measured: Measured, name: str) -> None:
    logger.info(
        "pixel store %s, measured: decoding %.2f ms, packing %.2f ms, unpacking %.2f ms to %.0f %% of the bytes, disk "
        "%.2f GB/s; free RAM %.1f GB, disk %.1f GB",
        name,
        measured.decode_s / MS,
        measured.pack_s / MS,
        measured.unpack_s / MS,
        100 * measured.packed_share,
        measured.disk_bytes_per_s / GB,
        measured.free_ram / GB,
        measured.free_disk / GB,
    )
    for candidate in decision.candidates:
        logger.info(
            "pixel store %s, %s: %.2f ms a picture, %.2f GB of RAM, %.2f GB of disk%s",
            name,
            candidate.label,
            candidate.seconds / MS,
            candidate.ram_bytes / GB,
            candidate.disk_bytes / GB,
            "" if candidate.fits else " (no room)",
        )
    logger.info("pixel store %s: %s", name, decision.reason)


def _decode_samples(layout: StoreLayout, sample: Callable[[int], RgbImage]) -> tuple[list[RgbImage], float]:
    samples, seconds = [], []
    for entry in hash_order(layout)[:NUM_SAMPLES].tolist():
        start = time.perf_counter()
        try:
            samples.append(np.ascontiguousarray(sample(entry)))
        except BrokenImageError:
            continue
        seconds.append(time.perf_counter() - start)
    return samples, statistics.median(seconds) if seconds else 0.0


def _timed(call: Callable[[Argument], Result], arguments: Sequence[Argument]) -> tuple[list[Result], float]:
    """Return what `call` gives for each argument, and the median of the seconds it took."""
    results, seconds = [], []
    for argument in arguments:
        start = time.perf_counter()
        results.append(call(argument))
        seconds.append(time.perf_counter() - start)
    return results, statistics.median(seconds)


def _disk(
    layout: StoreLayout, samples: list[RgbImage], cache_dir: Path | None, name: str, promised: int
) -> tuple[int, float]:
    """Return the room in the cache folder and how fast its disk reads; no room where it cannot be written to."""
    if cache_dir is None:
        return 0, NO_DISK_BYTES_PER_S
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        speed = _read_speed(samples, cache_dir)
        stem = file_stem(name, layout.identity)
        own = sum(path.stat().st_blocks * 512 for path in cache_dir.rglob("*") if path.is_file() and stem in str(path))
        return max(room_in(cache_dir) - promised, 0) + own, speed
    except OSError as error:
        logger.warning("cache_policy auto: %s cannot be used: %s", cache_dir, error.strerror or error)
        return 0, NO_DISK_BYTES_PER_S


def _read_speed(samples: list[RgbImage], cache_dir: Path) -> float:
    """Return bytes a second of reading pixels past the page cache (where the file system has one it can be told)."""
    with tempfile.TemporaryFile(dir=cache_dir) as file:
        for image in samples:
            file.write(image.data.cast("B"))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        num_bytes = sum(len(file.read(image.nbytes)) for image in samples)
        return num_bytes / (time.perf_counter() - start)
