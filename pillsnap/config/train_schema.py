"""The `train` section of the configuration: the order of work, optimisation, and what each task does differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pillsnap.config.rules import (
    DISTINCT,
    NOT_EMPTY,
    Count,
    CountOrZero,
    Share,
    above,
    at_least,
    between,
    from_to_below,
    inside,
    num_items,
)

Task = Literal["classification", "detection"]
Scheduler = Literal["cosine", "onecycle"]
CompileMode = Literal["none", "reduce-overhead", "max-autotune"]
StageKey = Literal[
    "dataloader.num_workers",
    "optimization.channels_last",
    "optimization.torch_compile",
    "train.auto_batch_vram_headroom",
    "train.batch_size",
    "train.classification.auto_batch_max",
    "train.classification.channels_last",
    "train.detection.auto_batch_max",
]
"""What a stage can change."""
LearningRate = Annotated[float, above(0)]
AtLeastZero = Annotated[float, at_least(0)]
Degrees = Annotated[float, between(0, 180)]


@dataclass(frozen=True, kw_only=True)
class Oom:
    """What happens when memory runs out (OOM-2, OOM-3)."""

    max_retries: CountOrZero
    """Failures in a row before the run saves its state and ends with exit code 4."""
    max_grad_accum: Count
    """Most micro-batches a step is cut into before the step itself gets smaller."""
    min_batch: Count
    """Smallest micro-batch."""
    cooldown_sec: AtLeastZero
    """Seconds to wait before another attempt."""
    escalate_to_fp16: bool
    """Let a task that computes in float32 on a GPU go on in float16 before anything is cut."""
    regrow_after_steps: CountOrZero
    """Clean steps after which the next larger micro-batch is tried again; 0: never."""


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Exponential moving average of the weights; validated and saved in place of the raw ones."""

    enabled: bool
    """Keep an average beside the raw weights."""
    decay: Annotated[float, inside(0, 1)]
    """Share of the old average that each optimizer step keeps."""


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """The validation figure that decides which checkpoint is best, per task."""

    classification: Literal["macro_f1", "acc", "top5", "val_loss"]
    """Figure of the classifier's validation."""
    detection: Literal["mAP@0.5", "mAP@0.5:0.95", "precision", "recall"]
    """Figure of the detector's validation."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When a task stops before its last epoch."""

    monitor: Monitor
    """The figure that is watched."""
    mode: Literal["max", "min"]
    """max: higher is better (every figure except val_loss). min: lower is better. One mode for both tasks."""
    patience: Count
    """Epochs in a row without improvement before stopping."""
    min_delta: AtLeastZero
    """Smallest change that counts as an improvement."""


@dataclass(frozen=True, kw_only=True)
class ClassificationAugment:
    """Random changes to training crops. No flip: it mirrors imprints (DAT-7)."""

    rotation_degrees: Degrees
    """Largest turn to either side."""
    brightness: Share
    """Largest relative change up or down."""
    contrast: Share
    """Largest relative change up or down."""
    saturation: Share
    """Largest relative change up or down."""
    hue: Annotated[float, between(0, 0.5)]
    """Largest shift to either side, as a fraction of the colour circle."""
    blur: Share
    """Probability of a slight blur."""


@dataclass(frozen=True, kw_only=True)
class DetectionAugment:
    """YOLO11's own augmentation, under the library's names."""

    mosaic: Share
    """Probability of putting four photographs together."""
    close_mosaic_epochs: CountOrZero
    """The last epochs train without mosaic."""
    hsv_h: Share
    """Largest relative change of hue."""
    hsv_s: Share
    """Largest relative change of saturation."""
    hsv_v: Share
    """Largest relative change of value (brightness)."""
    degrees: Degrees
    """Largest rotation to either side."""
    translate: Share
    """Largest shift to either side, as a fraction of the picture."""
    scale: Annotated[float, from_to_below(0, 1)]
    """Largest relative change of size."""
    fliplr: Share
    """Probability of mirroring left and right."""
    flipud: Share
    """Probability of mirroring up and down."""
    mixup: Share
    """Probability of blending two photographs."""


@dataclass(frozen=True, kw_only=True)
class StageOverride:
    """What one stage changes before it trains (STG-2); null changes nothing."""

    batch_size_override: Count | None
    """For `train.batch_size`."""
    compile_mode: CompileMode | None
    """For `optimization.torch_compile`."""
    memory_format: Literal["channels_last", "contiguous_format"] | None
    """For `optimization.channels_last` and `train.classification.channels_last`."""
    num_workers_override: CountOrZero | None
    """For `dataloader.num_workers`."""


