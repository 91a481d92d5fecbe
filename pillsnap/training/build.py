"""From a configuration to the tasks of a run: models, optimizers, schedules, averages."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pillsnap.config.loading import for_task
from pillsnap.data.loaders import TwoStageLoaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.twostage import class_counts
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model, classifier_input
from pillsnap.models.detector_yolo11m import build_criterion_detection, build_yolo_model
from pillsnap.training.average import WeightAverage
from pillsnap.training.classification import ClassificationTask, classification_parts
from pillsnap.training.compilation import try_torch_compile
from pillsnap.training.context import RunContext
from pillsnap.training.detection import DetectionTask, detection_parts
from pillsnap.training.losses import build_criterion_classification, compute_class_weights
from pillsnap.training.optim import build_optimizer, build_scheduler
from pillsnap.training.precision import classification_precision, detection_precision
from pillsnap.training.schedule import CLASSIFICATION, DETECTION
from pillsnap.training.task import Task


def build_classifier(cfg: DictConfig, num_classes: int) -> tuple[nn.Module, ClassifierInput]:
    """Return the classifier and the input it wants."""
    model = build_classification_model(
        cfg.model.backbone,
        num_classes,
        cfg.train.classification.channels_last,
        pretrained=cfg.model.pretrained,
        weights=cfg.model.weights,
        global_pool=cfg.model.global_pool,
        output_stride=cfg.model.output_stride,
    )
    return model, classifier_input(model, cfg.model.image_size, cfg.data.classification.frame_fit)


def build_detector(cfg: DictConfig) -> nn.Module:
    """Return the detector, of one class: pill."""
    model = build_yolo_model(
        cfg.detection.model_size,
        1,
        lazy_load=False,
        pretrained=cfg.detection.pretrained,
        weights=cfg.detection.weights,
    )
    assert model is not None
    return model


def build_tasks(
    cfg: DictConfig, models: dict[str, nn.Module], loaders: TwoStageLoaders, context: RunContext, device: torch.device
) -> list[Task]:
    """Return the tasks of the run, classification first.

    Args:
        cfg: The resolved configuration.
        models: The model of each task to train, on the CPU.
        loaders: Loaders of the same tasks.
        context: Shared by the tasks.
        device: Where to train.
    """
    tasks: list[Task] = []
    if CLASSIFICATION in models:
        tasks.append(_classification_task(cfg, models[CLASSIFICATION], loaders, context, device))
    if DETECTION in models:
        tasks.append(_detection_task(cfg, models[DETECTION], loaders, context, device))
    return tasks


def _classification_task(
    cfg: DictConfig, model: nn.Module, loaders: TwoStageLoaders, context: RunContext, device: torch.device
) -> ClassificationTask:
    cfg = for_task(cfg, CLASSIFICATION)
    meta = loaders.meta
    spec = meta.classifier_input
    assert loaders.cls_train is not None
    assert spec is not None
    model.to(device)
    class_weights = None
    if cfg.loss.use_class_weights:
        counts = class_counts(meta.train_items, len(meta.class_map))
        class_weights = compute_class_weights(counts, cfg.loss.class_weights)
    criterion = build_criterion_classification(cfg, class_weights).to(device)
    precision = classification_precision(cfg, device)
    optimizer, scheduler, ema = _optimized(cfg, model, len(loaders.cls_train))
    parts = classification_parts(
        model,
        optimizer,
        scheduler,
        precision.build_scaler(),
        criterion=criterion,
        precision=precision,
        spec=spec,
        is_channels_last=cfg.train.classification.channels_last,
    )
    parts.ema = ema
    return ClassificationTask(
        cfg,
        parts,
        (loaders.cls_train, loaders.cls_val),
        context,
        criterion=criterion,
        identity={
            "model.backbone": cfg.model.backbone,
            "num_classes": len(meta.class_map),
            "class map": meta.class_map.digest,
            "model.image_size": cfg.model.image_size,
            "resizer": spec.resizer,
            # They decide which samples an epoch has, in which order: a position in it would mean others.
            "data.classification.sampling": cfg.data.classification.sampling,
            "data.classification.combo_share": cfg.data.classification.combo_share,
            "data.classification.combo_crops": cfg.data.classification.combo_crops,
            "model.global_pool": cfg.model.global_pool,
            "model.output_stride": cfg.model.output_stride,
            **_shared_identity(cfg, loaders),
        },
        extras={"classifier_input": spec.to_dict()},
    )


def _detection_task(
    cfg: DictConfig, model: nn.Module, loaders: TwoStageLoaders, context: RunContext, device: torch.device
) -> DetectionTask:
    cfg = for_task(cfg, DETECTION)
    assert loaders.det_train is not None
    model.to(device)
    precision = detection_precision(cfg, device)
    optimizer, scheduler, ema = _optimized(cfg, model, len(loaders.det_train))
    criterion = build_criterion_detection()
    parts = detection_parts(
        model, optimizer, scheduler, precision.build_scaler(), criterion=criterion, precision=precision
    )
    parts.ema = ema
    identity = {
        "detection.model_size": cfg.detection.model_size,
        "detection.image_size": cfg.detection.image_size,
        **_shared_identity(cfg, loaders),
    }
    extras = {"image_size": cfg.detection.image_size}
    return DetectionTask(cfg, parts, (loaders.det_train, loaders.det_val), context, identity=identity, extras=extras)


def _shared_identity(cfg: DictConfig, loaders: TwoStageLoaders) -> dict[str, Any]:
    # With another seed or split, a position inside an epoch means other samples, and test pictures may have trained.
    return {
        "train.seed": cfg.train.seed,
        "data split": loaders.meta.data.digest(),
        "dataloader.drop_last": cfg.dataloader.drop_last,
    }


def _optimized(
    cfg: DictConfig, model: nn.Module, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, LRScheduler, WeightAverage | None]:
    optimizer = build_optimizer(cfg, model.parameters())
    scheduler = build_scheduler(cfg, optimizer, steps_per_epoch)
    ema = None
    if cfg.train.ema.enabled:
        ema = WeightAverage(model, cfg.train.ema.decay)
    try_torch_compile(model, cfg.optimization.torch_compile)
    return optimizer, scheduler, ema
