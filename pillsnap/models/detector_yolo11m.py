"""The pill detector: YOLO11 (n, s, m, l, x) with its own loss and augmentation, in our training loop.

This is the only module that imports ultralytics. Importing that library writes a settings file into the home folder,
asks the network whether it is there and changes process-wide settings, so it is imported inside `_library`, which keeps
all of that from happening. `YOLO()` and `YOLO.train()` are never used: they bring a trainer of their own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pillsnap.boxes import FloatArray
from pillsnap.data.images import RgbImage
from pillsnap.errors import ModelError
from pillsnap.models.weights import PickledObjectsError, first_sentence, load_fitting, read_state_dict

logger = logging.getLogger(__name__)

MODEL_SIZES = ("n", "s", "m", "l", "x")
LOSS_NAMES = ("box", "cls", "dfl")
DOWNLOAD_RETRIES = 1


def build_yolo_model(
    model_size: str, num_classes: int, lazy_load: bool = True, *, pretrained: bool = True, weights: str | None = None
) -> nn.Module | None:
    """Build the detector, in training mode, on the CPU.

    The architecture depends on the size and the number of classes only, never on where the weights come from, so a
    checkpoint always fits the model built for it. (ultralytics widens the class branch of size `n` to that of its
    80-class weights; here that branch starts at random instead.)

    Args:
        model_size: One of n, s, m, l, x.
        num_classes: Classes of the head; 1 for pills.
        lazy_load: Defer the work: return None, and build when the first picture needs a detector (INF-1).
        pretrained: Fetch the COCO weights. Not read when `weights` is given.
        weights: Path of an ultralytics .pt file or of a state dict of this model, used instead.

    Returns:
        None when deferred; otherwise a model from (B, 3, S, S) float32 RGB in 0..1, S a multiple of 32, to raw
        predictions in training mode and to a tuple for `decode_predictions` in evaluation mode.

    Raises:
        ModelError: Unknown size, unreachable weights, or weights of another model.
    """
    if model_size not in MODEL_SIZES:
        raise ModelError(f"detection.model_size is {model_size!r}. Set it to one of {', '.join(MODEL_SIZES)}.")
    if lazy_load:
        return None
    model: nn.Module = _random_model(model_size, num_classes)
    source = weights if weights is not None else str(_coco_weights(model_size)) if pretrained else None
    if source is not None:
        # The sizes of the head's class branches depend on the number of classes; the head is the last layer.
        class_branches = f"model.{len(list(model.get_submodule('model').children())) - 1}.cv3."
        load_fitting(model, _detector_state(Path(source)), (class_branches,), source)
    return model


def decode_predictions(output: tuple[Tensor, Any]) -> Tensor:
    """Return the boxes of a model in evaluation mode.

    Args:
        output: What the model returned: decoded predictions and the raw ones.

    Returns:
        (B, 5, A) float32: centre x, centre y, width, height in pixels of the input, and the score of the one class
        in 0..1, for each of the A anchor points.
    """
    return output[0].float()


def build_criterion_detection() -> DetectionCriterion:
    """Return YOLO11's own loss, to be called as `criterion(model, predictions, targets)`."""
    return DetectionCriterion()


