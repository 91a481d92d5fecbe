"""The ledger of the test split: every use is written down before a test picture is read, and one use is all there is.

Uses stand in three places: `test_uses.json` in the experiment, `reports/final_test_results.json` beside the figures,
and `test_uses.jsonl` in `paths.cache_dir`, which neighbouring experiments share: it tells how often the same test
pictures served to judge anything, and brings back what was deleted in the experiment. The union of the three counts:
a use is forgotten when all three are gone, and not before.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.atomicfile import sha256_of
from pillsnap.data.store.cache_lock import take_lock
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import GateError, PillError
from pillsnap.jsonfile import read_json, save_json

logger = logging.getLogger("pillsnap")

LEDGER_NAME = "test_uses.json"
SHARED_NAME = "test_uses.jsonl"
LOCK_NAME = ".final_test.lock"
RESULTS_NAME = Path("reports", "final_test_results.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """One reading of the test split; plain data."""

    id: str
    time: str
    """When it began, UTC."""
    ended: str | None
    """When its figures were there; None where it was cut short."""
    completed: bool
    forced: bool
    """The test split had been used before, and the user insisted."""
    git_sha: str
    checkpoints: dict[str, str]
    """Task to the SHA-256 of the judged checkpoint."""
    split: str
    """Digest of which pictures the test split holds."""
    pictures: int
    exp_dir: str


def split_digest(data: TwoStageData) -> str:
    """Return a hash of which pictures lie in the test split; counting only, it opens nothing."""
    ids = np.sort(data.records.column("sample_id").astype(np.uint64)[data.split == "test"])
    return hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest()


class Ledger:
    """The uses of the test split by one experiment."""

    def __init__(self, exp_dir: Path, cache_dir: Path, models: Mapping[str, Path]) -> None:
        """Read what the ledger is about, not yet the ledger.

        Args:
            exp_dir: The experiment.
            cache_dir: `paths.cache_dir`.
            models: Task to its best checkpoint; one that is not there is left out.
        """
        self.path = exp_dir / LEDGER_NAME
        self._results_path = exp_dir / RESULTS_NAME
        self._shared_path = cache_dir / SHARED_NAME
        self._exp_dir = exp_dir
        there = {task: path for task, path in models.items() if path.is_file()}
        self.checkpoints = {task: sha256_of(path) for task, path in there.items()}
        """Task to the SHA-256 of its best checkpoint."""
        self._written = max((path.stat().st_mtime for path in there.values()), default=0.0)

    def uses(self) -> list[Use]:
        """Return every use by this experiment, the oldest first.

        Raises:
            GateError: A file that lists them is damaged, so that nobody can tell whether there was one.
        """
        found, damaged = self._read()
        if damaged:
            raise GateError(
                f"{damaged[0]} is damaged, so nobody can tell whether the test split was used before; wanted the list "
                "of its uses. Put the file back from a copy, or insist with `pillsnap final-test "
                f"{self._exp_dir} --force`, which is recorded and keeps the damaged file under another name."
            )
        return found

    def completed_use(self) -> Use | None:
        """Return the newest use that was completed.

        Raises:
            GateError: A file that lists the uses is damaged.
        """
        return next((use for use in reversed(self.uses()) if use.completed), None)

    def other_uses(self, split: str) -> list[Use]:
        """Return the uses of the same test pictures by others, the oldest first.

        Args:
            split: `split_digest` of the data.
        """
        own = {use.id for use in self._read()[0]}
        return [use for use in self._shared() if use.split == split and use.id not in own]

    @contextmanager
    def recording(self, wanted: Use) -> Iterator[list[Use]]:
        """Write a use down before the block reads the test split; the block ends with `complete`.

        A block that raises, or a process that is killed inside it, leaves a use that is listed as cut short and does
        not keep the test from being run.

        Args:
            wanted: The use; its `forced` says whether earlier ones are accepted.

        Yields:
            The uses before this one.

        Raises:
            GateError: The test split was used before (or that cannot be told) and `forced` is false, or another
                process is at it.
            PillError: The ledger cannot be written.
        """
        with self._locked():
            if wanted.forced:
                earlier = self._without_damage()
            elif completed := self.completed_use():
                raise self.second_use(completed)
            else:
                earlier = self.uses()
            self._write([*earlier, wanted])
            yield earlier

    def complete(self, uses: list[Use]) -> None:
        """Write down that the last of `uses` has its figures; called when they are on the disk."""
        self._write(uses)

    def second_use(self, completed: Use) -> GateError:
        """Return the error that refuses another use."""
        is_there = self._results_path.exists()
        figures = f"Read {self._results_path}" if is_there else f"{self._results_path} is gone; put it back from a copy"
        return GateError(
            f"The test split of {self._exp_dir} was used on {completed.time} with the checkpoints "
            f"{_short(completed.checkpoints.items())}; it is used once, because figures of a second use are no longer "
            f"those of unseen pictures. {figures}, or insist with `pillsnap final-test {self._exp_dir} --force`, "
            "which is recorded."
        )

    def _write(self, uses: list[Use]) -> None:
        save_json(self.path, {"uses": [asdict(use) for use in uses]})
        try:
            _append_line(self._shared_path, asdict(uses[-1]))
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): neighbouring experiments will not be told of this use of the test split",
                self._shared_path, error.strerror,
            )  # fmt: skip

    def _read(self) -> tuple[list[Use], list[Path]]:
        """Return the uses that can be read, and the files of the experiment that cannot."""
        found = {use.id: use for use in self._shared() if self._is_own(use)}
        damaged = []
        for path in (self.path, self._results_path):
            if not path.exists():
                continue
            try:
                listed = [_use_of(entry) for entry in read_json(path)["uses"]]
            except (PillError, ValueError, TypeError, KeyError):
                damaged.append(path)
                continue
            # A use that any file calls completed is: a kill may come between the writing of two.
            found |= {use.id: use for use in listed if use.completed or use.id not in found}
        return sorted(found.values(), key=lambda use: use.time), damaged

    def _is_own(self, use: Use) -> bool:
        """Tell whether a use in the shared file was of this experiment's models.

        The same training repeated gives the same bits on a CPU, but files that are younger than the use.
        """
        time = datetime.fromisoformat(use.time).timestamp()
        return bool(self.checkpoints) and use.checkpoints == self.checkpoints and self._written <= time

    def _without_damage(self) -> list[Use]:
        """Put damaged files aside and return what the others list."""
        found, damaged = self._read()
        for path in damaged:
            aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
            path.replace(aside)
            logger.warning("%s is damaged and was kept as %s", path, aside)
        return found

    def _shared(self) -> list[Use]:
        """Return the newest state of every use in the shared file; lines that cannot be read are left out."""
        try:
            text = self._shared_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning(
                "%s cannot be read (%s); what it alone lists is not known", self._shared_path, error.strerror
            )
            return []
        found: dict[str, Use] = {}
        for line in text.split("\n"):  # not splitlines: JSON may hold other line separators
            try:
                use = _use_of(json.loads(line))
            except (ValueError, TypeError):  # the half of a line that a full disk, a power cut or a kill left
                continue
            if not (use.id in found and found[use.id].completed):
                found[use.id] = use
        return list(found.values())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = take_lock(self._exp_dir / LOCK_NAME)
        except OSError as error:
            raise PillError(
                f"{self._exp_dir / LOCK_NAME} cannot be made ({error.strerror}), which keeps two processes from using "
                "the test split at once. Check that the folder exists, is writable and has free space."
            ) from error
        if lock is None:
            raise GateError(
                f"Another process is running the final test of {self._exp_dir} now; wanted to be the only one. Wait "
                f"for its {RESULTS_NAME}."
            )
        try:
            yield
        finally:
            lock.release()


def new_use(ledger: Ledger, exp_dir: Path, data: TwoStageData, *, git_sha: str, forced: bool) -> Use:
    """Return a use of the models a ledger is about, which begins now."""
    return Use(
        id=uuid.uuid4().hex,
        time=_now(),
        ended=None,
        completed=False,
        forced=forced,
        git_sha=git_sha,
        checkpoints=ledger.checkpoints,
        split=split_digest(data),
        pictures=int((data.split == "test").sum()),
        exp_dir=str(exp_dir.resolve()),
    )


def finished(use: Use) -> Use:
    """Return a use as it stands once its figures are there."""
    return replace(use, completed=True, ended=_now())


def _short(checkpoints: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{task} {digest[:12]}" for task, digest in checkpoints)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _use_of(entry: Any) -> Use:
    """Return the use an entry of a file stands for.

    Raises:
        TypeError: It is no mapping, or has other keys.
        ValueError: A value is of another type, or its time is none.
    """
    use = Use(**entry)
    kinds = {"completed": bool, "forced": bool, "pictures": int, "checkpoints": dict, "ended": str | None}
    for field in fields(Use):
        if not isinstance(getattr(use, field.name), kinds.get(field.name, str)):
            raise ValueError(f"{field.name} is {getattr(use, field.name)!r}")
    datetime.fromisoformat(use.time)
    return use


def _append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to a file that several processes write to, and wait until the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        # A full disk or a power cut leaves half a line; continuing it would spoil this entry too.
        file.seek(max(end - 1, 0))
        begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(begin + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
