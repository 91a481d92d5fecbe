"""What an experiment left behind, read leniently: a file that is missing or damaged holds no figure, no more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pillsnap.errors import DataError, PillError
from pillsnap.evaluation.prediction_table import PredictionTable, read_predictions
from pillsnap.gates.evidence import Evidence, checkpoint_hashes
from pillsnap.jsonfile import read_json

logger = logging.getLogger("pillsnap")

METRICS = "reports/metrics.json"
RUN = "reports/run.json"
LATENCY = "reports/latency.json"
CHECKS = "reports/checks.json"
PREDICTIONS = "reports/predictions_val.arrow"
CLASS_MAP = "class_map.json"
TENSORBOARD = "tb"
STDERR = "logs/train.err"
_CHECKPOINTS = {"classification": "best.pt", "detection": "detection_best.pt"}


@dataclass
class Sources:
    """The files of one experiment, each read when it is first asked for."""

    exp_dir: Path
    given_checks: Mapping[str, Mapping[str, Any]] | None = None
    """The checks as plain data; None: those of `reports/checks.json` that still count."""

    @cached_property
    def run(self) -> dict[str, Any]:
        """Facts about the run."""
        return self.json(RUN)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Figures of every epoch and of the best models."""
        return self.json(METRICS)

    @cached_property
    def latency(self) -> dict[str, Any]:
        """How long an answer takes; nothing where other checkpoints were timed than lie there now."""
        content = self.json(LATENCY)
        timed, hashes = at(content, "checkpoints"), checkpoint_hashes(self.exp_dir)
        now = {task: hashes[name] for task, name in _CHECKPOINTS.items() if name in hashes}
        if content and timed != now:
            logger.warning("%s is of other checkpoints and does not count: measure again.", self.exp_dir / LATENCY)
            return {}
        return content

    @cached_property
    def checks(self) -> Mapping[str, Mapping[str, Any]]:
        """The evidence, by the name of the check."""
        return Evidence.load(self.exp_dir).to_dict() if self.given_checks is None else self.given_checks

    @cached_property
    def predictions(self) -> PredictionTable | None:
        """What the best classifier answered on the val split; None where that was not kept."""
        path = self.exp_dir / PREDICTIONS
        if not path.exists():
            return None
        try:
            return read_predictions(path)
        except DataError as error:
            logger.warning("%s", error)
            return None

    @cached_property
    def scalars(self) -> dict[str, list[float]]:
        """TensorBoard's figures by tag, in the order they were written; none where there are no events."""
        folder = self.exp_dir / TENSORBOARD
        if not folder.is_dir():
            return {}
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file of the experiment; nothing where it is missing or damaged."""
        path = self.exp_dir / name
        if not path.exists():
            return {}
        try:
            return read_json(path)
        except PillError as error:
            logger.warning("%s Nothing of it counts.", error)
            return {}

    def text(self, name: str) -> str:
        """Return the text of a file of the experiment; nothing where it cannot be read."""
        try:
            return (self.exp_dir / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def at(content: object, *keys: str) -> Any:
    """Return a nested value; None where a step of the way is missing or no mapping."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content
