"""The detector's step against ultralytics' own trainer, on the very batches that the trainer fetches."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from benchmarks.photographs import draw_yolo_dataset
from benchmarks.rounds import Plan, RoundKeeper, Stopwatch, median
from benchmarks.tasks import SteppedTask, benchmark_config, build_task, ready_loader, run_context
from benchmarks.ultralytics_trainer import TrainerOptions, run_trainer, stop_training
from pillsnap.config.loading import for_task
from pillsnap.data.batches import DetectionBatch
from pillsnap.training.build import build_detector
from pillsnap.training.context import RunContext
from pillsnap.training.schedule import DETECTION
from pillsnap.training.telemetry import TBWriter, build_logger

ULTRALYTICS_GRAD_CLIP = 10.0  # fixed in its trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    model_size: str
    """n, s, m, l or x."""
    image_size: int
    """Pixels, square, a multiple of 32."""
    batch_size: int
    """Photographs of an optimizer step; one micro-batch, as in the trainer."""


class _Contest:
    """Takes over after each of the trainer's batches: our turns on the same batches, and the rounds."""

    def __init__(
        self,
        cfg: DictConfig,
        context: RunContext,
        device: torch.device,
        stopwatch: Stopwatch,
        keeper: RoundKeeper,
    ) -> None:
        self._cfg, self._context, self._device = cfg, context, device
        self._stopwatch, self._keeper, self._plan = stopwatch, keeper, keeper.plan
        self._tasks: dict[str, SteppedTask] = {}
        self._batches: list[DetectionBatch] = []
        self._peer_losses: list[float] = []
        self._peer_seconds = 0.0
        self._num_turns = 0
        self.first_loss: dict[str, float | None] = {}

    def begin(self, trainer: Any) -> None:
        """Build our two tasks with the trainer's initial weights."""
        for name, has_snapshots in (("ours", True), ("without_snapshots", False)):
            model = build_detector(self._cfg)
            model.load_state_dict({key: value.cpu() for key, value in trainer.model.state_dict().items()})
            loader = ready_loader(self._cfg, DETECTION, self._plan.total_steps + 1)
            task = build_task(self._cfg, DETECTION, model, self._context, train_loader=loader, device=self._device)
            self._tasks[name] = SteppedTask(task, self._stopwatch, has_snapshots=has_snapshots)
        gc.collect()
        gc.freeze()  # as a run does before its first step; `step.py` undoes it

    def after_batch(self, seconds: float, batch: DetectionBatch, loss: float) -> None:
        """Note the trainer's time; after its turn, take ours."""
        self._peer_seconds += seconds
        self._peer_losses.append(loss)
        self._batches.append(batch)
        if len(self._batches) < self._plan.turn_steps:
            return
        order = ["ours", "without_snapshots"] if self._num_turns % 2 == 0 else ["without_snapshots", "ours"]
        times = {name: self._tasks[name].turn(self._batches) for name in order}
        self._keeper.record({"peer": self._peer_seconds, **times})
        if not self.first_loss:
            self.first_loss = {"ours": self._tasks["ours"].first_loss, "peer": statistics.mean(self._peer_losses)}
        self._peer_seconds, self._batches = 0.0, []
        self._num_turns += 1
        if self._keeper.is_done:
            stop_training()


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
        folder: Receives pictures, logs and TensorBoard events.
        on_round: Hears of finished rounds.
    """
    cfg = _config(settings, folder)
    train = for_task(cfg, DETECTION).train
    options = TrainerOptions(
        model_size=settings.model_size,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        lr=train.lr,
        weight_decay=train.weight_decay,
        is_amp=train.detection.amp and device.type == "cuda",
        device=device,
        threads=torch.get_num_threads(),
    )
    # An epoch of the trainer is a round, so that what it does between epochs never falls into one.
    num_pictures = plan.steps * settings.batch_size
    data_yaml = draw_yolo_dataset(folder / "pictures", num_pictures=num_pictures, size_px=settings.image_size)
    logger = build_logger(folder, "pillsnap.benchmark.detection")
    keeper = RoundKeeper(plan, on_round)
    with TBWriter(folder) as tb:
        contest = _Contest(cfg, run_context(folder, tb, logger), device, stopwatch, keeper)
        used = run_trainer(options, stopwatch, data_yaml, folder, on_start=contest.begin, on_batch=contest.after_batch)
    times = keeper.times
    return {
        "ratio_median": median(times.ratios("ours", "peer")),
        "snapshot_cost_percent": median(times.cost_percent("ours", "without_snapshots")),
        "ratio_total": times.total_ratio("ours", "peer"),
        "ratios": times.ratios("ours", "peer"),
        "snapshot_costs_percent": times.cost_percent("ours", "without_snapshots"),
        "seconds": times.seconds,
        "images_per_round": num_pictures,
        "first_loss": contest.first_loss,
        "settings": {**asdict(settings), **asdict(plan), "amp": options.is_amp, "ema": True, "grad_clip": 10.0},
        "peer": used,
    }


def _config(settings: Settings, folder: Path) -> DictConfig:
    return benchmark_config(
        folder,
        "train.tasks=[detection]",
        "model.num_classes=2",  # of the classifier, which is not built
        f"detection.model_size={settings.model_size}",
        f"detection.image_size={settings.image_size}",
        f"train.detection.batch_size={settings.batch_size}",
        f"train.grad_clip={ULTRALYTICS_GRAD_CLIP}",
        "train.ema.enabled=true",  # the trainer always averages
    )
