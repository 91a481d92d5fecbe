"""Which samples come when: an epoch's order as a pure function, cut into the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from pillsnap.data.datasets import Key
from pillsnap.data.randomness import epoch_order


class StepSampler(Sampler[list[Key]]):
    """Yields, step by step, the `(epoch, position)` keys of the samples of one optimizer step.

    `drop_last` drops samples that do not fill a micro-batch; a last step with fewer micro-batches is kept, so no
    accumulation group is lost (LOP-3). A set smaller than one micro-batch is never dropped.
    """

    def __init__(
        self, num_samples: int, *, batch_size: int, grad_accum_steps: int, drop_last: bool, seed: int, task: str
    ) -> None:
        """Plan steps of `batch_size * grad_accum_steps` samples over `num_samples`."""
        dropped = num_samples % batch_size if drop_last and num_samples >= batch_size else 0
        self.num_samples = num_samples
        self.num_used = num_samples - dropped
        self.step_size = batch_size * grad_accum_steps
        self.seed = seed
        self.task = task
        self.epoch = 0
        self.start_sample = 0

    def __len__(self) -> int:
        """Return the number of optimizer steps of a whole epoch."""
        return -(-self.num_used // self.step_size)

    def set_position(self, epoch: int, start_sample: int = 0, *, step_size: int | None = None) -> None:
        """Make the next iteration begin at `start_sample` of `epoch`'s order, without visiting what lies before.

        Args:
            epoch: Decides the order.
            start_sample: Samples of the epoch that are used up.
            step_size: Samples of a step from here on; None leaves it.
        """
        self.epoch = epoch
        self.start_sample = start_sample
        if step_size is not None:
            self.step_size = step_size

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the keys of the remaining steps of the epoch."""
        epoch, step_size = self.epoch, self.step_size
        order = epoch_order(self.num_samples, self.seed, self.task, epoch)[: self.num_used]
        for start in range(self.start_sample, self.num_used, step_size):
            yield [(epoch, int(position)) for position in order[start : start + step_size]]


class OrderedSampler(Sampler[list[Key]]):
    """Yields the keys of a whole set in order, `batch_size` at a time, for validation and test."""

    def __init__(self, num_samples: int, batch_size: int) -> None:
        """Cover `num_samples` in batches of at most `batch_size`."""
        self.num_samples = num_samples
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield lists of `(0, position)`."""
        for start in range(0, self.num_samples, self.batch_size):
            yield [(0, position) for position in range(start, min(start + self.batch_size, self.num_samples))]
