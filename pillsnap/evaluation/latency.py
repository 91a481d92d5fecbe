"""How long one answer takes: batch 1, 20 runs to warm up, 200 measured, p50, p95 and p99 (MEA-1).

Measured are whole answers, from a picture file to the drugs' codes, and the bare models on a prepared input in host
memory, answer in host memory or at least computed. Pictures are of the val split and differ from run to run, because
how long decoding and a combination take depends on the picture.
"""

from __future__ import annotations

import gc
import os
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch

from pillsnap.atomicfile import sha256_of
from pillsnap.config.loading import load_experiment_config
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.preprocess import frame_view, letterbox
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.data.selection_file import CSV_NAME
from pillsnap.errors import BrokenImageError, DataError, PillError
from pillsnap.inference.checkpoints import CLASSIFIER_FILE, DETECTOR_FILE
from pillsnap.inference.pipeline import Pipeline
from pillsnap.jsonfile import read_json, save_json
from pillsnap.source_version import get_git_sha

NUM_WARMUP = 20
NUM_RUNS = 200
NUM_PICTURES = 20
RESULTS_NAME = Path("reports", "latency.json")

Timing = dict[str, float | int]


def measure_latency(
    exp_dir: Path, *, device: torch.device | None = None, num_warmup: int = NUM_WARMUP, num_runs: int = NUM_RUNS
) -> dict[str, Any]:
    """Measure the best models of an experiment and write `reports/latency.json`.

    Args:
        exp_dir: The experiment; pictures come from its val split.
        device: None takes CUDA where there is one.
        num_warmup: Runs that do not count.
        num_runs: Runs that do.

    Returns:
        What the file holds: `single`, `combo`, `detector`, `classifier` as `timing` returns them (null where there is
        no detector), `device`, `threads`, `load_average` (processes that wanted a core in the minute before: above the
        number of cores, the figures are too high), `pictures`, `time`, `command`, `git_sha`, `checkpoints` (SHA-256 by
        task).

    Raises:
        CheckpointError: There is no classifier, or a checkpoint cannot be used.
        DataError: No picture of the val split can be read.
        ConfigError: `exp_dir` is no experiment.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    load = os.getloadavg()[0]
    root = Path(load_experiment_config(exp_dir).data.root)
    pipeline = Pipeline.from_experiment(exp_dir, device)
    found: dict[str, list[Path]] = {kind: _readable(exp_dir, root, kind) for kind in (SINGLE, COMBO)}
    pictures = {kind: paths or found[COMBO] or found[SINGLE] for kind, paths in found.items()}
    if not pictures[SINGLE]:
        raise DataError(
            f"{exp_dir / CSV_NAME} names no picture of the val split that can be read below {root}, at least one is "
            "needed to measure how long an answer takes. Put the data set back where the experiment found it."
        )
    calls = _calls(pipeline, pictures, has_detector=(exp_dir / DETECTOR_FILE).is_file())
    results: dict[str, Any] = {
        name: None if call is None else timing(call, device, num_warmup=num_warmup, num_runs=num_runs)
        for name, call in calls.items()
    }
    results |= {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average": load,
        "pictures": {kind: len(paths) for kind, paths in pictures.items()},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["pillsnap", "latency", str(exp_dir)]),
        "git_sha": get_git_sha(),
        "checkpoints": _checkpoints(exp_dir),
    }
    (exp_dir / RESULTS_NAME).parent.mkdir(exist_ok=True)
    save_json(exp_dir / RESULTS_NAME, results)
    return results


def has_latency(exp_dir: Path) -> bool:
    """Tell whether `reports/latency.json` is there and is about the best models the experiment holds now."""
    try:
        timed = read_json(exp_dir / RESULTS_NAME).get("checkpoints")
    except PillError:
        return False
    return timed == _checkpoints(exp_dir)


def _checkpoints(exp_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each best model that is there, by task."""
    files = {"classification": exp_dir / CLASSIFIER_FILE, "detection": exp_dir / DETECTOR_FILE}
    return {task: sha256_of(path) for task, path in files.items() if path.is_file()}


def timing(
    call: Callable[[int], object],
    device: torch.device,
    *,
    num_warmup: int = NUM_WARMUP,
    num_runs: int = NUM_RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time a function run by run.

    Args:
        call: Gets the number of the run, from 0, warm-up included.
        device: What it computes on; on a GPU a run ends when the GPU is done.
        num_warmup: Runs that do not count.
        num_runs: Runs that do, at least 1.
        clock: Seconds.

    Returns:
        p50_ms, p95_ms, p99_ms (linear between neighbours), mean_ms, n, warmup.
    """
    elapsed_ms = np.zeros(num_warmup + num_runs)
    gc.collect()  # of what was there before, not in one of the runs
    for run in range(num_warmup + num_runs):
        start = clock()
        call(run)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed_ms[run] = 1000 * (clock() - start)
    measured = elapsed_ms[num_warmup:]
    p50, p95, p99 = np.percentile(measured, (50, 95, 99))
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "mean_ms": float(measured.mean()),
        "n": num_runs,
        "warmup": num_warmup,
    }


def _calls(
    pipeline: Pipeline, pictures: dict[str, list[Path]], *, has_detector: bool
) -> dict[str, Callable[[int], object] | None]:
    """Return what is measured; None for what needs a detector where there is none."""
    singles, combos = pictures[SINGLE], pictures[COMBO]
    spec = pipeline.classifier.spec
    views = [frame_view(pixels, spec)[None] for pixels in map(decode_rgb, singles)]

    def single(run: int) -> object:
        return pipeline.predict(singles[run % len(singles)], "single")

    def combo(run: int) -> object:
        return pipeline.predict(combos[run % len(combos)], "combo")

    def classifier(run: int) -> object:
        return pipeline.classifier.probabilities(views[run % len(views)])

    if not has_detector:
        return {"single": single, "combo": None, "detector": None, "classifier": classifier}
    engine = pipeline.load_detector()
    inputs = [letterbox(pixels, engine.size_px)[0][None] for pixels in map(decode_rgb, combos)]

    def detector(run: int) -> object:
        return engine.predictions(inputs[run % len(inputs)])

    return {"single": single, "combo": combo, "detector": detector, "classifier": classifier}


def _readable(exp_dir: Path, root: Path, kind: str) -> list[Path]:
    """Return a few pictures of the val split, spread over it, that can be decoded."""
    path = exp_dir / CSV_NAME
    if not path.is_file():
        return []
    types = {name: pa.string() for name in ("image_path", "image_type", "split")}
    options = pa.csv.ConvertOptions(column_types=types, include_columns=list(types))
    table = pa.csv.read_csv(str(path), convert_options=options)
    rows = [row["image_path"] for row in table.to_pylist() if (row["image_type"], row["split"]) == (kind, "val")]
    chosen = np.linspace(0, len(rows) - 1, min(NUM_PICTURES, len(rows))).round().astype(int)
    return [root / rows[place] for place in chosen if _decoded(root / rows[place]) is not None]


def _decoded(path: Path) -> RgbImage | None:
    try:
        return decode_rgb(path)
    except BrokenImageError:
        return None
