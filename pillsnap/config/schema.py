"""Every key of the configuration, with its type, its choices and its rule.

The schema has no default values: `config.yaml` is the one place where they are written. A configuration either begins
with `extends: config.yaml` or gives every key itself. A section that may be null, such as `data.synthetic`, is the
exception: it can be left out, but once it has a key it needs all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pillsnap.config.data_schema import Data, DataLoading
from pillsnap.config.rules import Count, Name, PathText, Share, above, at_least, from_to_below, multiple_of
from pillsnap.config.train_schema import AtLeastZero, CompileMode, Train


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Folders."""

    exp_dir: PathText
    """The experiment: logs, tb, reports, checkpoints and export are written below it."""
    data_root: PathText
    """Where data sets live on this machine; `data.root` points at it unless it is set."""
    cache_dir: PathText
    """Label cache, shared by experiments that lie side by side (DAT-4)."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine."""

    gpu_memory_limit_gb: Annotated[float, above(0)] | None
    """GB (1e9 bytes) training may use: of GPU memory, or without a GPU of address space beyond what is used by then."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The classifier."""

    backbone: Name
    """Name of a timm model; with a tag (`.in21k_ft_in1k`) it names the pretrained weights too."""
    num_classes: Annotated[int, at_least(2)] | None
    """null: as many as the class map has. A number that disagrees with the data is an error at stage 4."""
    pretrained: bool
    """Start from the backbone's published weights; `weights` wins where both are set."""
    weights: PathText | None
    """A local file of weights to start from."""
    image_size: Annotated[int, at_least(32)]
    """Side of the square input in pixels."""
    global_pool: Literal["avg", "max", "avgmax", "catavgmax"] | None
    """How the last feature map becomes a vector; null: the backbone's own way. `max` finds a small pill in a frame."""
    output_stride: Literal[8, 16, 32] | None
    """Input pixels a cell of the last feature map; null: the backbone's own. Fewer keep the shape of a small pill."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The detector (YOLO11, one class `pill`)."""

    model_size: Literal["n", "s", "m", "l", "x"]
    """nano to extra large."""
    pretrained: bool
    """Start from the COCO weights; `weights` wins where both are set."""
    weights: PathText | None
    """A local file of weights to start from."""
    image_size: Annotated[int, at_least(32), multiple_of(32)]
    """Side of the letterboxed input in pixels; the network halves it five times."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The classifier's loss; the detector has YOLO11's own."""

    label_smoothing: Annotated[float, from_to_below(0, 1)]
    """Share of the target spread over all classes."""
    use_class_weights: bool
    """Weigh classes against their frequency; the mean weight is 1."""
    class_weights: Literal["inv_freq", "effective_num"]
    """How the weights follow from the class counts."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Speed."""

    torch_compile: CompileMode
    """Mode of torch.compile; where it fails, the plain model goes on with one warning."""
    channels_last: bool
    """The same as `train.classification.channels_last`; the value set last holds for both."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Use of the trained models."""

    lazy_load_detector: bool
    """Load the detector at the first combo picture."""
    conf_threshold: Share
    """Boxes below this confidence are dropped."""
    iou_threshold: Share
    """Overlap from which two boxes count as the same pill (NMS)."""
    max_detections: Count
    """Boxes kept per picture."""
    crop_padding: AtLeastZero
    """Margin around a box before it is classified, as a fraction of its side."""
    wanted_error: Share
    """Largest share of wrong names among those given, on val with half of the pills unknown; sets what is refused."""


@dataclass(frozen=True, kw_only=True)
class HardCases:
    """Which answers are kept for a second look, in `hard_cases/` of the experiment (DAT-6)."""

    enabled: bool
    """Keep them: of val and of unknown drugs at the end of a run, and of `pillsnap predict`."""
    confidence: Share
    """An answer for a picture of one pill that is less sure than this is one."""
    thumbnails: bool
    """Keep a small copy of the picture and of the pill, too."""
    max_cases: Count
    """Most cases of each split, the gravest ones; of predictions the newest."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """How often training speaks, and which answers are kept."""

    step_log_interval: Count
    """Steps between two log lines."""
    profile_interval: Count
    """Steps between two detailed lines."""
    hard_cases: HardCases


@dataclass(frozen=True, kw_only=True)
class OptimizationAdvisor:
    """What is said about a run that has ended (ADV-1)."""

    run_after_training: bool
    """Hold the run against its stage's criteria when it ends; `pillsnap check` does so at any time."""


@dataclass(frozen=True, kw_only=True)
class Ui:
    """How the program speaks to people."""

    language: Literal["auto", "ko", "en"]
    """Of the advisor. auto: Korean where the terminal's locale is, else English."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration."""

    paths: Paths
    data: Data
    model: Model
    detection: Detection
    hardware: Hardware
    train: Train
    loss: Loss
    optimization: Optimization
    dataloader: DataLoading
    inference: Inference
    logging: Logging
    optimization_advisor: OptimizationAdvisor
    ui: Ui
