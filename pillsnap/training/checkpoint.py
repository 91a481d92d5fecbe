"""Checkpoints that survive: written whole or not at all, checked when read, both tasks from one moment.

    checkpoints/
      moments/000012-classification.pt   the states of one moment, a file a task
      manifest.copy.json                 as manifest.json, and used when that one is damaged
      manifest.json                      written last: which moments are whole, with their SHA-256, and its own
      last.pt  detection_last.pt         hard links into the newest moment
      best.pt = classification_best.pt  detection_best.pt   hard links to the moment of the best validation

The two newest moments are kept; when the newest is damaged, the one before it is used and this is said. A moment counts
from the instant its manifest has its name; links and tidying that a kill prevented are made up for by `load_last`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch

from pillsnap.atomicfile import atomic_path, remove_leftovers, sha256_of, sync_folder, zip_damage
from pillsnap.errors import CheckpointError, CheckpointWriteError, PillError
from pillsnap.jsonfile import save_json
from pillsnap.manifest import COPY_NAME, MANIFEST_NAME, is_sealed_as, read_manifest, seal
from pillsnap.memory import is_out_of_memory
from pillsnap.training.schedule import CLASSIFICATION, DETECTION

logger = logging.getLogger("pillsnap")

NUM_MOMENTS_KEPT = 2
LAST_NAMES: dict[str, tuple[str, ...]] = {CLASSIFICATION: ("last.pt",), DETECTION: ("detection_last.pt",)}
BEST_NAMES: dict[str, tuple[str, ...]] = {
    CLASSIFICATION: ("best.pt", "classification_best.pt"),
    DETECTION: ("detection_best.pt",),
}


def save_ckpt(path: str | Path, obj: dict[str, Any]) -> None:
    """Write a checkpoint atomically: temporary file, fsync, rename (UTL-13).

    Args:
        path: Where it shall lie; its folder is created.
        obj: Tensors and plain data only, so that it loads with `weights_only=True`.

    Raises:
        CheckpointWriteError: It could not be written (disk full, no permission); what was at `path` is untouched.
    """
    target = Path(path)
    with _said_as_write_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            torch.save(obj, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(target.parent)


def load_ckpt(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with `weights_only=True`.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else than a checkpoint. Running out of memory
            is raised as it is.
    """
    source = Path(path)
    try:
        damage = zip_damage(source)
        content = torch.load(source, map_location="cpu", weights_only=True) if damage is None else None
    except FileNotFoundError as error:
        raise CheckpointError(f"{source} does not exist; a checkpoint was wanted. Train first.") from error
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        if is_out_of_memory(error, is_memory_scarce=False):  # says nothing about the file
            raise
        raise CheckpointError(
            f"{source} cannot be read as a checkpoint ({type(error).__name__}). It may be written by another program, "
            "or lie on a failing disk; use another one of the experiment's checkpoints."
        ) from error
    if damage is not None:
        raise CheckpointError(
            f"{source} cannot be read as a checkpoint: it is damaged or cut off ({damage}). Its weights are not those "
            "that were saved; use another one of the experiment's checkpoints."
        )
    if not isinstance(content, dict):
        raise CheckpointError(f"{source} holds a {type(content).__name__}; a checkpoint (dict) was wanted.")
    return content


class Moment(NamedTuple):
    """The states of all tasks at one moment, and where the loop stood."""

    states: dict[str, dict[str, Any]]
    """Task name to its checkpoint."""
    loop_step: int
    """Global step."""
    loop_seconds: float
    """Seconds of training up to then."""


