"""Checkpoints that survive: written whole or not at all, checked when read, both tasks from one moment.

    checkpoints/
      moments/000012-classification.pt   the states of one moment, a file a task
      manifest.json                      written last: which moments are whole, with their SHA-256
      last.pt  detection_last.pt         hard links into the newest moment
      best.pt = classification_best.pt  detection_best.pt   hard links to the moment of the best validation

The two newest moments are kept; when the newest is damaged, the one before it is used and this is said.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch

from pillsnap.errors import CheckpointError, CheckpointWriteError
from pillsnap.jsonfile import read_json, save_json
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
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(obj, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError of its own.
        temporary.unlink(missing_ok=True)
        if "DataLoader worker" in str(error):  # raised wherever the main process happens to be when a worker dies
            raise
        free_mb = shutil.disk_usage(target.parent).free / 1e6 if target.parent.exists() else 0.0
        raise CheckpointWriteError(
            f"{target} could not be written: {error} ({free_mb:.0f} MB free). The last good checkpoint is untouched. "
            "Free some space or fix the permissions, then go on with train.resume=last."
        ) from error


def load_ckpt(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with `weights_only=True`.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else than a checkpoint.
    """
    source = Path(path)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{source} does not exist; a checkpoint was wanted. Train first.") from error
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source} cannot be read as a checkpoint ({type(error).__name__}). It may be damaged or cut off; use "
            "another one of the experiment's checkpoints."
        ) from error
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
    """Seconds of training up to then; 0 in checkpoints written before they were counted."""


class CheckpointStore:
    """The checkpoints of one experiment."""

    def __init__(self, exp_dir: Path) -> None:
        """Use `exp_dir/checkpoints`; nothing is read or written yet."""
        self.dir = exp_dir / "checkpoints"
        self._manifest_path = self.dir / "manifest.json"

    def exists(self) -> bool:
        """Tell whether any checkpoint lies here."""
        return self._manifest_path.exists() or any(self.dir.glob("*.pt"))

    def holds(self, task: str) -> bool:
        """Tell whether a checkpoint of `task` lies here."""
        return any((self.dir / name).exists() for name in LAST_NAMES[task] + BEST_NAMES[task])

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
            path = self.dir / "moments" / f"{number:06d}-{task}.pt"
            save_ckpt(path, state)
            files[task] = {"file": path.relative_to(self.dir).as_posix(), "sha256": _sha256(path)}
        moment = {"number": number, "loop_step": loop_step, "loop_seconds": loop_seconds, "files": files}
        manifest["moments"] = [moment, *manifest["moments"]][:NUM_MOMENTS_KEPT]
        manifest["completed"] = is_completed
        save_json(self._manifest_path, manifest)
        for task in states:
            for name in LAST_NAMES[task] + (BEST_NAMES[task] if task in best else ()):
                _link(self.dir / files[task]["file"], self.dir / name)
        self._prune(manifest)

    def load_last(self) -> Moment | None:
        """Return the newest whole moment; None when there is no checkpoint at all.

        Raises:
            CheckpointError: There are checkpoints, but not one whole moment among them.
        """
        if not self.exists():
            return None
        manifest = self._manifest()
        for moment in list(manifest["moments"]):
            damaged = [entry["file"] for entry in moment["files"].values() if not self._is_whole(entry)]
            if not damaged:
                states = {task: load_ckpt(self.dir / entry["file"]) for task, entry in moment["files"].items()}
                return Moment(states, int(moment["loop_step"]), float(moment.get("loop_seconds", 0.0)))
            logger.warning("%s is damaged or missing; going back to the checkpoint before it", ", ".join(damaged))
            if len(manifest["moments"]) > 1:
                # Forgotten, so that the next save does not keep the damaged one in place of the good one.
                manifest["moments"].remove(moment)
                save_json(self._manifest_path, manifest)
        raise CheckpointError(
            f"{self.dir} holds no whole checkpoint to resume from: a file is missing or its SHA-256 differs from "
            "manifest.json. Training does not start over on its own: restore the folder from a copy, or choose another "
            "paths.exp_dir."
        )

    def _manifest(self) -> dict[str, Any]:
        if not self._manifest_path.exists():
            return {"moments": [], "completed": False}
        return read_json(self._manifest_path)

    def _is_whole(self, entry: dict[str, str]) -> bool:
        path = self.dir / entry["file"]
        return path.exists() and _sha256(path) == entry["sha256"]

    def _prune(self, manifest: dict[str, Any]) -> None:
        kept = {entry["file"] for moment in manifest["moments"] for entry in moment["files"].values()}
        for path in (self.dir / "moments").glob("*.pt"):
            if path.relative_to(self.dir).as_posix() not in kept:
                path.unlink()


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:  # no hard links on this file system
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointWriteError(
            f"{target} could not be written: {error}. The checkpoint itself is whole: {source}. Free some space, then "
            "go on with train.resume=last."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
