"""Random numbers that belong to a sample, not to the process that happens to load it.

Order is a function of (seed, epoch) and augmentation of (seed, task, epoch, sample), so a result depends neither on the
number of workers nor on prefetching, and resuming a run needs only the position it had reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def derive_seed(*parts: int | str, bits: int = 64) -> int:
    """Return an integer of at most 128 `bits` that depends on all `parts` and on their order."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little") >> (128 - bits)


def sample_generator(*parts: int | str) -> np.random.Generator:
    """Return the generator owned by e.g. (seed, task, epoch, sample id, box number)."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts, bits=128)))


def epoch_order(num_samples: int, seed: int, task: str, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits its samples: a permutation of `num_samples`, a pure function."""
    return sample_generator(seed, task, epoch, "order").permutation(num_samples)


@contextlib.contextmanager
def seeded_globals(*parts: int | str) -> Iterator[None]:
    """Seed `random` and `numpy.random` from `parts` inside the block and put their former states back after it.

    For library code (ultralytics' augmentation) that draws from the global generators.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(derive_seed(*parts, "python"))
    np.random.seed(derive_seed(*parts, "numpy", bits=32))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
