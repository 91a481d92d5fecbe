"""The number of workers of a run: whether it is to be measured, and on what.

The training loaders of all tasks are measured together, taking turns as in the run, because their workers share the
cores. Every candidate begins at another place of the epoch, so that none finds pictures in memory, or in the store of
decoded pixels, that an earlier one has brought there. A training set too small for that is read once before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pillsnap.config.loading import config_snapshot
from pillsnap.config.stage_precedence import NUM_WORKERS
from pillsnap.cores import usable_cores
from pillsnap.data.loaders import Loader, TwoStageLoaders
from pillsnap.data.samplers import StepSampler
from pillsnap.training.context import RunContext
from pillsnap.training.schedule import CLASSIFICATION, DETECTION, TaskName, next_task
from pillsnap.training.workers import autotune_num_workers, end_workers, usable_candidates

logger = logging.getLogger("pillsnap")

WARMUP, STEPS = 30, 100  # WRK-1


def with_tuned_workers(
    cfg: DictConfig,
    loaders: TwoStageLoaders,
    build: Callable[[DictConfig], TwoStageLoaders],
    context: RunContext,
    candidates: Sequence[int],
) -> DictConfig:
    """Return the configuration with the number of workers that delivers fastest, where that is to be found out.

    Args:
        cfg: The resolved configuration; `dataloader.autotune_workers` asks for it.
        loaders: The loaders `cfg` gives; not started.
        build: Gives the loaders of another configuration over the same data and stores.
        context: Told of the measurements and the choice.
        candidates: From `candidates_of`, those whose workers fit into memory.

    Returns:
        `cfg` itself where the number stays.
    """
    configured = int(cfg.dataloader.num_workers)
    if not candidates:
        logger.info("[workers] %d workers a loader: %s", configured, why_not_to_tune(cfg))
        context.tb.add_scalar("perf/num_workers", configured, 0)
        return cfg
    num_passes = len(candidates)
    passes = iter(range(num_passes + 1))

    def build_turns(num_workers: int) -> TrainingTurns:
        start = next(passes) % num_passes / num_passes
        return TrainingTurns(training_loaders(build(with_workers(cfg, num_workers))), cfg, start)

    chosen = autotune_num_workers(
        build_turns,
        candidates,
        WARMUP,
        STEPS,
        rehearse=not _is_large(training_loaders(loaders), num_passes),
        tb=context.tb,
        on_step=context.stop.check,
        on_choice=lambda number, why: context.decide("dataloader.num_workers", configured, number, f"autotune: {why}"),
    )
    return cfg if chosen == configured else with_workers(cfg, chosen)


def candidates_of(cfg: DictConfig) -> list[int]:
    """Return the numbers of workers to choose from, ascending; none where the number is used as configured."""
    if why_not_to_tune(cfg) is not None:
        return []
    return sorted(usable_candidates(list(cfg.dataloader.autotune_candidates), usable_cores()))


def why_not_to_tune(cfg: DictConfig) -> str | None:
    """Return why the number of workers is used as configured; None where it is to be measured."""
    stage = cfg.data.progressive_validation.current_stage
    override = f"train.stage_overrides.stage_{stage}.num_workers_override"
    if cfg.dataloader.num_workers == 0:
        return "pictures are decoded in the training process, there is nothing to tune"
    if not cfg.dataloader.autotune_workers:
        return "dataloader.autotune_workers is off"
    if NUM_WORKERS in cfg.train.stage_overrides.keep:
        return f"{NUM_WORKERS} was set in a later place than dataloader.autotune_workers"
    if OmegaConf.select(cfg, override) is not None:
        return f"{override} sets the number"
    return None


def with_workers(cfg: DictConfig, num_workers: int) -> DictConfig:
    """Return a read-only copy of the configuration with another number of workers."""
    changed = OmegaConf.create(config_snapshot(cfg))
    changed.dataloader.num_workers = num_workers
    OmegaConf.set_struct(changed, True)
    OmegaConf.set_readonly(changed, True)
    return changed


def training_loaders(loaders: TwoStageLoaders) -> dict[TaskName, Loader]:
    """Return the training loader of each task that has one."""
    found: dict[TaskName, Loader | None] = {CLASSIFICATION: loaders.cls_train, DETECTION: loaders.det_train}
    return {name: loader for name, loader in found.items() if loader is not None}


class TrainingTurns:
    """The steps of a run's training loaders in the run's order, without end; an epoch follows the other."""

    def __init__(self, loaders: Mapping[TaskName, Loader], cfg: DictConfig, start: float) -> None:
        """Begin after the share `start` (0..1) of each loader's epoch."""
        self._loaders = loaders
        self._strategy: str = cfg.train.strategy
        self._ratio: list[int] = list(cfg.train.interleave_ratio)
        self._batches: dict[str, Iterator[Any]] = {}
        for loader in loaders.values():
            sampler = _sampler(loader)
            sampler.set_position(0, int(len(sampler) * start) * sampler.step_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches; the workers end when the iterator is closed."""
        step = 0
        try:
            while True:
                yield self._next(next_task(self._strategy, self._ratio, step, self._loaders.keys()))
                step += 1
        finally:
            self._batches.clear()
            for loader in self._loaders.values():
                end_workers(loader)

    def _next(self, name: str) -> Any:
        loader = self._loaders[name]  # type: ignore[index]
        if name not in self._batches:
            self._batches[name] = iter(loader)
        try:
            return next(self._batches[name])
        except StopIteration:
            sampler = _sampler(loader)
            sampler.set_position(sampler.epoch + 1)
            self._batches[name] = iter(loader)
            return next(self._batches[name])


def _sampler(loader: Loader) -> StepSampler:
    sampler = loader.batch_sampler
    assert isinstance(sampler, StepSampler)
    return sampler


def _is_large(loaders: Mapping[TaskName, Loader], num_passes: int) -> bool:
    """Tell whether every candidate can read pictures of its own, whichever task most turns go to."""
    return all(len(_sampler(loader)) >= num_passes * (WARMUP + STEPS) for loader in loaders.values())
