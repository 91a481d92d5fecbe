"""Jobs that the helper processes of `test_scan_pool` do; a module of its own, because they import it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pillsnap.errors import DataError


def slow_square(number: int) -> tuple[int, int]:
    """Return the square of a number, and the process that found it."""
    time.sleep(0.02)
    return number * number, os.getpid()


def die_in_a_helper(job: tuple[int, int]) -> tuple[int, int]:
    """End any process but the one named in the job, as a kill would."""
    number, survivor = job
    time.sleep(0.02)
    if os.getpid() != survivor:
        os._exit(1)
    return number, os.getpid()


def refuse_in_a_helper(job: tuple[int, int]) -> int:
    """Raise in any process but the one named in the job."""
    number, survivor = job
    time.sleep(0.02)
    if os.getpid() != survivor:
        raise DataError(f"job {number} cannot be done")
    return number


def write_to_stdout(path: str) -> str:
    """Print, as a careless library would, and note the process in a file."""
    time.sleep(0.02)
    print("noise")  # noqa: T201
    Path(path).touch()
    return path
