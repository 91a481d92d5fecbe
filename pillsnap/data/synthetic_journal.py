"""Which jobs of a half drawn data set are done, so that drawing goes on after a kill instead of starting afresh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pillsnap.data.synthetic_layout import Job

JOURNAL_NAME = "synthetic.drawn.txt"
"""Numbers of the jobs whose files are all written, one a line."""


def finished_jobs(root: Path, jobs: Sequence[Job]) -> set[int]:
    """Return the numbers of the jobs that are done in `root`.

    A job counts when the journal names it and none of its files is missing or empty: after a power cut the journal may
    have reached the disk and a picture not.
    """
    return {number for number in _named(root / JOURNAL_NAME, len(jobs)) if _has_content(root, jobs[number])}


@contextmanager
def journal(root: Path) -> Iterator[TextIO]:
    """Open the journal of `root` for `note`, keeping what is in it."""
    path = root / JOURNAL_NAME
    # A line that a kill cut off must not become one with the next.
    whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
    path.write_bytes(whole + b"\n" if whole else b"")
    with path.open("a", encoding="ascii") as file:
        yield file


def note(file: TextIO, number: int) -> None:
    """Write down that job `number` is done."""
    file.write(f"{number}\n")
    file.flush()


def _named(path: Path, num_jobs: int) -> Iterator[int]:
    if not path.is_file():
        return
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line's end was cut off
    for line in lines:
        if line.isdigit() and int(line) < num_jobs:
            yield int(line)


def _has_content(root: Path, job: Job) -> bool:
    return all(path.is_file() and path.stat().st_size > 0 for path in _files(root, job))


def _files(root: Path, job: Job) -> Iterable[Path]:
    for shot in job.shots:
        yield root / job.image_path(shot)
        yield from (root / job.label_path(shot, drug) for drug in job.drugs)
