"""How fast a training step is beside what one would use instead: `python -m benchmarks.step --json step.json`.

In one process, turn by turn on the same batches, the ratio of images a second (ours over the other's) is taken round by
round; the median of the rounds is the figure. On a CPU a turn is one step; on a GPU it is a whole round of them, with
one wait for the device before and one after.

Classification, against a bare PyTorch loop with the same initial weights, memory format, precision and options:

- ours: `Task.next_samples` from a loader whose batches lie ready, and `Task.step`: uint8 to the device, normalising,
  forward, backward, clipping, AdamW, schedule; seeding, snapshots for the transaction, timers, the check for a finite
  loss, and a log line plus TensorBoard figures every `logging.step_log_interval` steps.
- the other: uint8 to the device, normalising, forward, backward, clipping, AdamW, schedule.

Detection, against ultralytics' own `DetectionTrainer`, the library's code unchanged:

- ours: the same as above, with YOLO's loss, its targets put together, and EMA.
- the other: everything between the trainer's callbacks `on_train_batch_start` and `on_train_batch_end`, which is
  `preprocess_batch`, forward with loss, running means of the losses, backward, unscaling, clipping at 10, AdamW, EMA,
  and the text and drawing of its bar (into a file). It fetches and augments its batches outside of that.

Both have the same weights, batches, AdamW rates and decay, clipping and, on a GPU, float16. One batch is one optimizer
step on both sides. On a GPU models and sizes are the production ones. On a CPU steps have as many samples, but models
and pictures are smaller (under 1 s a step): what a step costs beside its arithmetic then weighs more than on a GPU.

What exists when the steps begin is left out of garbage collection, for both sides, as a run does it. The cost of the
snapshots is the time of a step against the same step with its transactions switched off, in turns as well. The first
turn's losses are in the file: equal ones show that both do the same work.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import classification_step, detection_step
from benchmarks.machine import circumstances
from benchmarks.rounds import CLOCKS, Plan, Stopwatch
from pillsnap.allocator import keep_freed_memory
from pillsnap.errors import PillError
from pillsnap.jsonfile import save_json
from pillsnap.training.precision import select_device
from pillsnap.training.reproducibility import set_seed

TARGETS = {"classification": 0.97, "detection": 1.0}
INTERRUPTED = 130

Measure = Callable[[Plan, torch.device, Stopwatch, Path, Callable[[int], None]], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the JSON file; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    device = select_device()
    options = _parse(words, device)
    is_memory_kept = keep_freed_memory()
    torch.set_num_threads(options.threads)
    set_seed(0, deterministic=False)
    try:
        results = {name: _run(name, measure, options, device) for name, measure in _chosen(options).items()}
        if options.json is not None:
            about = {"threads": options.threads, "clock": options.clock, "freed_memory_kept": is_memory_kept}
            about |= circumstances("benchmarks.step", words)
            save_json(options.json, {**results, **about})
    except PillError as error:
        print(f"benchmarks.step: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks.step: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    print(_table(results))
    return 0


def _parse(words: Sequence[str], device: torch.device) -> argparse.Namespace:
    is_gpu = device.type == "cuda"
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description="Images a second of a training step beside a bare PyTorch loop and ultralytics' trainer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--json", type=Path, help="file for every figure, setting and round")
    add("--only", choices=sorted(TARGETS), help="measure one of the two")
    add("--rounds", type=_positive, default=5, help="rounds that count, after one that does not")
    add("--steps", type=_positive, default=5, help="steps of each contender a round")
    # Several threads wait for each other in every operation: another program on one of their cores slows all of them,
    # tenfold at times, and the ratio then tells of that program.
    add("--threads", type=_positive, default=1, help="threads of PyTorch on the CPU")
    add("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: this process alone, for a disturbed machine")
    add("--model", default="tf_efficientnetv2_s" if is_gpu else "tf_efficientnetv2_b0", help="classifier, of timm")
    add("--image-size", type=_positive, default=384 if is_gpu else 128, help="classifier's input, pixels")
    add("--batch-size", type=_positive, default=64, help="classifier's samples a step")
    add("--micro-batch", type=_positive, help="classifier's samples a slice; the whole step when left out")
    add("--num-classes", type=_positive, default=5000 if is_gpu else 1000, help="classifier's outputs")
    add("--detection-model", choices="nsmlx", default="m" if is_gpu else "n", help="size of YOLO11")
    add("--detection-image-size", type=_positive, default=640 if is_gpu else 480, help="detector's input, pixels")
    add("--detection-batch-size", type=_positive, default=16, help="detector's photographs a step")
    options = parser.parse_args(words)
    options.micro_batch = options.micro_batch or options.batch_size
    if options.batch_size % options.micro_batch:
        parser.error(f"--batch-size {options.batch_size} is no multiple of --micro-batch {options.micro_batch}")
    if options.clock == "cpu" and (is_gpu or options.threads > 1):
        parser.error("--clock cpu counts threads one after the other and no GPU: it needs --threads 1 and a CPU")
    if options.detection_image_size % 32:
        parser.error(f"--detection-image-size {options.detection_image_size} is no multiple of 32")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.resolve().parent}")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _chosen(options: argparse.Namespace) -> dict[str, Measure]:
    classification = classification_step.Settings(
        backbone=options.model,
        image_size=options.image_size,
        batch_size=options.batch_size,
        micro_batch=options.micro_batch,
        num_classes=options.num_classes,
    )
    detection = detection_step.Settings(
        model_size=options.detection_model,
        image_size=options.detection_image_size,
        batch_size=options.detection_batch_size,
    )
    measures: dict[str, Measure] = {
        "classification": lambda *rest: classification_step.measure(classification, *rest),
        "detection": lambda *rest: detection_step.measure(detection, *rest),
    }
    return {name: measure for name, measure in measures.items() if options.only in (None, name)}


def _run(name: str, measure: Measure, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    # On a GPU a wait after every step would take away what steps gain by not waiting.
    turn_steps = 1 if device.type == "cpu" else options.steps
    plan = Plan(options.rounds, options.steps, turn_steps)

    def on_round(number: int) -> None:
        what = "warm-up" if number < 1 else f"round {number} of {options.rounds}"
        print(f"{name}: {what}", file=sys.stderr, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="pillsnap-benchmark-") as folder,
        Path(folder, "stdout.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),  # the lines of a run's log
    ):
        try:
            return measure(plan, device, Stopwatch(device, options.clock), Path(folder), on_round)
        finally:
            gc.unfreeze()


def _table(results: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':16}{'ours':>10}{'other':>10}{'ratio':>9}{'wanted':>9}{'rounds':>17}{'snapshots':>11}"]
    for name, result in results.items():
        images = result["images_per_round"] * len(result["ratios"])
        ours, other = (images / sum(result["seconds"][side]) for side in ("ours", "peer"))
        spread = f"{min(result['ratios']):.3f}..{max(result['ratios']):.3f}"
        lines.append(
            f"{name:16}{ours:>8.1f}/s{other:>8.1f}/s{result['ratio_median']:>9.3f}{TARGETS[name]:>9.2f}{spread:>17}"
            f"{result['snapshot_cost_percent']:>+10.2f}%"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
