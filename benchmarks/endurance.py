"""Whether a long run grows: `python -m benchmarks.endurance --steps 10000 --json endurance.json`.

A tiny classifier takes many optimizer steps through the run's own loop, task, loader (no workers), log file,
TensorBoard session, moving average, validation and checkpoints. Every 100 steps the resident memory and the open files
of the process are read; the slope is a least-squares line through the samples after the first 1,000 steps, in which
allocators and caches fill up.

Ends with exit code 1 when memory grows by 1 MB per 1,000 steps or more, or when files stay open. Left out: loader
workers, GPUs and the detector, whose library holds caches of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.machine import circumstances
from benchmarks.tasks import benchmark_config, build_task, run_context
from benchmarks.toy_pills import ToyPills
from pillsnap.config.loading import for_task
from pillsnap.data.batches import safe_collate
from pillsnap.data.loaders import Loader
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.samplers import OrderedSampler, StepSampler
from pillsnap.errors import PillError
from pillsnap.jsonfile import save_json
from pillsnap.training.checkpoint import CheckpointStore
from pillsnap.training.context import RunContext
from pillsnap.training.loop import LoopState, Turns, train
from pillsnap.training.reproducibility import set_seed
from pillsnap.training.schedule import CLASSIFICATION
from pillsnap.training.task import Task, ValidationResult
from pillsnap.training.telemetry import TBWriter, build_logger

MAX_MB_PER_1000_STEPS = 1.0
SAMPLE_EVERY_STEPS = 100
WARMUP_STEPS = 1000
STEPS_PER_EPOCH = 200
BATCH_SIZE = 4
SIZE_PX = 32  # the smallest that the configuration takes
NUM_CLASSES = 4
GREW, INTERRUPTED = 1, 130


@dataclass
class Usage:
    """What the process held, sample by sample."""

    steps: list[int] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    """Megabytes, 1e6 bytes."""
    open_files: list[int] = field(default_factory=list)

    def sample(self, step: int) -> None:
        """Read both figures of this process."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self.steps.append(step)
        self.resident_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.open_files.append(len(os.listdir("/proc/self/fd")) - 1)  # noqa: PTH208  # less the listing's own

    def growth(self, warmup_steps: int) -> dict[str, float | bool]:
        """Return the growth of both per 1,000 steps and whether it is too much, from the samples after the warm-up."""
        is_kept = np.array(self.steps) >= warmup_steps
        thousands = np.array(self.steps)[is_kept] / 1000
        resident_mb, open_files = (np.array(column)[is_kept] for column in (self.resident_mb, self.open_files))
        mb_slope, files_slope = (float(np.polyfit(thousands, column, 1)[0]) for column in (resident_mb, open_files))
        # The fewest, because another thread may have a file open just while it is counted; one left open stays.
        quarter = max(len(open_files) // 4, 1)
        is_open_left = bool(open_files[-quarter:].min() > open_files[:quarter].min())
        return {
            "mb_per_1000_steps": mb_slope,
            "open_files_per_1000_steps": files_slope,
            "grew": mb_slope >= MAX_MB_PER_1000_STEPS or is_open_left,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Step, print the slopes, write the JSON file; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(words)
    torch.set_num_threads(1)  # the operations are too small to divide
    try:
        result = measure(options.steps, options.warmup)
        if options.json is not None:
            save_json(options.json, {**result, **circumstances("benchmarks.endurance", words)})
    except PillError as error:
        print(f"benchmarks.endurance: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks.endurance: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    print(
        f"{options.steps} steps in {result['seconds']:.1f} s: memory {result['mb_per_1000_steps']:+.3f} MB per 1,000 "
        f"steps (wanted: below {MAX_MB_PER_1000_STEPS:g}), open files {result['open_files_per_1000_steps']:+.3f} per "
        f"1,000 steps (from {result['open_files'][0]} to {result['open_files'][-1]})"
    )
    return GREW if result["grew"] else 0


def measure(num_steps: int, warmup_steps: int = WARMUP_STEPS) -> dict[str, Any]:
    """Take `num_steps` optimizer steps and return both slopes, whether anything grew, and every sample.

    Args:
        num_steps: Optimizer steps.
        warmup_steps: First steps left out of the slopes; three samples must remain.
    """
    usage = Usage()
    set_seed(0, deterministic=False)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="pillsnap-endurance-") as folder,
        Path(folder, "stdout.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),  # the lines of a run's log
    ):
        _train(Path(folder), num_steps, usage)
    return {
        **usage.growth(warmup_steps),
        "seconds": time.perf_counter() - began,
        "warmup_steps": warmup_steps,
        **asdict(usage),
    }


def _train(folder: Path, num_steps: int, usage: Usage) -> None:
    cfg = _config(folder, num_steps)
    store = CheckpointStore(folder)
    logger = build_logger(folder, "pillsnap.benchmark.endurance")
    loop = LoopState()
    with TBWriter(folder) as tb:
        context = run_context(folder, tb, logger)
        task = _task(cfg, context)

        def on_step(stepped: Task) -> None:
            if loop.step % SAMPLE_EVERY_STEPS == 0 and loop.step <= num_steps:
                usage.sample(loop.step)

        def on_epoch(judged: Task, result: ValidationResult) -> None:
            best = [judged.name] if result.is_best else []
            store.save({judged.name: judged.state()}, best=best, loop_step=loop.step)

        train([task], Turns("sequential", [1, 1]), loop, context.stop, on_epoch=on_epoch, on_step=on_step)
    for handler in logger.handlers:
        handler.close()


def _task(cfg: DictConfig, context: RunContext) -> Task:
    mean = (0.5, 0.5, 0.5)
    spec = ClassifierInput(size_px=SIZE_PX, mean=mean, std=mean, frame_fit="center")
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8, NUM_CLASSES),
    )
    return build_task(
        cfg,
        CLASSIFICATION,
        model,
        context,
        train_loader=_loader(cfg, ToyPills(STEPS_PER_EPOCH * BATCH_SIZE, NUM_CLASSES, spec, seed=0)),
        val_loader=_loader(cfg, ToyPills(8 * BATCH_SIZE, NUM_CLASSES, spec, seed=1), is_training=False),
        spec=spec,
        device=torch.device("cpu"),
    )


