"""What a run asks of the machine's RAM, for the plan that is made and printed before the first step (DAT-3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pillsnap.data.loaders import Loader, TwoStageLoaders
from pillsnap.data.ram_plan import LoaderDemand, RamDemand, RamPlan, measure_machine, plan_ram, require_fit
from pillsnap.data.samplers import OrderedSampler, StepSampler

WORKER_BYTES = 300_000_000
"""Of one worker. Forked workers share their parent's memory; of their own a detector's was seen to have 61 MB and a
classifier's 18 MB after some epochs, which grows as they come to write to what they share. D-2.1 allows 1 GB."""
CHANNELS = 3


def plan_memory(
    loaders: TwoStageLoaders, image_sizes: dict[str, int], candidates: Sequence[int] = ()
) -> tuple[RamPlan, list[int]]:
    """Plan the memory of a run and log the table.

    The workers of both training loaders live through the run; those of validation join them, one loader at a time.

    Args:
        loaders: The run's loaders.
        image_sizes: Side of each task's input in pixels, by its name.
        candidates: Numbers of workers that are still to be chosen from, ascending; none: the loaders' own number.

    Returns:
        The plan, with the smallest candidate where there are some, and the candidates that fit.

    Raises:
        ConfigError: It does not fit; names the settings that would.
    """
    demand, machine = demand_of(loaders, image_sizes), measure_machine()
    fitting = [number for number in candidates if plan_ram(machine, _with_workers(demand, number)).free >= 0]
    return require_fit(machine, _with_workers(demand, candidates[0]) if candidates else demand), fitting


def demand_of(loaders: TwoStageLoaders, image_sizes: dict[str, int]) -> RamDemand:
    """Return what the loaders of a run ask for; see `plan_memory`."""
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
    return RamDemand(
        hotset_images=stores.hotset_images(),
        hotset_bytes=stores.hotset_bytes,
        loaders=[*training, *([] if largest is None else [largest])],
        labels_bytes=loaders.meta.data.records.table.nbytes,
        worker_bytes=WORKER_BYTES,
    )


def _with_workers(demand: RamDemand, num_workers: int) -> RamDemand:
    return replace(demand, loaders=[replace(loader, num_workers=num_workers) for loader in demand.loaders])


def _demand(loader: Loader, size_px: int) -> LoaderDemand:
    sampler = loader.batch_sampler
    assert isinstance(sampler, StepSampler | OrderedSampler)
    samples = sampler.step_size if isinstance(sampler, StepSampler) else sampler.batch_size
    return LoaderDemand(
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor or 0,
        batch_bytes=samples * size_px**2 * CHANNELS,
    )
