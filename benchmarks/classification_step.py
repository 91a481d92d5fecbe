"""The classifier's step against a bare PyTorch loop with the same model, data and options."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from benchmarks.rounds import Plan, RoundKeeper, Stopwatch, median
from benchmarks.tasks import SteppedTask, benchmark_config, build_task, ready_loader, run_context
from pillsnap.config.loading import for_task
from pillsnap.data.batches import ClassificationBatch
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.training.build import build_classifier
from pillsnap.training.classification import ClassificationTask
from pillsnap.training.optim import build_optimizer, build_scheduler
from pillsnap.training.precision import classification_precision
from pillsnap.training.schedule import CLASSIFICATION
from pillsnap.training.telemetry import TBWriter, build_logger

NUM_READY_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    backbone: str
    """timm model name."""
    image_size: int
    """Pixels, square."""
    batch_size: int
    """Samples of an optimizer step."""
    micro_batch: int
    """Samples of a slice; divides `batch_size`."""
    num_classes: int


class BareLoop:
    """What one would write by hand: normalise, forward, backward, clip, AdamW, schedule; nothing logged or kept."""

    def __init__(
        self,
        cfg: DictConfig,
        model: nn.Module,
        task: ClassificationTask,
        spec: ClassifierInput,
        stopwatch: Stopwatch,
    ) -> None:
        """Train `model` with the options of `task`."""
        self._stopwatch = stopwatch
        train = for_task(cfg, CLASSIFICATION).train
        self._device = task.parts.precision.device
        self._precision = classification_precision(cfg, self._device)
        self._model = model.to(self._device).train()
        self._criterion = task.criterion
        self._optimizer = build_optimizer(for_task(cfg, CLASSIFICATION), model.parameters())
        self._scheduler = build_scheduler(for_task(cfg, CLASSIFICATION), self._optimizer, task.steps_per_epoch)
        self._layout = torch.channels_last if train.classification.channels_last else torch.contiguous_format
        self._mean = torch.tensor(spec.mean, device=self._device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(spec.std, device=self._device).view(1, 3, 1, 1) * 255
        self._micro_batch, self._accumulate, self._grad_clip = train.batch_size, train.grad_accum_steps, train.grad_clip
        self.first_loss: float | None = None

    def turn(self, batches: Sequence[ClassificationBatch]) -> float:
        """Train on `batches` and return the seconds it took."""
        losses: list[torch.Tensor] = []

        def step(batch: ClassificationBatch) -> None:
            losses.append(self._step(batch))

        seconds = self._stopwatch.timed([partial(step, batch) for batch in batches])
        if self.first_loss is None:
            self.first_loss = float(torch.stack(losses).mean())
        return seconds

    def _step(self, batch: ClassificationBatch) -> torch.Tensor:
        total = torch.zeros((), device=self._device)
        for start in range(0, len(batch), self._micro_batch):
            images = batch.images_BCHW[start : start + self._micro_batch]
            labels = batch.labels_B[start : start + self._micro_batch]
            with torch.autocast(self._device.type, dtype=self._precision.dtype, enabled=self._precision.is_amp):
                inputs = images.to(self._device, non_blocking=True).float().sub(self._mean).div(self._std)
                logits = self._model(inputs.to(memory_format=self._layout))
                loss = self._criterion(logits, labels.to(self._device, non_blocking=True)) / self._accumulate
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._grad_clip)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total


def measure(
    settings: Settings,
    plan: Plan,
    device: torch.device,
    stopwatch: Stopwatch,
    folder: Path,
    on_round: Callable[[int], None],
) -> dict[str, Any]:
    """Return ratio, snapshot cost and every round's seconds.

    Args:
        settings: Model and sizes.
        plan: Rounds and steps.
        device: Where to train.
        stopwatch: Of that device.
        folder: Receives logs and TensorBoard events.
        on_round: Hears of finished rounds.
    """
    cfg = _config(settings, device, folder)
    torch.manual_seed(0)
    model, spec = build_classifier(cfg, settings.num_classes)
    logger = build_logger(folder, "pillsnap.benchmark.classification")
    with TBWriter(folder) as tb:
        context = run_context(folder, tb, logger)

        def task() -> ClassificationTask:
            steps = plan.total_steps + 1  # never at the end of an epoch, which has a log line of its own
            loader = ready_loader(cfg, CLASSIFICATION, steps)
            copied = copy.deepcopy(model)
            built = build_task(cfg, CLASSIFICATION, copied, context, train_loader=loader, spec=spec, device=device)
            assert isinstance(built, ClassificationTask)
            return built

        ours, bare_task = SteppedTask(task(), stopwatch), task()
        peer = BareLoop(cfg, copy.deepcopy(model), bare_task, spec, stopwatch)
        unprotected = SteppedTask(bare_task, stopwatch, has_snapshots=False)
        data = _batches(settings, pin=device.type == "cuda")
        keeper = RoundKeeper(plan, on_round)
        gc.collect()
        gc.freeze()  # as a run does before its first step; `step.py` undoes it
        step = 0
        while not keeper.is_done:
            batches = [data[(step + index) % len(data)] for index in range(plan.turn_steps)]
            keeper.take(
                {
                    "ours": partial(ours.turn, batches),
                    "peer": partial(peer.turn, batches),
                    "without_snapshots": partial(unprotected.turn, batches),
                }
            )
            step += plan.turn_steps
    times = keeper.times
    return {
        "ratio_median": median(times.ratios("ours", "peer")),
        "snapshot_cost_percent": median(times.cost_percent("ours", "without_snapshots")),
        "ratio_total": times.total_ratio("ours", "peer"),
        "ratios": times.ratios("ours", "peer"),
        "snapshot_costs_percent": times.cost_percent("ours", "without_snapshots"),
        "seconds": times.seconds,
        "images_per_round": plan.steps * settings.batch_size,
        "first_loss": {"ours": ours.first_loss, "peer": peer.first_loss},
        "settings": {**asdict(settings), **asdict(plan), **_recipe(cfg)},
    }


def _config(settings: Settings, device: torch.device, folder: Path) -> DictConfig:
    return benchmark_config(
        folder,
        "train.tasks=[classification]",
        f"model.backbone={settings.backbone}",
        f"model.image_size={settings.image_size}",
        f"model.num_classes={settings.num_classes}",
        f"train.classification.batch_size={settings.micro_batch}",
        f"train.classification.grad_accum_steps={settings.batch_size // settings.micro_batch}",
        # 16 bit is slower than 32 on most CPUs; on a GPU bfloat16, which needs no gradient scaler on either side.
        f"train.classification.amp={str(device.type == 'cuda').lower()}",
        "train.classification.amp_dtype=bf16",
    )


def _recipe(cfg: DictConfig) -> dict[str, Any]:
    train = for_task(cfg, CLASSIFICATION).train
    return {
        "amp": train.classification.amp,
        "channels_last": train.classification.channels_last,
        "grad_clip": train.grad_clip,
        "ema": train.ema.enabled,
        "class_weights": cfg.loss.use_class_weights,
        "step_log_interval": cfg.logging.step_log_interval,
    }


def _batches(settings: Settings, *, pin: bool) -> list[ClassificationBatch]:
    generator = torch.Generator().manual_seed(1)
    shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
    ids = list(range(settings.batch_size))
    batches = []
    for _ in range(NUM_READY_BATCHES):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, settings.num_classes, (settings.batch_size,), generator=generator)
        batch = ClassificationBatch(images, labels, ids)
        batches.append(batch.pin_memory() if pin else batch)
    return batches