def _loader(cfg: DictConfig, pills: ToyPills, *, is_training: bool = True) -> Loader:
    train_values = for_task(cfg, CLASSIFICATION).train
    sampler = (
        StepSampler(
            len(pills),
            batch_size=BATCH_SIZE,
            grad_accum_steps=1,
            drop_last=True,
            seed=train_values.seed,
            task=CLASSIFICATION,
        )
        if is_training
        else OrderedSampler(len(pills), BATCH_SIZE)
    )
    return DataLoader(pills, batch_sampler=sampler, collate_fn=safe_collate, generator=torch.Generator().manual_seed(0))


def _config(folder: Path, num_steps: int) -> DictConfig:
    epochs = -(-num_steps // STEPS_PER_EPOCH)
    return benchmark_config(
        folder,
        "train.tasks=[classification]",
        f"model.num_classes={NUM_CLASSES}",
        f"model.image_size={SIZE_PX}",
        f"train.classification.epochs={epochs}",
        f"train.classification.batch_size={BATCH_SIZE}",
        "train.classification.amp=false",
        "train.classification.auto_batch_tune=false",
        "train.ema.enabled=true",
        f"train.early_stopping.patience={epochs}",  # every step is taken
    )


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance",
        description="Growth of memory and open files over many optimizer steps; exit code 1 when there is any.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=10_000, help="optimizer steps")
    parser.add_argument("--warmup", type=int, default=WARMUP_STEPS, help="first steps left out of the slopes")
    parser.add_argument("--json", type=Path, help="file for the figures and every sample")
    options = parser.parse_args(words)
    if options.warmup < 0 or options.steps < options.warmup + 3 * SAMPLE_EVERY_STEPS:
        parser.error(f"--steps {options.steps} leaves fewer than three samples after --warmup {options.warmup}")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.resolve().parent}")
    return options


if __name__ == "__main__":
    sys.exit(main())
