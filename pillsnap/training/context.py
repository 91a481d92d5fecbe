"""What a task shares with the run around it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from pillsnap.memory import DeviceMemory
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.precision import select_device
from pillsnap.training.recovery import Decide
from pillsnap.training.telemetry import TBWriter


def _no_record(what: str, before: object, after: object, why: str) -> None:
    """Keep no record of decisions: for callers without an experiment."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a task shares with the run around it."""

    logger: logging.Logger
    tb: TBWriter
    stop: StopRequest
    last_checkpoint: str
    """Path of the checkpoint to go back to, for messages."""
    memory: DeviceMemory = field(default_factory=lambda: DeviceMemory(select_device()))
    """What the run may use."""
    decide: Decide = _no_record
    """Notes decisions the run takes on its own, for the report."""
