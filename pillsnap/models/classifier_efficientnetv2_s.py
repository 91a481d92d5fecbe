"""The single-pill classifier: EfficientNetV2-S by default, any backbone of timm by name.

Weights come from timm's hub, from a local file, or, when asked for in so many words, from a random start; never from a
random start because something else did not work. Mean and standard deviation are the weights' own.
"""

from __future__ import annotations

import difflib
import functools
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg, is_model
from torch import nn

from pillsnap.data.preprocess import ClassifierInput
from pillsnap.errors import ModelError
from pillsnap.models.weights import first_sentence, load_fitting, read_state_dict

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0
SHOWN_NAMES = 10
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# The hub's client raises the errors of its HTTP library (time-outs included), which are not all OSErrors.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"),
)


def build_classification_model(
    backbone: str,
    num_classes: int,
    channels_last: bool,
    *,
    pretrained: bool = True,
    weights: str | None = None,
    global_pool: str | None = None,
    output_stride: int | None = None,
) -> nn.Module:
    """Build the classifier, in training mode, on the CPU.

    Args:
        backbone: A timm model name, with or without a tag: `tf_efficientnetv2_s.in21k_ft_in1k`.
        num_classes: Outputs (logits) of the model.
        channels_last: Lay the parameters out for NHWC convolutions; the inputs must follow (PRC-3).
        pretrained: Fetch the backbone's published weights. Not read when `weights` is given.
        weights: Path of a state dict of this backbone (.pt, .pth, .safetensors), used instead of the hub's.
        global_pool: How the last feature map becomes a vector (`avg`, `max`, `avgmax`, `catavgmax`); None takes the
            backbone's own way.
        output_stride: Pixels of the input a cell of the last feature map (8, 16, 32); None takes the backbone's own.

    Returns:
        A model from (B, 3, S, S) float32 to logits (B, num_classes).

    Raises:
        ModelError: The backbone is unknown, has no published weights, has no such pooling or stride, its hub cannot be
            reached, or the file in `weights` cannot be read or belongs to another model.
    """
    config = _known_config(backbone)
    options = {"global_pool": global_pool, "output_stride": output_stride}
    create = functools.partial(_create, backbone, num_classes, {k: v for k, v in options.items() if v is not None})
    if weights is not None:
        model = create(pretrained=False)
        load_fitting(model, read_state_dict(Path(weights)), _head_prefixes(config), weights)
    elif pretrained:
        model = _from_hub(backbone, config, create)
    else:
        model = create(pretrained=False)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def classifier_input(model: nn.Module, size_px: int | None, frame_fit: str) -> ClassifierInput:
    """Describe the pictures a model built here wants.

    Args:
        model: From `build_classification_model`.
        size_px: Side of the square input; None takes the size the weights were tested at.
        frame_fit: `letterbox` or `center`, how a whole photograph becomes a square.

    Returns:
        Mean and standard deviation of the weights' own configuration. The resizer is this program's own, one for
        training, validation and use; it differs from the weights' (`bicubic` or `bilinear`) by less than JPEG does.

    Raises:
        ModelError: The model accepts only another size.
    """
    config: dict[str, Any] = resolve_model_data_config(model, use_test_size=True)  # type: ignore[no-untyped-call]
    own_size_px = int(config["input_size"][-1])
    size_px = own_size_px if size_px is None else size_px
    model_config: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    if model_config.get("fixed_input_size") and size_px != own_size_px:
        raise ModelError(
            f"model.image_size is {size_px}; {model_config.get('architecture')} accepts only {own_size_px}. "
            f"Set model.image_size={own_size_px}, or choose a convolutional backbone."
        )
    return ClassifierInput(
        size_px=size_px,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        frame_fit=frame_fit,
    )


def _known_config(backbone: str) -> Any:
    """Return timm's configuration of a backbone (its default tag when none is named)."""
    name = backbone.partition(".")[0]
    try:
        if is_model(name):
            return get_pretrained_cfg(backbone, allow_unregistered=False)
    except RuntimeError:  # the model is known, the tag after the dot is not: fall through to the nearest names
        logger.debug("timm knows %s but not the tag of %s", name, backbone)
    names = timm.list_pretrained(f"{name}.*") if is_model(name) else [*timm.list_models(), *timm.list_pretrained()]
    nearest = difflib.get_close_matches(backbone, names, n=SHOWN_NAMES, cutoff=0.4)
    raise ModelError(
        f"model.backbone is {backbone!r}, which timm {timm.__version__} does not know. "
        f"Nearest names: {', '.join(nearest) or 'none'}. Set model.backbone to one of timm's models."
    )


def _head_prefixes(config: Any) -> tuple[str, ...]:
    names = config.classifier or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _create(backbone: str, num_classes: int, options: dict[str, Any], *, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(backbone, pretrained=pretrained, num_classes=num_classes, **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        if not options:
            raise
        asked = " ".join(f"model.{name}={value}" for name, value in options.items())
        raise ModelError(
            f"model.backbone {backbone!r} cannot be built with {asked} ({first_sentence(error)}). Set them to null, or "
            "choose a backbone that has them (ResNets do)."
        ) from error


def _from_hub(backbone: str, config: Any, create: Callable[..., nn.Module]) -> nn.Module:
    if not config.has_weights:
        raise ModelError(
            f"model.backbone {backbone!r} has no published weights, but model.pretrained is true. {_ways_out()}, "
            "or choose a backbone that has some."
        )
    reason = _why_unreachable(config.hf_hub_id) if config.hf_hub_id else None
    if reason is not None:
        raise _unreachable(backbone, reason)
    try:
        return create(pretrained=True)
    except HUB_ERRORS as error:
        raise _unreachable(backbone, str(error)) from error


def _why_unreachable(hub_id: str) -> str | None:
    """Ask once whether the hub answers; None when it does or when the weights already lie in its local cache.

    The hub's own client tries for 45 seconds before it says that there is no network.
    """
    repo_id, _, revision = hub_id.partition("@")
    cached = (huggingface_hub.try_to_load_from_cache(repo_id, name, revision=revision or None) for name in HUB_FILES)
    if any(isinstance(path, str) for path in cached):
        return None
    url = huggingface_hub.hf_hub_url(repo_id, HUB_FILES[0], revision=revision or None)
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered; below 500 it is for timm to handle what it says about this file
        return f"{url} answers {error.code}" if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else None
    except OSError as error:
        # The hub's client brings its own certificates: only it can say whether the connection is safe.
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            return None
        return f"{url}: {getattr(error, 'reason', error)}"
    return None


def _unreachable(backbone: str, reason: str) -> ModelError:
    return ModelError(
        f"the pretrained weights of {backbone!r} cannot be fetched ({reason.splitlines()[0]}). {_ways_out()}."
    )


def _ways_out() -> str:
    return "Set model.weights=/path/to/file with the weights, or model.pretrained=false to start from random ones"
