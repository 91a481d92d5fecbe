"""What a task shares with the run around it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from pillsnap.data.batches import Broken
from pillsnap.data.damage import Damage
from pillsnap.memory import GB, SCARCE_SHARE, DeviceMemory
from pillsnap.training.interrupt import StopRequest
from pillsnap.training.precision import select_device
from pillsnap.training.recovery import Cut, Decide
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
    damage: Damage = field(default_factory=Damage.unlimited)
    """Counts damaged files."""

    def note_broken(self, broken: Iterable[Broken], place: str, label: str) -> None:
        """Count pictures that could not be decoded, and name those nobody has named yet.

        Args:
            broken: What a batch left out.
            place: The task.
            label: Leads the log line.
        """
        for news in self.damage.note(broken, place):
            self.logger.warning("[%s] left out: %s", label, news.reason)

    def watch_memory(self, cut: Cut, epoch: int, label: str, prefix: str) -> None:
        """Note how full memory is before an epoch, and warn where little is left (OOM-1).

        Args:
            cut: How the task's steps are cut.
            epoch: Number of the epoch from 0.
            label: Leads the log line.
            prefix: Leads TensorBoard tags.
        """
        share = self.memory.used_share()
        figures = {"perf/memory_use": share, "perf/batch_size": float(cut.batch_size)}
        if share > SCARCE_SHARE:
            figures["oom/memory_warning"] = share
            self.logger.warning(
                f"[{label}] {share:.0%} of {self.memory.total_bytes / GB:.1f} GB are in use before epoch {epoch + 1} "
                f"(micro-batches {cut}); above {SCARCE_SHARE:.0%} running out is likely. Close other programs that use "
                "the memory."
            )
        self.tb.add_scalars(figures, epoch, prefix)
