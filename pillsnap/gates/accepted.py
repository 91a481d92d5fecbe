"""The runs a gate has let pass: `accepted_runs.jsonl` beside the experiments, what later runs are compared with."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pillsnap.errors import PillError

logger = logging.getLogger("pillsnap")

FILE_NAME = "accepted_runs.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRun:
    """One line of the file."""

    time: str
    """UTC, ISO 8601: when the gate let it pass."""
    stage: int
    exp_dir: str
    accuracy: float
    """On val, 0..1."""
    checkpoint: str | None
    """SHA-256 of the best classifier."""
    git_sha: str


def accepted_path(exp_dir: Path) -> Path:
    """Return the file that experiments beside `exp_dir` share."""
    return exp_dir.resolve().parent / FILE_NAME


def last_accepted(exp_dir: Path, stage: int, checkpoint: str | None = None) -> AcceptedRun | None:
    """Return the run that one of `stage` is compared with: the newest of that stage, else of the nearest lower one.

    Args:
        exp_dir: The experiment in question.
        stage: Its stage.
        checkpoint: SHA-256 of its best classifier; a run is not compared with itself.
    """
    folder = str(exp_dir.resolve())
    others = [
        run for run in read_accepted(accepted_path(exp_dir)) if (run.exp_dir, run.checkpoint) != (folder, checkpoint)
    ]
    eligible = [(run.stage, place) for place, run in enumerate(others) if run.stage <= stage]
    return others[max(eligible)[1]] if eligible else None


def note_accepted(run: AcceptedRun) -> None:
    """Add a run to the file of its neighbours; one that stands there already is not written again.

    Raises:
        PillError: The file cannot be read or written.
    """
    path = accepted_path(Path(run.exp_dir))
    identity = (run.stage, run.exp_dir, run.checkpoint)
    if any((known.stage, known.exp_dir, known.checkpoint) == identity for known in read_accepted(path)):
        return
    line = f"{json.dumps(asdict(run), ensure_ascii=False, allow_nan=False)}\n"
    try:
        with path.open("a+b") as file:
            # A full disk or a power cut leaves half a line; continuing it would spoil this one too.
            is_inside_a_line = file.seek(0, os.SEEK_END) > 0 and _last_byte(path) != b"\n"
            file.write(b"\n" * is_inside_a_line + line.encode())
    except OSError as error:
        raise PillError(
            f"{path} cannot be written: {error.strerror}; wanted to note there that {run.exp_dir} was accepted. Make "
            "the folder of the experiments writable and check again."
        ) from error


def read_accepted(path: Path) -> Iterator[AcceptedRun]:
    """Yield the runs in the order they were accepted; a line that is no whole entry is left out with a warning.

    Raises:
        PillError: There is a file, and it cannot be read.
    """
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        run = _run_of(line)
        if run is None:
            logger.warning("%s:%d is no entry of an accepted run and is left out", path, number)
        else:
            yield run


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PillError(
            f"{path} cannot be read: {error.strerror}; wanted the list of accepted runs, without which nobody sees a "
            "run fall behind them. Check that it is a file and its permissions."
        ) from error


def _run_of(line: str) -> AcceptedRun | None:
    try:
        content: Any = json.loads(line)
    except ValueError:
        return None
    names = {field.name for field in fields(AcceptedRun)}
    if not isinstance(content, dict) or not names <= set(content):
        return None
    run = AcceptedRun(**{name: content[name] for name in names})
    is_whole = isinstance(run.stage, int) and isinstance(run.exp_dir, str) and isinstance(run.accuracy, int | float)
    return run if is_whole else None


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
