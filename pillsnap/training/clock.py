"""Where a task stands, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Clock:
    """Where a task stands. A resume needs nothing else to find its next samples."""

    epoch: int = 0
    """Epochs completed, validation included."""
    step: int = 0
    """Optimizer steps done."""
    samples_in_epoch: int = 0
    """Samples of the current epoch that are used up, broken ones included."""
    samples: int = 0
    """Samples trained on."""
    skipped: int = 0
    """Broken pictures left out."""
    scaler_skips: int = 0
    """Steps that float16's scaler skipped (seen at logging steps)."""
    is_stopped: bool = False
    """Early stopping ended the task."""

    def schedule_position(self, step_size: int, num_used: int) -> float:
        """Return how many steps of `step_size` samples the schedule has seen, epochs of `num_used` samples.

        The last step of an epoch counts as a whole one, however few samples are left for it.
        """
        steps_per_epoch = math.ceil(num_used / step_size)
        is_epoch_done = self.samples_in_epoch >= num_used
        in_epoch = steps_per_epoch if is_epoch_done else self.samples_in_epoch / step_size
        return self.epoch * steps_per_epoch + in_epoch
