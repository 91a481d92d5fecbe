"""Which tiers a store should have, by measurement: `cache_policy: auto`.

What it takes to decode a picture, to read it raw or packed from this disk, and how much room there is, is measured on a
few pictures. The decision itself is a function of these figures: the least time a picture takes once the store is full,
and of nearly equal ways the simplest.
"""

from __future__ import annotations

from dataclasses import dataclass

from pillsnap.data.store.layout import StoreOptions

ROOM_SHARE = 0.9  # of the free RAM or disk that a store may fill
NEARLY_EQUAL = 1.05  # a simpler way may take so much longer
GB, MS = 1e9, 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The figures a decision rests on; times in seconds an entry, sizes in bytes."""

    num_entries: int
    entry_bytes: float
    """Mean of the pixels of an entry."""
    decode_s: float
    """From the original file to pixels."""
    read_s: float
    """From memory (hot set, or a file that is cached)."""
    disk_bytes_per_s: float
    """Read from the disk of the cache folder, past the cache."""
    pack_s: float
    """Packing for LMDB, once."""
    unpack_s: float
    packed_share: float
    """Packed size over pixels."""
    free_ram: int
    """Bytes that a store may use."""
    free_disk: int
    """Bytes in the cache folder, with what the store holds there already; 0 without a folder."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to keep pixels."""

    label: str
    options: StoreOptions
    seconds: float
    """An entry takes once the store is full."""
    ram_bytes: float
    disk_bytes: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided and why."""

    options: StoreOptions
    reason: str
    candidates: tuple[Candidate, ...]


def decide(measured: Measured) -> Decision:
    """Return the tiers that give the figures' least time."""
    candidates = tuple(_candidates(measured))
    fitting = [candidate for candidate in candidates if candidate.fits]
    least = min(candidate.seconds for candidate in fitting)
    chosen = next(candidate for candidate in fitting if candidate.seconds <= NEARLY_EQUAL * least)
    faster = [candidate.label for candidate in candidates if candidate.seconds < chosen.seconds / NEARLY_EQUAL]
    reason = f"{chosen.label} takes {chosen.seconds / MS:.2f} ms a picture, decoding {measured.decode_s / MS:.2f} ms"
    if faster:
        reason += f"; there is no room for {', '.join(faster)}"
    return Decision(chosen.options, reason, candidates)


def _candidates(measured: Measured) -> list[Candidate]:
    """Return all ways, the simplest first."""
    raw = measured.num_entries * measured.entry_bytes
    packed = raw * measured.packed_share
    room, disk_room = ROOM_SHARE * measured.free_ram, ROOM_SHARE * measured.free_disk
    hot = min(1.0, room / max(raw, 1.0))
    hot_packed = min(1.0, room / max(packed, 1.0))
    cold_s = measured.read_s + measured.entry_bytes / measured.disk_bytes_per_s
    cold_packed_s = measured.unpack_s + measured.entry_bytes * measured.packed_share / measured.disk_bytes_per_s
    entries = int(hot * measured.num_entries)
    in_ram = hot * measured.read_s
    has_disk = measured.free_disk > 0
    return [
        Candidate("originals only", StoreOptions(cache_policy="none"), measured.decode_s, 0, 0, fits=True),
        Candidate(
            "RAM hot set, other pictures decoded",
            StoreOptions(cache_policy="hotset", hotset_entries=entries),
            in_ram + (1 - hot) * measured.decode_s,
            hot * raw,
            hot * raw if has_disk else 0,
            fits=entries > 0,
        ),
        Candidate(
            "file of raw pixels",
            StoreOptions(cache_policy="mmap"),
            in_ram + (1 - hot) * cold_s,
            hot * raw,
            raw,
            fits=raw <= disk_room,
        ),
        Candidate(
            "LMDB",
            StoreOptions(cache_policy="none", use_lmdb=True),
            hot_packed * measured.unpack_s + (1 - hot_packed) * cold_packed_s,
            hot_packed * packed,
            packed,
            fits=packed <= disk_room,
        ),
        Candidate(
            "RAM hot set and LMDB",
            StoreOptions(cache_policy="hotset", hotset_entries=entries, use_lmdb=True),
            in_ram + (1 - hot) * cold_packed_s,
            hot * raw,
            packed,
            fits=entries > 0 and packed <= disk_room,
        ),
    ]
