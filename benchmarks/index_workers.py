"""By how much a loader's worker grows while it reads the index; a module of its own, because spawned ones import it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from pillsnap.data.records import Records

WARM_UP = 2000


def worker_growth(path: Path, method: str, num_reads: int) -> tuple[int, int]:
    """Have one worker of a `DataLoader` read random rows of a file of records.

    Args:
        path: The file, which the worker maps.
        method: How the worker is started: "fork" or "spawn".
        num_reads: Rows read.

    Returns:
        A number that depends on all that was read (that of `read_rows` for the rows of `some_rows`), and by how many
        bytes the worker's private memory grew meanwhile.
    """
    records, _ = Records.read(path)
    dataset = ReadingGrowth(records, num_reads, path)
    ((checksum, growth),) = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=method)
    return checksum, growth


def some_rows(records: Records, num_reads: int) -> list[int]:
    """Return `num_reads` random row numbers, always the same."""
    rows: list[int] = np.random.default_rng(0).integers(len(records), size=num_reads).tolist()
    return rows


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
        rows = some_rows(self.records, self.num_reads)
        read_rows(self.records, rows[:WARM_UP])
        before = private_bytes(self.path)
        checksum = read_rows(self.records, rows)
        yield checksum, private_bytes(self.path) - before


def read_rows(records: Records, rows: list[int]) -> int:
    """Read what a sample needs of each row; return a number that depends on all of it."""
    total = 0
    for row in rows:
        total += len(records.image_path(row)) + len(records.boxes_xyxy(row)) + len(records.box_codes(row))
        total += records.sample_id(row) % 7
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
