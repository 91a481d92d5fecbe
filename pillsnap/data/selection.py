"""What the current stage takes of a data set, as a table that worker processes share."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from pillsnap.data.cache_files import remove_old_files
from pillsnap.data.records import Records
from pillsnap.data.splits import require_classes, unknown_pictures
from pillsnap.data.stages import StageLimits, StageSelection, select_stage
from pillsnap.errors import PillError

logger = logging.getLogger("pillsnap")


def stage_limits(cfg: DictConfig) -> StageLimits:
    """Return the limits of the current stage."""
    stages = cfg.data.progressive_validation
    stage = stages[f"stage_{stages.current_stage}"]
    return StageLimits(
        max_samples=stage.max_samples,
        max_classes=stage.max_classes,
        min_images=stages.min_images_per_class,
        unknown_share=cfg.data.split.val_fraction,
    )


def select_for_stage(records: Records, cfg: DictConfig) -> StageSelection:
    """Choose the pictures of the current stage out of all pictures of the data set.

    Raises:
        ConfigError: `data.split.unknown_classes` names a class that no picture shows.
    """
    require_classes(records, cfg.data.split.unknown_classes)
    is_unknown = unknown_pictures(records, cfg.data.split.policy, cfg.data.split.unknown_classes)
    ignore = frozenset(cfg.data.ignore_classes)
    return select_stage(records, stage_limits(cfg), seed=cfg.data.split.seed, is_unknown=is_unknown, ignore=ignore)


def selected_records(records: Records, selection: StageSelection, cache_dir: Path | None) -> Records:
    """Return the selected pictures, mapped from a file in `cache_dir` so that spawned workers share them.

    Without a cache, or where it cannot be written, they are an ordinary table.
    """
    if selection.rows is None:
        return records
    chosen = records.select(selection.rows)
    if cache_dir is None:
        return chosen
    digest = hashlib.blake2b(chosen.column("sample_id").astype(np.uint64).tobytes(), digest_size=12).hexdigest()
    path = cache_dir / f"stage-{digest}.arrow"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        chosen.write(path)
        remove_old_files(cache_dir, "stage-*.arrow")
        return Records.read(path)[0]
    except (OSError, ValueError, PillError) as error:
        logger.warning("the pictures of the stage stay in memory, in each worker of its own: %s", error)
        return chosen
