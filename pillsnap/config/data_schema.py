"""The `data` and `dataloader` sections of the configuration: where the photographs are and how they become samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pillsnap.config.rules import (
    DISTINCT,
    NOT_EMPTY,
    Count,
    CountOrZero,
    Name,
    PathText,
    Share,
    above,
    at_least,
    between,
    inside,
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage uses (STG-1), when it ends before its last epoch, and what makes that a success (STG-4)."""

    max_samples: Count | None
    """Most pictures, training, validation and test together; null: no limit."""
    max_classes: Annotated[int, at_least(2)] | None
    """Most classes; null: no limit."""
    time_limit_hours: Annotated[float, above(0)] | None
    """Hours of training, resumed runs added up; null: no limit."""
    allow_success_on_time_cap: bool
    """A run ended by the limit may succeed."""
    min_samples_required: Count | None
    """Samples it must have trained on for that; null: any number."""
    min_class_coverage: Count | None
    """Classes that must be among them; null: any number."""


@dataclass(frozen=True, kw_only=True)
class ProgressiveValidation:
    """How far the staged roll-out has come."""

    current_stage: Annotated[int, between(1, 4)]
    """1 to 4. The test split is opened only at stage 4 (DAT-1)."""
    min_images_per_class: CountOrZero
    """Where a stage limits the data, classes with fewer pictures are left out."""
    stage_1: Stage
    stage_2: Stage
    stage_3: Stage
    stage_4: Stage


@dataclass(frozen=True, kw_only=True)
class Split:
    """How pictures are divided into training, validation and test."""

    policy: Literal["groups", "given"]
    """groups: seeded, pictures of one group stay together. given: the data set's own parts."""
    val_fraction: Annotated[float, inside(0, 1)]
    """Share of each class's groups that validates; used by policy `groups`."""
    test_fraction: Annotated[float, inside(0, 1)]
    """Share of each class's groups that is kept for the final test; used by policy `groups`."""
    seed: Annotated[int, at_least(0)]
    """Which pictures a stage uses, and which groups validate and test. Apart from `train.seed`, so that runs with
    other seeds are judged alike."""
    leakage: Literal["error", "warn"]
    """What pictures of one group, or copies of one picture, on two sides of the split are."""
    check_duplicates: bool
    """Look for copies of a picture on two sides by their pixels."""
    unknown_classes: Annotated[list[Name], DISTINCT]
    """Class keys kept from training: all pictures that show one measure how well the models refuse (FIN-3)."""


@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    """Which views of the photographs the classifier sees."""

    train_view: Literal["both", "box", "frame"]
    """box: crops around the labelled pill. frame: whole photographs. both: from tight crops to the whole frame."""
    eval_view: Literal["frame", "box"]
    """What validation and test use: `frame`, single photographs seen whole; `box`, the crop of every labelled pill."""
    frame_fit: Literal["letterbox", "center"]
    """How a whole photograph becomes a square: padded, or its centre cut out."""
    combo_crops: bool
    """Crops of photographs with several pills train the classifier too."""
    combo_share: Share | None
    """Share of such crops among the samples of an epoch; null: as many as there are."""
    sampling: Literal["natural", "balanced"]
    """natural: every pill once an epoch. balanced: every class equally often; not beside `loss.use_class_weights`."""


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """Which photographs the detector sees."""

    images: Literal["combo", "all"]
    """combo: labelled photographs with several pills. all: every labelled photograph."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A synthetic data set in the AI Hub layout; drawn into `data.root` when nothing is there."""

    num_drugs: Annotated[int, between(2, 5000)]
    """Different drugs; a classifier needs two."""
    singles_per_drug: Annotated[int, between(1, 1296)]
    """Photographs of each drug alone; the file naming grid has 1,296 places."""
    num_combos: CountOrZero
    """Photographs with three or four pills; they come in folders of three."""
    width: Annotated[int, between(160, 976)]
    """Pixels; the real set has 976."""
    height: Annotated[int, between(200, 1280)]
    """Pixels; the real set has 1,280."""
    seed: CountOrZero
    """Same seed, same bytes."""
    num_unknown_drugs: CountOrZero
    """Drugs of the val part only, as in the released data: never trained on, they measure how well models refuse."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The photographs."""

    root: PathText
    """Folder of the data set; only read, never written (except for drawing `data.synthetic`)."""
    reader: Literal["auto", "aihub576", "yolo", "folders", "manifest"]
    """How the folder is laid out; auto looks at it. manifest: `data.manifest` alone says what the pictures show."""
    manifest: PathText | None
    """CSV file of the pictures to use (image_path,mapping_code,image_type,source; paths relative to `data.root`). Where
    the folder is of no known layout, it is the data set. Null uses all pictures."""
    progressive_validation: ProgressiveValidation
    split: Split
    max_corruption: Share
    """Largest share of damaged picture files; above it the run saves, lists them and ends with exit code 3."""
    ignore_classes: Annotated[list[Name], DISTINCT]
    """Class keys that are no drugs, such as a folder of scenery."""
    classification: ClassificationData
    detection: DetectionData
    synthetic: Synthetic | None
    """Null for real photographs."""


@dataclass(frozen=True, kw_only=True)
class RamOptimization:
    """What is kept to save work: decoded pictures, for later epochs and runs, and what was read from labels."""

    cache_policy: Literal["hotset", "mmap", "none", "auto"]
    """hotset: pictures in RAM, shared by all workers. mmap: in a file of `paths.cache_dir`. auto: what is fastest."""
    hotset_size_images: CountOrZero
    """Pictures the hot set keeps (DAT-3); the RAM plan refuses more than fit. Kept in `paths.cache_dir` as well."""
    use_lmdb: bool
    """Keep pictures packed in LMDB in `paths.cache_dir`, all of them; used by `hotset` and `none`."""
    lmdb_codec: Literal["lossless", "jpeg"]
    """jpeg: quality 95, a third of the bytes, other pixels than the original's; their PSNR is logged."""
    preload_samples: CountOrZero
    """Samples decoded before the first step; 0 leaves it to the first epoch."""
    cache_labels: bool
    """Keep what was read from the label files in `paths.cache_dir` (DAT-4)."""


@dataclass(frozen=True, kw_only=True)
class DataLoading:
    """How samples travel to the device. `persistent_workers` and `prefetch_factor` have no effect with 0 workers."""

    num_workers: CountOrZero
    """Processes that decode pictures; 0 decodes in the training process. The samples are the same either way."""
    autotune_workers: bool
    """Measure `autotune_candidates` at the start of a run and use the fastest in place of `num_workers`."""
    autotune_candidates: Annotated[list[Count], NOT_EMPTY, DISTINCT]
    """Numbers of workers to measure; those above the cores at hand count as that number."""
    pin_memory: bool
    """Page-locked host memory for faster copies to the GPU; no effect without one."""
    pin_memory_device: Name
    """Device the pinned memory is for, such as cuda."""
    persistent_workers: bool
    """Keep the workers alive between epochs."""
    prefetch_factor: Count
    """Steps each worker prepares ahead."""
    drop_last: bool
    """Leave out an epoch's last samples when they do not fill a step."""
    ram_optimization: RamOptimization
