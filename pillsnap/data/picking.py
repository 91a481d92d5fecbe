"""Seeded choices among millions of things: an order out of hashes, even shares, places within groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.randomness import derive_seed

IntArray = NDArray[np.int64]


def mixed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return a seeded 64-bit hash of each value (SplitMix64's finaliser); different values have different hashes."""
    mixed_values = values ^ np.uint64(derive_seed(seed, "order"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed_values = (mixed_values ^ (mixed_values >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed_values ^ (mixed_values >> np.uint64(31)), np.uint64)


def even_shares(sizes: IntArray, total: int, order: IntArray) -> IntArray:
    """Share `total` out as evenly as possible; nobody gets more than their size.

    Args:
        sizes: (C,) the most each can get.
        total: What is shared out; more than all sizes together gives everybody their size.
        order: (C,) numbers of the receivers; the first of them get what does not divide evenly.

    Returns:
        (C,) the shares.
    """
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        level = (low + high + 1) // 2
        if np.minimum(sizes, level).sum() <= total:
            low = level
        else:
            high = level - 1
    shares = np.minimum(sizes, low)
    has_more = order[sizes[order] > low]
    shares[has_more[: max(0, total - int(shares.sum()))]] += 1
    return shares


def ranks_within(groups: IntArray, order: NDArray[np.uint64]) -> IntArray:
    """Return each element's place, from 0, among those of its group sorted by `order`."""
    if not len(groups):
        return np.zeros(0, np.int64)
    by_group = np.lexsort((order, groups))
    begins = np.flatnonzero(np.diff(groups[by_group], prepend=-2))
    lengths = np.diff(begins, append=len(groups))
    ranks = np.empty(len(groups), np.int64)
    ranks[by_group] = np.arange(len(groups)) - np.repeat(begins, lengths)
    return ranks
