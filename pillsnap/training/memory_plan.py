"""What a run asks of the machine's RAM, for the plan that is made and printed before the first step (DAT-3)."""

from __future__ import annotations

import os
from pathlib import Path

from pillsnap.data.loaders import Loader, TwoStageLoaders
from pillsnap.data.ram_plan import WORKER_BYTES, LoaderDemand, RamDemand, RamPlan, measure_machine, require_fit
from pillsnap.data.samplers import OrderedSampler, StepSampler

WORKER_OWN_BYTES = 100_000_000  # what a worker was seen to need beside what it takes over from the training process
CHANNELS = 3


def plan_memory(loaders: TwoStageLoaders, image_sizes: dict[str, int]) -> RamPlan:
    """Plan the memory of a run and log the table.

    The workers of both training loaders live through the run; those of validation join them, one loader at a time.

    Args:
        loaders: The run's loaders.
        image_sizes: Side of each task's input in pixels, by its name.

    Raises:
        ConfigError: It does not fit; names the settings that would.
    """
    training = [
        _demand(loader, image_sizes[task])
        for task, loader in (("classification", loaders.cls_train), ("detection", loaders.det_train))
        if loader is not None
    ]
    validation = [
        _demand(loader, image_sizes[task])
        for task, loader in (("classification", loaders.cls_val), ("detection", loaders.det_val))
        if loader is not None
    ]
    largest = max(validation, key=lambda demand: demand.batch_bytes * demand.num_workers, default=None)
    stores = loaders.meta.stores
    demand = RamDemand(
        hotset_images=stores.hotset_images(),
        hotset_bytes=stores.hotset_bytes,
        loaders=[*training, *([] if largest is None else [largest])],
        labels_bytes=loaders.meta.data.records.table.nbytes,
        worker_bytes=min(WORKER_BYTES, own_memory() + WORKER_OWN_BYTES),
    )
    return require_fit(measure_machine(), demand)


def own_memory() -> int:
    """Return the bytes of this process that a forked worker can come to copy: its resident anonymous memory."""
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def _demand(loader: Loader, size_px: int) -> LoaderDemand:
    sampler = loader.batch_sampler
    assert isinstance(sampler, StepSampler | OrderedSampler)
    samples = sampler.step_size if isinstance(sampler, StepSampler) else sampler.batch_size
    return LoaderDemand(
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor or 0,
        batch_bytes=samples * size_px**2 * CHANNELS,
    )