class DetectionCriterion:
    """YOLO11's loss (box, class, distribution focal), with the weights 7.5, 0.5 and 1.5 of its own recipe.

    It keeps the loss object of each model beside the model and not in it, so that state dicts and copies of the model
    (EMA) stay free of it.
    """

    def __init__(self) -> None:
        """Start without any model."""
        self._losses: weakref.WeakKeyDictionary[nn.Module, tuple[torch.device, Any]] = weakref.WeakKeyDictionary()

    def __call__(
        self, model: nn.Module, predictions: Mapping[str, Any] | tuple[Tensor, Any], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch in float32, under autocast too.

        Args:
            model: The model that made the predictions (from `build_yolo_model`, also compiled).
            predictions: Its output, in training or evaluation mode.
            targets: `batch_idx` (N,) image of each box, `cls` (N, 1), `bboxes` (N, 4) normalised centre format; N may
                be 0.

        Returns:
            The scalar loss as a mean over the batch's images, and its three parts, detached, under `box`, `cls`, `dfl`.
            ultralytics divides by the assigned scores of the whole batch, so the mean of two halves of a batch is
            close to, but not exactly, the loss of the batch.
        """
        raw = predictions[1] if isinstance(predictions, tuple) else predictions
        device_type = raw["boxes"].device.type
        with torch.autocast(device_type, enabled=False):
            # Only the shape, type and device of the feature maps are read: a stand-in without memory is enough.
            maps = [level.new_empty(1, dtype=torch.float32).expand(level.shape) for level in raw["feats"]]
            single = {"boxes": raw["boxes"].float(), "scores": raw["scores"].float(), "feats": maps}
            loss_times_batch, _ = self._loss_of(model)(single, dict(targets))
            parts = loss_times_batch / len(single["boxes"])
        return parts.sum(), dict(zip(LOSS_NAMES, parts.detach(), strict=True))

    def _loss_of(self, model: nn.Module) -> Any:
        device = next(model.parameters()).device
        known = self._losses.get(model)
        if known is None or known[0] != device:
            known = (device, _library().v8_detection_loss(model))
            _let_out_of_memory_through(known[1].assigner)
            self._losses[model] = known
        return known[1]


def _let_out_of_memory_through(assigner: Any) -> None:
    """Keep ultralytics' assigner from answering lack of memory itself.

    Its `forward` goes on image by image without telling anyone, so that a slice which runs out of memory in every step
    would pass for one that fits, and the recovery of this project would never see it.
    """
    with_own_recovery = assigner.forward

    @torch.no_grad()
    def forward(
        scores: Tensor,
        boxes: Tensor,
        anchors: Tensor,
        gt_labels: Tensor,
        gt_boxes: Tensor,
        gt_mask: Tensor,
        **extra: Any,
    ) -> Any:
        arguments = (scores, boxes, anchors, gt_labels, gt_boxes, gt_mask)
        if gt_boxes.shape[1] == 0:  # its answer to nothing to assign lies before its recovery
            return with_own_recovery(*arguments, **extra)
        # All that its `forward` does before `_forward`, which reads both.
        assigner.bs, assigner.n_max_boxes = scores.shape[0], gt_boxes.shape[1]
        return assigner._forward(*arguments, **extra)

    assigner.forward = forward


def detection_label(
    image: RgbImage, boxes_cxcywh_norm: FloatArray, original_hw: tuple[int, int], image_path: str = ""
) -> dict[str, Any]:
    """Make the label that ultralytics' transforms expect of a data set.

    Args:
        image: uint8 (H, W, 3) RGB whose longer side is the detector's input size; it is copied.
        boxes_cxcywh_norm: (N, 4) normalised centre format; N may be 0.
        original_hw: Height and width of the photograph before it was resized, pixels.
        image_path: Carried along for messages.

    Returns:
        A new dictionary for `training_transforms`; the image in it is BGR, as ultralytics works.
    """
    boxes = np.array(boxes_cxcywh_norm, np.float32).reshape(-1, 4)
    height, width = image.shape[:2]
    no_segments = np.zeros((0, 1000, 2), np.float32)
    return {
        "im_file": image_path,
        "img": np.ascontiguousarray(image[:, :, ::-1]),
        "cls": np.zeros((len(boxes), 1), np.float32),
        "instances": _library().instances(boxes, no_segments, None, bbox_format="xywh", normalized=True),
        "ori_shape": original_hw,
        "resized_shape": (height, width),
        "ratio_pad": (height / original_hw[0], width / original_hw[1]),
    }


@dataclass
class TrainingTransforms:
    """ultralytics' training augmentation; see `training_transforms`.

    The library's objects are built on first use in each process: a worker that was not forked would otherwise unpickle
    them and thereby import ultralytics unguarded.
    """

    dataset: Any
    size_px: int
    augment: dict[str, float]
    _compose: Any = field(default=None, repr=False)

    def __call__(self, label: dict[str, Any]) -> dict[str, Any]:
        """Augment one label in place; all randomness comes from `random` and `numpy.random`."""
        if self._compose is None:
            with _kept_process_settings():
                self._compose = self._build()
        out: dict[str, Any] = self._compose(label)
        return out

    def __getstate__(self) -> dict[str, Any]:
        """Leave the library's objects out."""
        return {**self.__dict__, "_compose": None}

    def _build(self) -> Any:
        library = _library()
        settings = library.settings_type(**{**library.default_settings, **self.augment})
        compose = library.v8_transforms(self.dataset, self.size_px, settings)
        # Albumentations, where it happens to be installed, blurs and greys with random numbers of its own.
        compose.transforms = [step for step in compose.transforms if not isinstance(step, library.albumentations)]
        compose.append(library.format(bbox_format="xywh", normalize=True, batch_idx=True, bgr=0.0))
        return compose


def training_transforms(
    dataset: Any, size_px: int, augment: Mapping[str, float], *, mosaic: bool
) -> TrainingTransforms:
    """Return YOLO's own training augmentation for labels made by `detection_label`.

    Args:
        dataset: Gives partners for mosaic and mixup: `get_image_and_label(index)`, `__len__`, `cache = "ram"` (partners
            are then drawn from the whole data set) and `data = {}`.
        size_px: Side of the square result.
        augment: Keys of ultralytics: hsv_h, hsv_s, hsv_v, degrees, translate, scale, fliplr, flipud, mosaic, mixup.
            Others are ignored.
        mosaic: False for the last epochs of a run, which close mosaic and mixup as YOLO's recipe does.

    Returns:
        A function from a label to the same dictionary with `img` uint8 (3, S, S) RGB, `bboxes` (N, 4) normalised centre
        format, `cls` (N, 1) and `batch_idx` (N,).
    """
    known = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "fliplr", "flipud", "mosaic", "mixup")
    values = {name: float(augment[name]) for name in known if name in augment}
    return TrainingTransforms(dataset, size_px, values if mosaic else {**values, "mosaic": 0.0, "mixup": 0.0})


