"""Whether memory grows with the work that is done: what is held, sample by sample, and a line through the samples."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch


def resident_mb() -> float:
    """Return the resident memory of this process in megabytes (1e6)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def gpu_mb() -> float:
    """Return what this process's tensors take on the GPU in megabytes (1e6); 0 without one."""
    return torch.cuda.memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0


def return_free_memory() -> None:
    """Give freed blocks back to the system, so that what is still resident is in use.

    Without this a leak first fills the gaps that earlier work left in the heap (75 MB in a process that had loaded the
    demo's models), and a test of some hundred predictions would not see it.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's own
        libc.malloc_trim(0)


@contextmanager
def only_what_is_new_collected() -> Iterator[None]:
    """Spare the garbage collector what exists already while the block runs: 0.7 s each time, for libraries alone."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class Growth:
    """Memory in use after so many units of work."""

    done: list[int] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    gpu_mb: list[float] = field(default_factory=list)

    def sample(self, done: int) -> None:
        """Read both figures after `done` units; quick inside of `only_what_is_new_collected`."""
        return_free_memory()
        self.done.append(done)
        self.resident_mb.append(resident_mb())
        self.gpu_mb.append(gpu_mb())

    def per_1000(self) -> tuple[float, float]:
        """Return the least-squares slopes of resident and GPU memory, MB per 1,000 units.

        Raises:
            ValueError: Fewer than three samples: any two lie on a line.
        """
        if len(self.done) < 3:
            raise ValueError(
                f"a slope was asked for of {len(self.done)} samples; at least 3 are wanted. Do more work between them."
            )
        thousands = np.array(self.done) / 1000
        slopes = (float(np.polyfit(thousands, column, 1)[0]) for column in (self.resident_mb, self.gpu_mb))
        return next(slopes), next(slopes)

    def fitted_mb(self) -> float:
        """Return by how much the faster growing of the two grew from the first to the last sample, by its line, MB."""
        return max(self.per_1000()) * (self.done[-1] - self.done[0]) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Return every sample as plain data."""
        return asdict(self)
