"""The pixels of a run's pictures, decoded once: shared memory first, then the cache folder.

What is in neither is decoded by the caller and put here. A store may be used by any number of processes at once, forked
or spawned; each opens what it needs when it first needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from pillsnap.data.images import RgbImage
from pillsnap.data.store.cache_lock import CacheLock
from pillsnap.data.store.codec import psnr_db
from pillsnap.data.store.layout import CHANNELS, DamagedEntryError, Kept, Stamp, StoreCounts
from pillsnap.data.store.ledger import Ledger, map_ledger
from pillsnap.data.store.lmdb_tier import ABSENT, NO_PLACE, PRESENT, LmdbTier, lmdb_bytes
from pillsnap.data.store.room import CHECK_BYTES, require_room, say_full
from pillsnap.data.store.shared import SharedMemory
from pillsnap.data.store.slab import MAX_SIDE_PX, RECORD, Slab
from pillsnap.data.store.slab_file import SlabFile
from pillsnap.data.store.slab_folder import NOWHERE, SLOT_BITS
from pillsnap.fastzlib import crc32

logger = logging.getLogger("pillsnap")

PSNR_SAMPLES = 64
SLOT_MASK = (1 << SLOT_BITS) - 1
DISK_ERRORS = (OSError, lmdb.Error)


@dataclass(frozen=True, kw_only=True)
class Tiers:
    """What a store is made of, as `open_store` found it."""

    memory: SharedMemory | None
    """None: nothing is kept at all."""
    num_entries: int
    ram_table_offset: int
    num_ram_slots: int
    files: Sequence[SlabFile]
    lmdb: LmdbTier | None
    folder: Path | None
    """The cache folder, where this run may write to it."""

    @property
    def is_writable(self) -> bool:
        """Whether this run may write to the cache folder."""
        return self.folder is not None


class PixelStore:
    """Entries by number; see `StoreLayout`. Pickling sends paths and the number of a descriptor."""

    def __init__(self, tiers: Tiers, lock: CacheLock | None = None) -> None:
        """Use `tiers`; `open_store` makes them."""
        self._tiers = tiers
        self._lock = lock
        self._ledger: Ledger | None = None
        self._ram: Slab | None = None
        self._is_off = False
        self._unlooked_bytes = 0

    def read(self, entry: int) -> RgbImage | None:
        """Return an entry's pixels, uint8 (h, w, 3), compared with their checksum; a copy of the caller's own.

        Returns:
            None when the entry is not there, was made of an original that has changed since, or is damaged; the caller
            decodes it and calls `write`.
        """
        ledger = self._opened()
        if ledger is None:
            return None
        kept = self._read_ram(ledger, entry)
        if kept is not None:
            ledger.count("hits_ram")
            return kept.pixels
        kept = self._read_disk(ledger, entry)
        if kept is None:
            ledger.count("misses")
            return None
        ledger.count("hits_disk")
        self._write_ram(ledger, entry, kept, crc32(kept.pixels))
        return kept.pixels

    def wants(self, entry: int) -> bool:
        """Tell whether `write` would keep an entry: it has a place in some tier and is missing there."""
        ledger = self._opened()
        if ledger is None:
            return False
        slot = int(ledger.ram_slots[entry])
        if slot >= 0 and self._ram is not None and not self._ram.holds(slot):
            return True
        return self._disk_wants(ledger, entry)

    def write(self, entry: int, pixels: RgbImage, stamp: Stamp) -> RgbImage:
        """Keep an entry in every tier that has a place for it; one without any costs nothing.

        A kill while this runs leaves the entry whole or absent. What does not fit its place or the disk is left out and
        counted.

        Args:
            entry: Its number.
            pixels: uint8 (h, w, 3).
            stamp: Of the original, taken before it was decoded.

        Returns:
            What later reads will give: `pixels`, unless they are packed lossily.

        Raises:
            ValueError: `pixels` is no RGB picture.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != CHANNELS or pixels.size == 0:
            raise ValueError(
                f"A store got {pixels.dtype} of shape {pixels.shape}; wanted uint8 (h, w, 3). Give it RGB pixels."
            )
        ledger = self._opened()
        if ledger is None or not self._has_place(ledger, entry):
            return pixels
        kept = Kept(np.ascontiguousarray(pixels), stamp)
        ledger.stamps[entry] = stamp
        packed = None
        tier = self._tiers.lmdb
        if tier is not None and (tier.codec == "jpeg" or self._disk_wants(ledger, entry)):
            packed, kept = self._packed(tier, ledger, entry, kept)
        takes_pixels = ledger.ram_slots[entry] >= 0 or (tier is None and not ledger.is_disk_full)
        checksum = crc32(kept.pixels) if takes_pixels else 0
        is_kept = self._write_ram(ledger, entry, kept, checksum)
        is_kept |= self._write_disk(ledger, entry, kept, checksum, packed)
        ledger.count("written" if is_kept else "left_out")
        return kept.pixels

    def flush(self) -> None:
        """Commit what this process holds back for LMDB; it is done at the process's end too."""
        ledger = self._opened()
        if ledger is None or self._tiers.lmdb is None:
            return
        try:
            self._tiers.lmdb.flush(ledger.lmdb)
        except DISK_ERRORS as error:
            self._stop_writing(ledger, error)

    def close(self) -> None:
        """Commit and close everything in this process; nothing is kept or found afterwards."""
        if self._tiers.lmdb is not None and self._ledger is not None:
            self._tiers.lmdb.close()
        for file in self._tiers.files:
            file.close()
        self._ledger, self._ram, self._is_off = None, None, True
        if self._tiers.memory is not None:
            self._tiers.memory.close()
        if self._lock is not None:
            self._lock.release()

    def counts(self) -> StoreCounts:
        """Return what the store holds and has done, over all processes; all zeros once it is closed."""
        ledger = self._opened()
        if ledger is None:
            return StoreCounts()
        psnr = ledger.psnr() or (None, None)
        in_ram, ram_bytes = _held(self._ram)
        has_place = (ledger.ram_slots >= 0) | (ledger.disk_places != NOWHERE)
        names = ("hits_ram", "hits_disk", "misses", "written", "damaged", "stale", "left_out")
        if self._tiers.lmdb is not None:
            has_place |= ledger.lmdb.states != NO_PLACE
            on_disk = int((ledger.lmdb.states == PRESENT).sum())
            disk_bytes = lmdb_bytes(self._tiers.lmdb.path)
        else:
            on_disk, disk_bytes = self._held_on_disk(ledger)
        return StoreCounts(
            entries=int(has_place.sum()),
            in_ram=in_ram,
            on_disk=on_disk,
            ram_bytes=ram_bytes,
            disk_bytes=disk_bytes,
            **{name: ledger.total(name) for name in names},
            is_disk_full=ledger.is_disk_full,
            jpeg_psnr_mean_db=psnr[0],
            jpeg_psnr_min_db=psnr[1],
        )

    def _opened(self) -> Ledger | None:
        tiers = self._tiers
        if self._ledger is not None or self._is_off or tiers.memory is None:
            return self._ledger
        try:
            self._ledger = map_ledger(tiers.memory, tiers.num_entries)
            if tiers.num_ram_slots:
                self._ram = Slab(tiers.memory.descriptor(), tiers.ram_table_offset, tiers.num_ram_slots)
        except OSError as error:
            self._is_off, self._ledger = True, None
            logger.warning(
                "this process does without the pixel store and decodes every picture: the memory of process %d cannot "
                "be opened (%s)",
                tiers.memory.owner_pid,
                error,
            )
        return self._ledger

    def _read_ram(self, ledger: Ledger, entry: int) -> Kept | None:
        slot = int(ledger.ram_slots[entry])
        if slot < 0 or self._ram is None:
            return None
        try:
            return self._ram.read(slot, int(ledger.lmdb.keys[entry]))
        except (DamagedEntryError, OSError):
            ledger.count("damaged")
            with suppress(OSError):
                self._ram.erase(slot)
            return None

    def _write_ram(self, ledger: Ledger, entry: int, kept: Kept, checksum: int) -> bool:
        slot = int(ledger.ram_slots[entry])
        if slot < 0 or self._ram is None:
            return False
        try:
            return self._ram.write(slot, int(ledger.lmdb.keys[entry]), kept, checksum)
        except OSError:  # no memory left: the entry stays absent
            return False

    def _read_disk(self, ledger: Ledger, entry: int) -> Kept | None:
        try:
            if self._tiers.lmdb is not None:
                kept = self._tiers.lmdb.read(entry, ledger.lmdb)
            else:
                kept = self._read_file(ledger, entry)
        except (DamagedEntryError, *DISK_ERRORS) as error:
            ledger.count("damaged")
            logger.debug("entry %d of the pixel store is damaged: %s", entry, error)
            self._forget(ledger, entry)
            return None
        if kept is not None and not ledger.is_current(entry, kept.stamp):
            ledger.count("stale")
            self._forget(ledger, entry)
            return None
        return kept

    def _read_file(self, ledger: Ledger, entry: int) -> Kept | None:
        place = int(ledger.disk_places[entry])
        if place == NOWHERE:
            return None
        slab = self._tiers.files[place >> SLOT_BITS].slab()
        return slab.read(place & SLOT_MASK, int(ledger.lmdb.keys[entry]))

    def _forget(self, ledger: Ledger, entry: int) -> None:
        """Make an entry absent in the cache folder, so that it is written again."""
        if self._tiers.lmdb is not None:
            ledger.lmdb.states[entry] = ABSENT
            return
        if self._tiers.is_writable:
            place = int(ledger.disk_places[entry])
            with suppress(OSError):
                self._tiers.files[place >> SLOT_BITS].slab().erase(place & SLOT_MASK)

    def _has_place(self, ledger: Ledger, entry: int) -> bool:
        if ledger.ram_slots[entry] >= 0:
            return True
        if self._tiers.lmdb is not None:
            return bool(ledger.lmdb.states[entry] != NO_PLACE)
        return self._tiers.is_writable and bool(ledger.disk_places[entry] != NOWHERE)

    def _disk_wants(self, ledger: Ledger, entry: int) -> bool:
        if not self._tiers.is_writable or ledger.is_disk_full:
            return False
        if self._tiers.lmdb is not None:
            return bool(ledger.lmdb.states[entry] == ABSENT)
        place = int(ledger.disk_places[entry])
        if place == NOWHERE:
            return False
        try:
            return not self._tiers.files[place >> SLOT_BITS].slab().holds(place & SLOT_MASK)
        except OSError:
            return False

    def _packed(self, tier: LmdbTier, ledger: Ledger, entry: int, kept: Kept) -> tuple[bytes | None, Kept]:
        """Return an entry packed for LMDB (None: it cannot be), and as it will be read."""
        if max(kept.pixels.shape[:2]) > MAX_SIDE_PX:
            return None, kept
        packed = tier.pack(entry, kept, ledger.lmdb)
        if tier.codec != "jpeg":
            return packed, kept
        seen = tier.unpack(entry, packed, ledger.lmdb)
        if ledger.total("psnr_count") < PSNR_SAMPLES:
            ledger.note_psnr(psnr_db(kept.pixels, seen.pixels))
            self._say_psnr(ledger)
        return packed, seen

    def _say_psnr(self, ledger: Ledger) -> None:
        psnr = ledger.psnr()
        if psnr is not None and ledger.total("psnr_count") == PSNR_SAMPLES:
            logger.info(
                "the pixel store keeps JPEG: PSNR of the first %d pictures %.1f dB on average, %.1f dB at least",
                PSNR_SAMPLES,
                *psnr,
            )

    def _write_disk(self, ledger: Ledger, entry: int, kept: Kept, checksum: int, packed: bytes | None) -> bool:
        if self._tiers.lmdb is not None and ledger.lmdb.states[entry] == PRESENT:
            return True  # another process was faster
        if not self._tiers.is_writable or ledger.is_disk_full:
            return False
        try:
            if self._tiers.lmdb is not None:
                if packed is None or ledger.lmdb.states[entry] != ABSENT:
                    return False
                self._look_at_room(len(packed))
                return self._tiers.lmdb.write(entry, packed, ledger.lmdb)
            place = int(ledger.disk_places[entry])
            if place == NOWHERE:
                return False
            self._look_at_room(kept.pixels.nbytes)
            slab = self._tiers.files[place >> SLOT_BITS].slab()
            return slab.write(place & SLOT_MASK, int(ledger.lmdb.keys[entry]), kept, checksum)
        except DISK_ERRORS as error:
            self._stop_writing(ledger, error)
            return False

    def _stop_writing(self, ledger: Ledger, error: Exception) -> None:
        if ledger.note_full_disk():
            say_full(error)

    def _look_at_room(self, num_bytes: int) -> None:
        """Look every so many bytes whether `num_bytes` more may be written.

        Raises:
            OSError: The disk has its reserve left only.
        """
        self._unlooked_bytes += num_bytes
        if self._unlooked_bytes >= CHECK_BYTES and self._tiers.folder is not None:
            self._unlooked_bytes = 0
            require_room(self._tiers.folder)

    def _held_on_disk(self, ledger: Ledger) -> tuple[int, int]:
        """Return the entries that lie in the slab files, and the bytes these take of the disk."""
        num_entries, num_bytes = 0, 0
        places = ledger.disk_places
        for number, file in enumerate(self._tiers.files):
            with suppress(OSError, DamagedEntryError):
                records = file.slab().records()[
                    places[(places != NOWHERE) & (places >> SLOT_BITS == number)] & SLOT_MASK
                ]
                num_entries += int((records["crc"] != 0).sum())
                num_bytes += file.path.stat().st_blocks * 512
        return num_entries, num_bytes

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open; the lock stays with the process that took it."""
        return {**self.__dict__, "_lock": None, "_ledger": None, "_ram": None, "_is_off": False}


def _held(ram: Slab | None) -> tuple[int, int]:
    """Return how many entries a hot set holds, and the bytes of their pixels and records."""
    if ram is None:
        return 0, 0
    records = ram.records()
    present = records["crc"] != 0
    pixels = records["height"][present].astype(np.int64) * records["width"][present] * CHANNELS
    return int(present.sum()), int(pixels.sum()) + len(records) * RECORD.itemsize
