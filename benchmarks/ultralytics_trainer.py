"""Running ultralytics' own trainer, with its code as it is, and timing its batches through its callbacks.

The library expects a home folder to write to, a network to ask and a terminal to draw on. Here its files lie in a
temporary folder, nothing is fetched, and what it prints goes to a file; its bar is on, as it is for its users.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.rounds import Stopwatch
from pillsnap.data.batches import DetectionBatch, DetectionSample

OnBatch = Callable[[float, DetectionBatch, float], None]
"""Hears of each batch the trainer trained on: its seconds, its samples for a trainer of ours, its mean loss."""
OnStart = Callable[[Any], None]
"""Hears of the trainer when it is set up and has not yet trained."""


class _Enough(Exception):  # noqa: N818  # the way out of a loop, no error
    """Ends the trainer's loop, which would otherwise validate and save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """What the trainer is told; everything else is its default."""

    model_size: str
    image_size: int
    batch_size: int
    lr: float
    weight_decay: float
    is_amp: bool
    device: torch.device
    threads: int

    def overrides(self, data_yaml: Path, folder: Path) -> dict[str, Any]:
        """Return the trainer's own keys."""
        return {
            "model": f"yolo11{self.model_size}.yaml",
            "data": str(data_yaml),
            "pretrained": False,
            "imgsz": self.image_size,
            "batch": self.batch_size,
            "nbs": self.batch_size,  # one optimizer step a batch; 64 would collect gradients over several
            "epochs": 10_000,  # ended from outside
            "warmup_epochs": 0,
            "close_mosaic": 0,
            "optimizer": "AdamW",
            "lr0": self.lr,
            "weight_decay": self.weight_decay,
            "amp": self.is_amp,
            "deterministic": False,
            "device": "cpu" if self.device.type == "cpu" else "0",
            "workers": 0,
            "cache": "ram",
            "val": False,
            "save": False,
            "plots": False,
            "project": str(folder),
            "name": "ultralytics",
        }


def run_trainer(
    options: TrainerOptions,
    stopwatch: Stopwatch,
    data_yaml: Path,
    folder: Path,
    *,
    on_start: OnStart,
    on_batch: OnBatch,
) -> dict[str, Any]:
    """Train until `on_batch` raises `stop_training`.

    What is timed of a batch lies between the trainer's callbacks `on_train_batch_start` and `on_train_batch_end`. The
    trainer fetches and augments before the first of them; ours trains after the second. Neither is in its time.

    Args:
        options: What to train, and how.
        stopwatch: Of the trainer's device.
        data_yaml: The data set.
        folder: Receives its files and `ultralytics.log`.
        on_start: Called once, when model, optimizer and EMA exist.
        on_batch: Called after each batch.

    Returns:
        What the trainer really used: optimizer, accumulation, EMA, memory format.
    """
    with (folder / "ultralytics.log").open("w", encoding="utf-8") as log, _tamed(log) as trainer_type:
        trainer = trainer_type(overrides=options.overrides(data_yaml, folder))
        torch.set_num_threads(options.threads)  # the trainer chose its own number
        observer = _Observer(stopwatch, on_batch)
        trainer.preprocess_batch = observer.seeing(trainer.preprocess_batch)
        trainer.add_callback("on_train_start", on_start)
        trainer.callbacks["on_train_batch_start"].append(observer.start)
        trainer.callbacks["on_train_batch_end"].insert(0, observer.stop)
        with contextlib.suppress(_Enough):
            trainer.train()
        return {
            "optimizer": type(trainer.optimizer).__name__,
            "accumulate": trainer.accumulate,
            "ema": bool(trainer.ema and trainer.ema.enabled),
            "channels_last": next(p for p in trainer.model.parameters() if p.ndim == 4).is_contiguous(
                memory_format=torch.channels_last
            ),
        }


def stop_training() -> None:
    """End the trainer that called; see `run_trainer`."""
    raise _Enough


class _Observer:
    """Times batches and keeps what was in them."""

    def __init__(self, stopwatch: Stopwatch, on_batch: OnBatch) -> None:
        self._stopwatch = stopwatch
        self._on_batch = on_batch
        self._started = 0.0
        self._batch: dict[str, Any] = {}

    def seeing(self, preprocess: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        """Return `preprocess`, remembering the uint8 images and boxes it is given (two references, no copy)."""

        def remember(batch: dict[str, Any]) -> dict[str, Any]:
            self._batch = dict(batch)
            return preprocess(batch)

        return remember

    def start(self, trainer: Any) -> None:
        self._started = self._stopwatch.read()

    def stop(self, trainer: Any) -> None:
        seconds = self._stopwatch.read() - self._started
        batch = _as_ours(self._batch)
        self._on_batch(seconds, batch, float(trainer.loss) / len(batch))  # the library's loss is a sum over images


def _as_ours(batch: dict[str, Any]) -> DetectionBatch:
    images, index, boxes = batch["img"], batch["batch_idx"], batch["bboxes"].numpy()
    samples = [
        DetectionSample(None, boxes[(index == number).numpy()], sample_id=number, row=number)
        for number in range(len(images))
    ]
    return DetectionBatch(images, samples)


@contextlib.contextmanager
def _tamed(log: Any) -> Iterator[Any]:
    """Import the trainer and keep it from the network, the home folder and the terminal; yield its class."""
    environment, save = dict(os.environ), torch.save
    try:
        os.environ |= {"YOLO_CONFIG_DIR": str(Path(log.name).parent), "YOLO_OFFLINE": "true"}
        os.environ |= {"YOLO_AUTOINSTALL": "false", "WANDB_MODE": "disabled"}
        from ultralytics import utils
        from ultralytics.data import utils as data_utils
        from ultralytics.engine import trainer as engine
        from ultralytics.models.yolo.detect import DetectionTrainer

        handlers, level = utils.LOGGER.handlers, utils.LOGGER.level
        with (
            mock.patch.object(data_utils, "check_font"),  # fetches a font for plots, which are off
            mock.patch.object(engine, "check_amp", return_value=True),  # compares two networks that it fetches
            mock.patch.object(utils, "VERBOSE", True),  # the switch of its bar; pillsnap imports it as quiet
            contextlib.redirect_stdout(log),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            utils.LOGGER.handlers, utils.LOGGER.level = [logging.StreamHandler(log)], logging.INFO
            try:
                yield DetectionTrainer
            finally:
                utils.LOGGER.handlers, utils.LOGGER.level = handlers, level
    finally:
        torch.save = save
        os.environ.clear()
        os.environ.update(environment)