def _random_model(model_size: str, num_classes: int) -> Any:
    library = _library()
    # As a dictionary: given a file name, ultralytics would prefer a file of that name in the current folder.
    definition = {**library.yolo11_definition, "scale": model_size}
    model = library.detection_model(definition, ch=3, nc=num_classes, verbose=False)
    model.args = library.settings_type(**library.default_settings)  # where the loss reads its three weights
    model.names = {0: "pill"} if num_classes == 1 else {index: str(index) for index in range(num_classes)}
    return model


def _coco_weights(model_size: str) -> Path:
    """Return the COCO weights from torch's cache folder, fetched by ultralytics' own downloader when needed."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"yolo11{model_size}.pt"
    if path.is_file():
        return path
    logger.info("Fetching the COCO weights of YOLO11%s to %s", model_size, path)
    try:
        _library().download(str(path), retry=DOWNLOAD_RETRIES)
    except (OSError, MemoryError) as error:  # MemoryError is how ultralytics says that the disk is full
        reason = str(error).strip("❌ .")
        raise ModelError(
            f"the COCO weights {path.name} cannot be fetched ({reason}). "
            f"Set detection.weights=/path/{path.name}, or detection.pretrained=false to start from random weights."
        ) from error
    return path


def _detector_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, or the one inside an ultralytics checkpoint.

    ultralytics pickles whole modules, which `weights_only` refuses by itself. Its restricted loader registers the known
    classes of YOLO models first and then reads with `weights_only=True`, so no code of the file is run.
    """
    try:
        return read_state_dict(path)
    except PickledObjectsError as pickled:
        allowed = torch.serialization.get_safe_globals()
        try:
            checkpoint, _ = _library().safe_load(str(path), safe_only=True)
            state: dict[str, Tensor] = (checkpoint.get("ema") or checkpoint["model"]).float().state_dict()
        except (TypeError, RuntimeError, KeyError, AttributeError, ImportError, AssertionError) as error:
            raise ModelError(
                f"the weights file {path} is neither a state dict nor an ultralytics YOLO checkpoint "
                f"({first_sentence(error)}). Use an official yolo11 .pt file or a state dict."
            ) from pickled
        finally:  # the loader leaves the classes registered, for every later torch.load of the process
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)
        return state


@functools.cache
def _library() -> SimpleNamespace:
    """Import ultralytics without letting it write, ask the network or leave the process changed."""
    with tempfile.TemporaryDirectory(prefix="pillsnap-") as folder, _kept_process_settings():
        os.environ["YOLO_CONFIG_DIR"] = folder  # read during the import only
        os.environ["YOLO_OFFLINE"] = "true"  # no name look-up
        os.environ["YOLO_AUTOINSTALL"] = "false"  # it would run pip for what a checkpoint names
        os.environ["YOLO_VERBOSE"] = "false"
        from ultralytics.data.augment import Albumentations, Format, v8_transforms
        from ultralytics.nn.tasks import DetectionModel, torch_safe_load
        from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, ROOT, YAML, IterableSimpleNamespace
        from ultralytics.utils.downloads import attempt_download_asset
        from ultralytics.utils.instance import Instances
        from ultralytics.utils.loss import v8DetectionLoss

        LOGGER.setLevel(logging.WARNING)
        return SimpleNamespace(
            default_settings=dict(DEFAULT_CFG_DICT),
            settings_type=IterableSimpleNamespace,
            yolo11_definition=YAML.load(ROOT / "cfg/models/11/yolo11.yaml"),  # type: ignore[no-untyped-call]
            detection_model=DetectionModel,
            v8_detection_loss=v8DetectionLoss,
            v8_transforms=v8_transforms,
            albumentations=Albumentations,
            format=Format,
            instances=Instances,
            download=attempt_download_asset,
            safe_load=torch_safe_load,
        )


@contextlib.contextmanager
def _kept_process_settings() -> Iterator[None]:
    """Put back what ultralytics changes for the whole process.

    That is: environment variables (OMP_NUM_THREADS=1 among them), `torch.save` (which it replaces by one that waits and
    tries again when the disk is full), `PIL.Image.open` (by one that ends with ModuleNotFoundError on a file that is no
    picture), warning filters and print options. OpenCV stays at one thread: forked loader workers must not share its
    thread pool.
    """
    environment, save, print_options = dict(os.environ), torch.save, torch._tensor_str.get_printoptions()
    image_open = Image.open
    try:
        with warnings.catch_warnings(), np.printoptions():
            yield
    finally:
        torch.save = save
        Image.open = image_open
        torch.set_printoptions(**print_options)  # type: ignore[no-untyped-call]
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
