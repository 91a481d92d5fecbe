"""Freed memory that stays, up to a limit and without growing."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from pillsnap import allocator

REPOSITORY = Path(__file__).parents[2]
COMMON = """
from pathlib import Path
from pillsnap.allocator import keep_freed_memory
import ctypes, random, sys
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
before = pages()
def take(num_bytes):
    block = library.malloc(ctypes.c_size_t(num_bytes))
    ctypes.memset(block, 1, num_bytes)
    return ctypes.c_void_p(block)
if sys.argv[1] != "as it is":
    assert keep_freed_memory(int(sys.argv[1]))
"""
ONE_BLOCK = "library.free(take(200_000_000))\nprint((pages() - before) * 4096 // 1_000_000)"
MANY_SIZES = """
chance, held, resident = random.Random(0), [], []
for number in range(4_000):
    held.append(take(int(10 ** chance.uniform(3, 6.5))))
    if len(held) > 30:
        library.free(held.pop(chance.randrange(len(held))))
    if number % 1_000 == 999:
        resident.append(pages())
print((resident[-1] - resident[0]) * 4096 // 1_000_000)
"""


def _printed(program: str, how: str) -> int:
    command = [sys.executable, "-c", COMMON + program, how]
    return int(subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout)


def test_what_is_freed_stays_with_the_process() -> None:
    assert _printed(ONE_BLOCK, str(2**30)) > 150
    assert _printed(ONE_BLOCK, "as it is") < 50


def test_a_block_above_the_limit_is_given_back() -> None:
    assert _printed(ONE_BLOCK, "100000000") < 50


def test_blocks_of_many_sizes_do_not_make_the_process_grow() -> None:
    assert _printed(MANY_SIZES, str(2**30)) < 20


def _library(monkeypatch: pytest.MonkeyPatch, *, accepts: set[int]) -> list[tuple[int, int]]:
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, option: int, value: int) -> int:
            asked.append((option, value))
            return int(option in accepts)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    return asked


def test_an_older_c_library_keeps_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _library(monkeypatch, accepts={allocator.M_MMAP_MAX, allocator.M_TRIM_THRESHOLD})
    assert allocator.keep_freed_memory(100)
    assert asked == [(allocator.M_MMAP_THRESHOLD, 100), (allocator.M_MMAP_MAX, 0), (allocator.M_TRIM_THRESHOLD, 100)]


def test_another_c_library_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _library(monkeypatch, accepts=set()) == []
    assert not allocator.keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()
