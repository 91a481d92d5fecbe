"""What an experiment's folder holds for its report, read once; what is missing is empty."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pillsnap.errors import PillError
from pillsnap.jsonfile import read_json

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExperimentFiles:
    """The JSON files and the configuration of one experiment."""

    exp_dir: Path
    metrics: Facts
    run: Facts
    verdict: Facts
    checks: Facts
    advice: Facts
    calibration: Facts
    unknown: Facts
    latency: Facts
    final_test: Facts
    test_uses: Facts
    """The ledger of the final test; there is one also where a use was cut short."""
    class_map: Facts
    config_text: str
    config: DictConfig
    damaged_records: tuple[str, ...] = ()
    """Records of the final test that cannot be read. They must not be deleted, so they do not stop the page."""

    @classmethod
    def read(cls, exp_dir: Path) -> ExperimentFiles:
        """Read the files of an experiment.

        Raises:
            PillError: The folder does not exist, or a file in it is damaged that a run can write again.
        """
        if not exp_dir.is_dir():
            raise PillError(
                f"no report can be written: {exp_dir} is not a folder; wanted the folder of an experiment. Pass the "
                "paths.exp_dir of a run."
            )
        reports = exp_dir / "reports"
        config_text, config = _read_config(exp_dir / "config.yaml")
        results, uses = reports / "final_test_results.json", exp_dir / "test_uses.json"
        damaged = [path for path in (results, uses) if _is_damaged(path)]
        return cls(
            exp_dir=exp_dir,
            metrics=_read_optional(reports / "metrics.json"),
            run=_read_optional(reports / "run.json"),
            verdict=_read_optional(reports / "verdict.json"),
            checks=_read_optional(reports / "checks.json"),
            advice=_read_optional(reports / "advice.json"),
            calibration=_read_optional(exp_dir / "calibration.json"),
            unknown=_read_optional(reports / "unknown.json"),
            latency=_read_optional(reports / "latency.json"),
            final_test={} if results in damaged else _read_optional(results),
            test_uses={} if uses in damaged else _read_optional(uses),
            damaged_records=tuple(path.relative_to(exp_dir).as_posix() for path in damaged),
            class_map=_read_optional(exp_dir / "class_map.json"),
            config_text=config_text,
            config=config,
        )

    @property
    def name(self) -> str:
        """The folder's name, which names the experiment."""
        return self.exp_dir.resolve().name

    @property
    def tasks(self) -> list[str] | None:
        """The tasks the run was configured for, or else those that have an epoch; None when neither is known."""
        configured = OmegaConf.select(self.config, "train.tasks")
        return list(configured) if configured else [task for task, epochs in self.history.items() if epochs] or None

    @property
    def history(self) -> Mapping[str, Sequence[Facts]]:
        """The figures of every epoch, by task."""
        history = self.metrics.get("history")
        return history if isinstance(history, Mapping) else {}

    def drug(self, code: str) -> str:
        """Return a drug's code with its name, where the class map has one."""
        names = self.class_map.get("names")
        name = names.get(code) if isinstance(names, Mapping) else None
        return f"{code} {name}" if name else code


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header line; none when it is not there.

    Raises:
        PillError: The file cannot be read as UTF-8 CSV.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as source:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(source)]
    except (OSError, ValueError, csv.Error) as err:  # ValueError: not UTF-8
        raise PillError(
            f"{path} cannot be read: {err}; wanted a CSV table in UTF-8. Delete it to get the page without it."
        ) from err


def read_lines(path: Path) -> list[Facts]:
    """Return the objects of a JSON Lines file; a line that is none, as a power cut leaves one, is left out.

    Raises:
        PillError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as err:
        raise PillError(
            f"{path} cannot be read: {err.strerror}; wanted one JSON object a line. Check its permissions."
        ) from err
    entries: list[Facts] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _read_optional(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, or nothing when it is not there."""
    return read_json(path) if path.is_file() else {}


def _is_damaged(path: Path) -> bool:
    try:
        _read_optional(path)
    except PillError:
        return True
    return False


def _read_config(path: Path) -> tuple[str, DictConfig]:
    """Return the text of the configuration and its keys; empty when it is not there."""
    empty = OmegaConf.create({})
    if not path.is_file():
        return "", empty
    try:
        text = path.read_text(encoding="utf-8")
        config = OmegaConf.create(yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError) as err:  # ValueError: not UTF-8
        reason = " ".join(str(err).split())  # YAML's texts have several lines
        raise PillError(
            f"no report can be written: {path} cannot be read: {reason}; wanted the configuration the run saved. "
            "Restore it, or delete it to get the page without it."
        ) from err
    return text, config if isinstance(config, DictConfig) else empty