@dataclass(frozen=True, kw_only=True)
class StageOverrides:
    """What each stage changes; a value set in a later place than the stage's own stays as it is."""

    keep: Annotated[list[StageKey], DISTINCT]
    """Keys that no stage changes; loading adds those that were set in a later place."""
    stage_1: StageOverride
    stage_2: StageOverride
    stage_3: StageOverride
    stage_4: StageOverride


@dataclass(frozen=True, kw_only=True)
class TaskOverrides:
    """Values of one task that replace the common `train.*` value of the same name; null keeps the common one."""

    batch_size: Count | None
    lr: LearningRate | None
    weight_decay: AtLeastZero | None
    scheduler: Scheduler | None
    warmup_steps: CountOrZero | None
    grad_accum_steps: Count | None
    grad_clip: AtLeastZero | None
    """0 turns clipping off for this task."""


@dataclass(frozen=True, kw_only=True)
class ClassificationTraining(TaskOverrides):
    """The classifier's training."""

    epochs: Count
    """Passes over the task's training split."""
    amp: bool
    """Compute in 16 bit where it is safe."""
    amp_dtype: Literal["auto", "fp16", "bf16"]
    """auto: bf16 where the device supports it, else fp16."""
    tf32: bool
    """Allow TF32 matrix products (CUDA)."""
    channels_last: bool
    """Memory format of the classifier and its inputs; `optimization.channels_last` must not contradict it."""
    auto_batch_tune: bool
    """Find the fastest micro-batch that fits before training (BAT-1)."""
    auto_batch_max: Count
    """Largest micro-batch."""
    augment: ClassificationAugment
    """Random changes to training crops."""


@dataclass(frozen=True, kw_only=True)
class DetectionTraining(TaskOverrides):
    """The detector's training."""

    epochs: Count
    """Passes over the task's training split."""
    amp: bool
    """Compute in 16 bit where it is safe."""
    tf32: bool
    """Allow TF32 matrix products (CUDA)."""
    auto_batch_tune: bool
    """Find the fastest micro-batch that fits before training (BAT-1)."""
    auto_batch_max: Count
    """Largest micro-batch."""
    augment: DetectionAugment
    """Random changes to training photographs."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """One run; `batch_size` to `grad_clip` hold for both tasks unless the task's own section says otherwise."""

    strategy: Literal["interleaved", "sequential"]
    """interleaved: the tasks take turns by steps. sequential: classification, then detection."""
    interleave_ratio: Annotated[list[Count], num_items(2)]
    """[detection, classification] steps per turn."""
    tasks: Annotated[list[Task], NOT_EMPTY, DISTINCT]
    """What to train; with one task the strategy makes no difference."""
    seed: Annotated[int, between(0, 2**32 - 1)]
    """Start of all randomness."""
    deterministic: bool
    """Use deterministic algorithms where they exist (slower)."""
    resume: Literal["last"] | None
    """last: go on from the experiment's last checkpoint. null: start anew."""
    checkpoint_minutes: AtLeastZero
    """Minutes between checkpoints inside an epoch; 0: only after each epoch."""
    stall_minutes: AtLeastZero
    """Minutes without a step after which the stacks of all processes are logged; 0: never."""
    batch_size: Count
    """Samples a step and accumulation round."""
    lr: LearningRate
    """Peak learning rate (AdamW)."""
    weight_decay: AtLeastZero
    """AdamW's; not applied to biases and normalisation."""
    scheduler: Scheduler
    """cosine: linear warm-up, then half a cosine. onecycle: PyTorch's OneCycleLR."""
    warmup_steps: CountOrZero
    """Optimizer steps of linear warm-up."""
    grad_accum_steps: Count
    """Batches whose gradients are summed for one optimizer step."""
    grad_clip: AtLeastZero | None
    """Largest gradient norm; 0 or null turns clipping off."""
    zero_grad_set_to_none: bool
    """Drop gradients between steps rather than fill them with zeros."""
    auto_batch_vram_headroom: Annotated[float, inside(0, 1)]
    """Share of the memory that the search for a micro-batch may fill."""
    oom: Oom
    ema: Ema
    stage_overrides: StageOverrides
    early_stopping: EarlyStopping
    classification: ClassificationTraining
    detection: DetectionTraining
