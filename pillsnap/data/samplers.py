"""Which samples come when: an epoch's order as a pure function, cut into the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pillsnap.data.datasets import Key
from pillsnap.data.randomness import epoch_order
from pillsnap.data.sampling import SamplingPlan, occurrences


class StepSampler(Sampler[list[Key]]):
    """Yields, step by step, the `(epoch, position, turn)` keys of the samples of one optimizer step.

    `drop_last` drops samples that do not fill a micro-batch; a last step with fewer micro-batches is kept, so no
    accumulation group is lost (LOP-3). A set smaller than one micro-batch is never dropped.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        grad_accum_steps: int,
        drop_last: bool,
        seed: int,
        task: str,
        plan: SamplingPlan | None = None,
    ) -> None:
        """Plan steps of `batch_size * grad_accum_steps` samples over `num_samples`.

        Args:
            num_samples: Samples of the data set, and of an epoch.
            batch_size: Samples of a micro-batch as configured.
            grad_accum_steps: Micro-batches of a step.
            drop_last: Leave out what does not fill a micro-batch at the end of an epoch.
            seed: Decides the order, with the task and the epoch.
            task: Whose order it is.
            plan: What an epoch consists of; None: of every sample once.
        """
        dropped = num_samples % batch_size if drop_last and num_samples >= batch_size else 0
        self.num_samples = num_samples
        self.num_used = num_samples - dropped
        self.step_size = batch_size * grad_accum_steps
        self.seed = seed
        self.task = task
        self.plan = plan
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
        order = self.order(epoch)
        turns = np.zeros(len(order), np.int64) if self.plan is None or self.plan.is_natural else occurrences(order)
        for start in range(self.start_sample, self.num_used, step_size):
            chosen = slice(start, min(start + step_size, self.num_used))
            yield [
                (epoch, position, turn)
                for position, turn in zip(order[chosen].tolist(), turns[chosen].tolist(), strict=True)
            ]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of an epoch's samples in their order, (num_samples,)."""
        if self.plan is None:
            return epoch_order(self.num_samples, self.seed, self.task, epoch)
        return self.plan.order(self.seed, self.task, epoch)


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
        """Yield lists of `(0, position, 0)`."""
        for start in range(0, self.num_samples, self.batch_size):
            yield [(0, position, 0) for position in range(start, min(start + self.batch_size, self.num_samples))]