class CheckpointStore:
    """The checkpoints of one experiment."""

    def __init__(self, exp_dir: Path) -> None:
        """Use `exp_dir/checkpoints`; nothing is read or written yet."""
        self.dir = exp_dir / "checkpoints"
        self._moments_dir = self.dir / "moments"
        self._manifest_path = self.dir / MANIFEST_NAME
        self._copy_path = self.dir / COPY_NAME

    def exists(self) -> bool:
        """Tell whether a checkpoint was ever finished here, be it damaged now."""
        if any(path.exists() for path in (self._manifest_path, self._copy_path)) or any(self.dir.glob("*.pt")):
            return True
        # Files of the first moment without any manifest were cut off while being written: nothing to go back to.
        first = {self._moment_path(1, task) for task in LAST_NAMES}
        return not first.issuperset(self._moments_dir.glob("*.pt"))

    def holds(self, task: str) -> bool:
        """Tell whether a checkpoint of `task` lies here."""
        is_named = any((self.dir / name).exists() for name in LAST_NAMES[task] + BEST_NAMES[task])
        return is_named or any(task in moment["files"] for moment in self._manifest()["moments"][:1])

    def save(
        self,
        states: dict[str, dict[str, Any]],
        *,
        best: Collection[str],
        loop_step: int,
        loop_seconds: float = 0.0,
        is_completed: bool = False,
    ) -> None:
        """Write the states of all tasks as one moment.

        Args:
            states: Task name to its checkpoint.
            best: Tasks whose state is their best so far.
            loop_step: Global step, kept in the manifest.
            loop_seconds: Seconds of training so far, kept in the manifest.
            is_completed: Whether training is over.

        Raises:
            CheckpointWriteError: The disk is full or the folder cannot be written; the moments before are untouched.
        """
        manifest = self._manifest()
        newest: dict[str, Any] = manifest["moments"][0] if manifest["moments"] else {"number": 0, "files": {}}
        number = newest["number"] + 1
        # A task that is not part of this run keeps its place: a later run with both goes on with both.
        files: dict[str, dict[str, str]] = dict(newest["files"])
        for task, state in states.items():
            path = self._moment_path(number, task)
            save_ckpt(path, state)
            with _said_as_write_error(path):
                files[task] = {"file": path.relative_to(self.dir).as_posix(), "sha256": sha256_of(path)}
        moment = {
            "number": number,
            "loop_step": loop_step,
            "loop_seconds": loop_seconds,
            "best": sorted(set(best) & set(states)),
            "files": files,
        }
        moments = [moment, *manifest["moments"]][:NUM_MOMENTS_KEPT]
        self._commit({"moments": moments, "completed": is_completed})

    def load_last(self) -> Moment | None:
        """Return the newest whole moment; None when there is no checkpoint at all.

        Raises:
            CheckpointError: There are checkpoints, but not one whole moment among them.
        """
        if not self.exists():
            return None
        manifest = self._manifest()
        moments = manifest["moments"]
        for position, moment in enumerate(moments):
            damaged = [entry["file"] for entry in moment["files"].values() if not self._is_whole(entry)]
            if damaged:
                logger.warning("%s is damaged or missing; going back to the checkpoint before it", ", ".join(damaged))
                continue
            states = {task: load_ckpt(self.dir / entry["file"]) for task, entry in moment["files"].items()}
            # Damaged moments are forgotten, so that the next save does not keep one in place of the good one. Their
            # files stay until then: it is the first to have something better.
            self._commit(
                {"moments": moments[position:], "completed": manifest["completed"] and position == 0}, keeps_newer=True
            )
            return Moment(states, int(moment["loop_step"]), float(moment["loop_seconds"]))
        found = "a file is missing or its SHA-256 differs from" if moments else "there is no whole"
        raise CheckpointError(
            f"{self.dir} holds no whole checkpoint to resume from: {found} manifest.json. Training does not start over "
            "on its own: restore the folder from a copy, or choose another paths.exp_dir."
        )

    def _moment_path(self, number: int, task: str) -> Path:
        return self._moments_dir / f"{number:06d}-{task}.pt"

    def _manifest(self) -> dict[str, Any]:
        """Return the newest manifest that is as it was written; one without moments when there is none."""
        return read_manifest(self.dir) or {"moments": [], "completed": False}

    def _commit(self, manifest: dict[str, Any], *, keeps_newer: bool = False) -> None:
        """Make the first of the manifest's moments the one to go on with; `keeps_newer` leaves the files after it."""
        sealed = seal(manifest)
        with _said_as_write_error(self.dir):
            for path in (self._copy_path, self._manifest_path):
                if not is_sealed_as(path, sealed):  # on a full disk, going on with what is in order writes nothing
                    save_json(path, sealed)
            sync_folder(self.dir)  # before anything that the moments before need is removed
        moment = manifest["moments"][0]
        for task, entry in moment["files"].items():
            for name in LAST_NAMES[task] + (BEST_NAMES[task] if task in moment["best"] else ()):
                _link(self.dir / entry["file"], self.dir / name)
        self._prune(manifest, newest=moment["number"] if keeps_newer else None)

    def _is_whole(self, entry: dict[str, str]) -> bool:
        try:
            return sha256_of(self.dir / entry["file"]) == entry["sha256"]
        except FileNotFoundError:
            return False
        except OSError as error:  # too many open files, say: going back now would give up a checkpoint that is whole
            raise CheckpointError(
                f"{self.dir / entry['file']} cannot be read now: {error.strerror or error}; whether it is whole is not "
                "known. Nothing was changed: try again. If its disk is failing for good, remove this file to go on "
                "from the checkpoint before it."
            ) from error

    def _prune(self, manifest: dict[str, Any], newest: int | None) -> None:
        """Remove the files of moments that the manifest does not name; of a number after `newest`, none."""
        kept = {entry["file"] for moment in manifest["moments"] for entry in moment["files"].values()}
        with _said_as_write_error(self._moments_dir):
            for path in self._moments_dir.glob("*.pt"):
                is_newer = newest is not None and path.name >= self._moment_path(newest + 1, "").stem
                if not is_newer and path.relative_to(self.dir).as_posix() not in kept:
                    path.unlink()
            # atomic_path sees to its own target; the number or task of a moment that was cut off may never come again.
            remove_leftovers(self._moments_dir)


def _link(source: Path, target: Path) -> None:
    with _said_as_write_error(target):
        if target.exists() and target.samefile(source):
            return
        with atomic_path(target) as temporary:
            _link_or_copy(source, temporary)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copyfile(source, target)


@contextmanager
def _said_as_write_error(target: Path) -> Iterator[None]:
    """Raise `CheckpointWriteError` for what keeps the block from writing at `target`."""
    try:
        yield
    except (OSError, RuntimeError, PillError) as error:
        cause = _disk_error(error)
        if cause is None:  # not about the disk, such as the death of a loader worker, raised wherever we happen to be
            raise
        folder = target if target.is_dir() else target.parent
        free_mb = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0.0
        raise CheckpointWriteError(
            f"{target} could not be written: {cause.strerror or cause} ({free_mb:.1f} MB are free without it). The "
            "last good checkpoint is untouched. Free some space or fix the permissions, then go on with "
            "train.resume=last."
        ) from error


def _disk_error(error: BaseException | None) -> OSError | None:
    """Return the error of the file system behind `error`; torch's zip writer and `atomic_path` raise their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
