"""What `test_records` has its worker processes do; a module of its own, because spawned ones import it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset

from pillsnap.data.records import Records

WARM_UP = 2000


class ReadingGrowth(IterableDataset[tuple[int, int]]):
    """Yields the checksum of many random reads, and by how many bytes private memory grew while they were done."""

    def __init__(self, records: Records, num_reads: int, path: Path) -> None:
        """Read `num_reads` random rows of `records`, which are mapped from `path`."""
        self.records = records
        self.num_reads = num_reads
        self.path = path

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Read, and yield one item."""
        gc.freeze()  # as a run does: the parent's objects are no business of a worker's collector
        rows = np.random.default_rng(0).integers(len(self.records), size=self.num_reads).tolist()
        read_rows(self.records, rows[:WARM_UP])
        before = private_bytes(self.path)
        checksum = read_rows(self.records, rows)
        yield checksum, private_bytes(self.path) - before


def read_rows(records: Records, rows: list[int]) -> int:
    """Read what a sample needs of each row; return a number that depends on all of it."""
    total = 0
    for row in rows:
        total += len(records.image_path(row)) + len(records.boxes_xyxy(row)) + len(records.box_codes(row))
        total += records.sample_id(row) % 7 + len(records.task(row)) + len(records.code(row) or "")
    return total


def private_bytes(mapped: Path) -> int:
    """Return the memory that this process shares with no other, without the pages of the mapped file."""
    total, is_mapped_file = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:
            is_mapped_file = line.endswith(str(mapped))
        elif name in ("Private_Clean", "Private_Dirty") and not is_mapped_file:
            total += int(rest.split()[0]) * 1024
    return total
