"""The folder of one run: what lies where, and the facts about the run that go into its report."""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import timm
import torch
import torchvision
from omegaconf import DictConfig

from pillsnap.config.loading import save_config
from pillsnap.data.classes import ClassMap
from pillsnap.errors import ConfigError, PillError
from pillsnap.jsonfile import save_json
from pillsnap.source_version import get_git_sha as get_git_sha
from pillsnap.training.checkpoint import CheckpointStore
from pillsnap.training.reproducibility import rng_state

logger = logging.getLogger("pillsnap")

FOLDERS = ("logs", "tb", "reports", "checkpoints", "export")


def ensure_dir(path: str | Path) -> None:
    """Create a folder and its parents; an existing one is fine (UTL-6).

    Raises:
        PillError: The folder cannot be created.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PillError(
            f"the folder {path} cannot be created: {error.strerror}. Choose a place you may write to with "
            "paths.exp_dir=DIR, or fix the permissions."
        ) from error


def versions() -> dict[str, str]:
    """Return the versions that decide what a checkpoint or a figure means."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "timm": str(timm.__version__),
        "git": get_git_sha(),
    }


@dataclass
class Experiment:
    """An open experiment folder."""

    dir: Path
    store: CheckpointStore
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, cfg: DictConfig) -> Experiment:
        """Create the folders.

        Raises:
            ConfigError: The folder already holds checkpoints of a task to train and `train.resume` was not set: a new
                run would overwrite them.
        """
        exp_dir = Path(cfg.paths.exp_dir)
        store = CheckpointStore(exp_dir)
        if cfg.train.resume is None and any(store.holds(task) for task in cfg.train.tasks):
            raise ConfigError(
                f"{exp_dir} already holds the checkpoints of a run, which a new one would overwrite. Go on with it by "
                "train.resume=last, or start in another folder with paths.exp_dir=DIR."
            )
        for name in FOLDERS:
            ensure_dir(exp_dir / name)
        experiment = cls(exp_dir, store)
        experiment.facts = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "git_sha": get_git_sha(),
            "seed": cfg.train.seed,
        }
        return experiment

    def write_inputs(self, cfg: DictConfig, class_map: ClassMap) -> None:
        """Save the resolved configuration and the class map; called when nothing speaks against this run any more."""
        save_config(cfg, self.dir / "config.yaml")
        class_map.save(self.dir / "class_map.json")

    def decide(self, what: str, before: object, after: object, why: str) -> None:
        """Note a decision the run took on its own in `logs/decisions.jsonl`, from where it goes into the report.

        Written at once: what a process decided before it was killed still explains the weights of the one after it.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        decision = {"time": now, "what": what, "from": str(before), "to": str(after), "why": why}
        try:
            with self._decisions_path.open("a+b") as file:
                # A full disk or a power cut leaves half a line; continuing it would spoil this entry too.
                begin = "\n" if _ends_inside_a_line(file) else ""
                file.write(f"{begin}{json.dumps(decision, ensure_ascii=False)}\n".encode())
        except OSError as error:
            logger.warning("%s could not be written (%s): %s", self._decisions_path, error.strerror, decision)

    @property
    def _decisions_path(self) -> Path:
        return self.dir / "logs" / "decisions.jsonl"

    def _decisions(self) -> list[dict[str, str]]:
        if not self._decisions_path.exists():
            return []
        text = self._decisions_path.read_text(encoding="utf-8", errors="replace")
        found = (_entry(line) for line in text.split("\n"))  # not splitlines: JSON may hold other line separators
        return [entry for entry in found if entry is not None]

    def write_facts(self, **more: object) -> None:
        """Write `reports/run.json`."""
        self.facts.update(more, decisions=self._decisions())
        self.facts["peak_memory_mb"] = peak_memory_mb()
        save_json(self.dir / "reports" / "run.json", self.facts)


def _ends_inside_a_line(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _entry(line: str) -> dict[str, str] | None:
    """Return the entry a line holds; None for the half of one that a full disk, a power cut or a kill left."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def checkpoint_extras(config: dict[str, Any], class_map: dict[str, Any]) -> dict[str, Any]:
    """Return what every checkpoint carries beside its task's own state (CKP-1)."""
    return {"config_snapshot": config, "class_map": class_map, "versions": versions(), "rng": rng_state()}


def peak_memory_mb() -> dict[str, float]:
    """Return the largest resident memory of this process and of its largest child so far, in megabytes (1e6)."""
    scale = 1024 / 1e6  # Linux reports kibibytes
    return {
        "main": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
        "largest_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale,
    }
