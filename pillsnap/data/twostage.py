"""The data of a run: the picture table, its split, its class map, and who may look at what.

The test split is sealed until training is over: asking for its rows earlier is an error (DAT-1), so no number that
steers training can come from it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from omegaconf import DictConfig

from pillsnap.data import columns
from pillsnap.data.classes import ClassMap
from pillsnap.data.index import lies_in_data, load_index
from pillsnap.data.items import ClassificationItems, classification_items, unknown_items
from pillsnap.data.records import COMBO, SINGLE, Problem, Records
from pillsnap.data.selection import select_for_stage, selected_records
from pillsnap.data.splits import SIDES, UNKNOWN, assign_splits
from pillsnap.errors import CheckpointError, ConfigError, DataError
from pillsnap.manifest import read_manifest

logger = logging.getLogger("pillsnap")

FINAL_STAGE = 4


@dataclass
class TwoStageData:
    """Pictures, split and classes of one run."""

    root: Path
    records: Records
    split: NDArray[np.object_]
    class_map: ClassMap
    problems: Sequence[Problem]
    """What the reader found wrong with single files."""
    is_test_open: bool = field(default=False)
    selection: dict[str, Any] = field(default_factory=dict)
    """What the stage took of the data set (`stages.StageSelection.facts`)."""
    num_indexed: int | None = None
    """Pictures of the whole data set; None: as many as `records` has."""
    ignore: frozenset[str] = frozenset()
    """Class keys that are no drugs."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Class key -> drug name, of all drugs the labels name: the class map has those that train."""

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the row numbers of `split` ("train", "val", "test", or "unknown": with a drug nothing trains on).

        Raises:
            DataError: The test split is asked for before training is over.
        """
        if split == "test" and not self.is_test_open:
            raise DataError(
                "The test split was asked for while it is sealed. It is read once, after training at stage 4 has "
                "completed and best.pt exists, so that no choice can be made on it. Use the val split until then."
            )
        return np.flatnonzero(self.split == split).astype(np.int64)

    def digest(self) -> str:
        """Return a hash of which picture lies on which side; a resume must find the same."""
        # One Arrow array of "id:side\n": what its lines are joined to lies in its buffer already.
        sides = columns.texts([f"{side}\n" for side in SIDES], self._side_numbers())
        ids = columns.array_of(self.records, "sample_id").cast(pa.string())
        lines = pc.binary_join_element_wise(ids, sides, ":")
        length = pc.sum(pc.binary_length(lines)).as_py() or 1
        text = memoryview(lines.buffers()[2] or b"")[: length - 1]  # without the last line's end
        return hashlib.blake2b(text, digest_size=8).hexdigest()

    def labelled_rows(self, split: str, images: str) -> NDArray[np.int64]:
        """Return the rows of `split` that the detector uses: `combo` pictures, or `all` that have boxes."""
        rows = self.rows(split)
        is_labelled = columns.equals(self.records, "task", COMBO)
        if images != COMBO:
            is_labelled |= columns.num_boxes(self.records) > 0
        return np.asarray(rows[is_labelled[rows]], np.int64)

    def evaluation_items(self, split: str, view: str) -> ClassificationItems:
        """Return what the classifier is judged on.

        Args:
            split: "train", "val" or "test"; "unknown" gives `unknown_items`.
            view: `frame`: single pictures, seen whole (the crops of combos where there are none). `box`: the crop of
                every pill, of single and of combination pictures.
        """
        if split == UNKNOWN:
            return self.unknown_items(view)
        rows = self.rows(split)
        if view == "box":
            return classification_items(self.records, rows, self.class_map)
        items = classification_items(self.records, rows, self.class_map, (SINGLE,))
        return items if len(items) else classification_items(self.records, rows, self.class_map, (COMBO,))

    def unknown_items(self, view: str) -> ClassificationItems:
        """Return the pills of unknown drugs, in the views of `evaluation_items`; their label is `columns.ABSENT`."""
        rows = self.rows(UNKNOWN)
        if view == "box":
            return unknown_items(self.records, rows, self.class_map, ignore=self.ignore)
        items = unknown_items(self.records, rows, self.class_map, ignore=self.ignore, tasks=(SINGLE,))
        if len(items):
            return items
        return unknown_items(self.records, rows, self.class_map, ignore=self.ignore, tasks=(COMBO,))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many pictures and boxes of each task every split holds (counting only; opens nothing)."""
        task = columns.encode(self.records, "task")
        sides, width = self._side_numbers(), len(task.values)
        table = np.bincount(sides * width + task.numbers, minlength=len(SIDES) * width).reshape(len(SIDES), width)
        found: dict[str, dict[str, int]] = {}
        for side, kind in zip(*np.nonzero(table), strict=True):
            found.setdefault(SIDES[side], {})[task.values[kind]] = int(table[side, kind])
        return found

    def _side_numbers(self) -> NDArray[np.int64]:
        """Return each picture's place in `SIDES`, (N,)."""
        numbers = np.zeros(len(self.split), np.int64)
        for number, side in enumerate(SIDES):
            numbers[self.split == side] = number
        return numbers


