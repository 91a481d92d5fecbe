"""What a pixel store holds: its entries, the room each of them needs, and what decides their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Stamp(NamedTuple):
    """Size (bytes) and time of change (ns) of an original file, taken before it was decoded."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """The entries of a store; an entry is one part of a picture, uint8 (h, w, 3)."""

    keys: NDArray[np.uint64]
    """(N,) unique, the same in every run: made of the sample's id and the part."""
    capacity: NDArray[np.int64]
    """(N,) most bytes the pixels of an entry take; 0: it is never kept."""
    identity: str
    """Digest of everything but the files that decides pixels; a store of another identity is another store."""
