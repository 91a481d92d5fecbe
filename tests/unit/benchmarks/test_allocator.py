"""Freed memory that stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
from pathlib import Path
from benchmarks.allocator import keep_freed_memory
import ctypes, sys
if sys.argv[1] == "keep":
    assert keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
before = pages()
block = library.malloc(ctypes.c_size_t(200_000_000))
ctypes.memset(block, 1, 200_000_000)
library.free(ctypes.c_void_p(block))
print((pages() - before) * 4096 // 1_000_000)
"""


def _resident_mb_after_freeing(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], cwd=REPOSITORY, capture_output=True, check=True)
    return int(done.stdout)


def test_what_is_freed_stays_with_the_process() -> None:
    assert _resident_mb_after_freeing("keep") > 150
    assert _resident_mb_after_freeing("as it is") < 50