def load_data(cfg: DictConfig) -> TwoStageData:
    """Read the index of `cfg.data.root`, take what the stage uses, split it, and number the training side's classes.

    Raises:
        DataError: The data set is missing, empty, or too small for the tasks.
        ConfigError: `model.num_classes` disagrees with the data at stage 4.
    """
    root = Path(cfg.data.root)
    cache_dir = Path(cfg.paths.cache_dir) if cfg.dataloader.ram_optimization.cache_labels else None
    scan = load_index(root, cfg.data.reader, cache_dir, manifest=manifest_path(cfg))
    selection = select_for_stage(scan.records, cfg)
    records = selected_records(scan.records, selection, cache_dir)
    split = assign_splits(
        records,
        policy=cfg.data.split.policy,
        val_fraction=cfg.data.split.val_fraction,
        test_fraction=cfg.data.split.test_fraction,
        seed=cfg.data.split.seed,
        unknown_classes=cfg.data.split.unknown_classes,
    )
    ignore = frozenset(cfg.data.ignore_classes)
    data = TwoStageData(
        root,
        records,
        split,
        ClassMap.from_records(records, scan.names, ignore, split == "train"),
        scan.problems,
        selection=selection.facts,
        num_indexed=len(scan.records),
        ignore=ignore,
        names=scan.names,
    )
    _require_tasks(data, cfg)
    _check_num_classes(cfg, len(data.class_map))
    return data


def manifest_path(cfg: DictConfig) -> Path | None:
    """Return the CSV file that names the pictures to use, None for all."""
    return None if cfg.data.manifest is None else Path(cfg.data.manifest)


def require_experiment_apart(cfg: DictConfig) -> None:
    """Make sure that nothing will be written among the pictures.

    Raises:
        ConfigError: `paths.exp_dir` or `paths.cache_dir` lies in a folder the reader reads.
        DataError: The data set is missing or lies like nothing known.
    """
    root = Path(cfg.data.root)
    for key in ("exp_dir", "cache_dir"):
        if lies_in_data(Path(cfg.paths[key]), root, cfg.data.reader, manifest_path(cfg)):
            raise ConfigError(
                f"paths.{key} is {cfg.paths[key]}, inside the pictures of {root}: the run's own pictures would become "
                f"data, and nothing may be written there. Choose a folder elsewhere with paths.{key}=DIR."
            )


def is_training_over(exp_dir: Path, stage: int) -> bool:
    """Tell whether training at stage 4 is over and left a best checkpoint, which opens the test split."""
    if stage != FINAL_STAGE:
        return False
    folder = exp_dir / "checkpoints"
    try:
        manifest = read_manifest(folder)
    except CheckpointError:  # whether to go on without it is for those to say who need the checkpoints
        return False
    is_completed = manifest is not None and bool(manifest.get("completed"))
    return is_completed and any((folder / name).exists() for name in ("best.pt", "detection_best.pt"))


def class_counts(items: ClassificationItems, num_classes: int) -> NDArray[np.int64]:
    """Return how many items each class has, (C,)."""
    return np.bincount(items.labels, minlength=num_classes).astype(np.int64)


def _require_tasks(data: TwoStageData, cfg: DictConfig) -> None:
    if "classification" in cfg.train.tasks:
        if len(data.class_map) < 2:
            raise DataError(
                f"{data.root} has {len(data.class_map)} class(es) on its training side: {list(data.class_map.codes)}. "
                "A classifier needs two or more. Add pictures of another drug, or train the detector alone with "
                "train.tasks=[detection]."
            )
        for split in ("train", "val"):
            if not len(data.evaluation_items(split, cfg.data.classification.eval_view)):
                raise DataError(
                    f"{data.root} has no pill of a known class in its {split} split. At least one is needed to train "
                    "and to validate. Add pictures, or change data.split."
                )
    if "detection" in cfg.train.tasks:
        has_boxes = columns.num_boxes(data.records) > 0
        for split in ("train", "val"):
            if not has_boxes[data.labelled_rows(split, cfg.data.detection.images)].any():
                raise DataError(
                    f"{data.root} has no {cfg.data.detection.images} picture with boxes in its {split} split, so the "
                    "detector cannot be trained. Set data.detection.images=all to use single pictures with boxes, add "
                    "labelled pictures, or train the classifier alone with train.tasks=[classification]."
                )


def _check_num_classes(cfg: DictConfig, found: int) -> None:
    wanted = cfg.model.num_classes
    if wanted is None or wanted == found or "classification" not in cfg.train.tasks:
        return
    stage = cfg.data.progressive_validation.current_stage
    if stage == FINAL_STAGE:
        raise ConfigError(
            f"model.num_classes is {wanted}, but the training data holds {found} classes. At stage 4 they must agree. "
            f"Set model.num_classes={found} or model.num_classes=null, or complete the data."
        )
    logger.info("model.num_classes %d -> %d: stage %d trains on the classes in the data", wanted, found, stage)
