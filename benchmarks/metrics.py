"""What judging a split costs at full size: `python -m benchmarks.metrics --json metrics.json`.

60,000 pills of 5,000 classes go through what judges an experiment's classifier: streaming its answers with all logits
kept, figures and intervals, the table of drugs, confusions, ROC and PR curves of all classes, figures at another
temperature, and the table of predictions. The classifier itself is stood in for by ready-made logits, so the seconds
are those of the metrics. Wanted: at most 2 GiB of resident memory for the whole process, and 60 seconds on two cores.

A small split is judged too, and its figures are put beside scikit-learn's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score
from torch import nn

from benchmarks.index_records import synthesise
from benchmarks.machine import circumstances
from pillsnap.data.batches import ClassificationBatch
from pillsnap.data.items import NO_BOX, ClassificationItems
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.records import Records
from pillsnap.errors import PillError
from pillsnap.evaluation.answer_table import groups_of, tabulate
from pillsnap.evaluation.classification import classification_figures
from pillsnap.evaluation.classification_report import calibrated_figures, report_classification
from pillsnap.evaluation.prediction_table import write_predictions
from pillsnap.evaluation.predictions import classify_loader
from pillsnap.evaluation.streaming import ClassificationPredictions
from pillsnap.jsonfile import save_json

WANTED_GIB, WANTED_SECONDS = 2.0, 60.0
TEMPERATURE = 1.3
NUM_READY_ROWS = 2048
SMALL = (500, 30)  # pills and classes of the case that is put beside scikit-learn
SPEC = ClassifierInput(size_px=1, frame_fit="center", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CROSS_ENTROPY = nn.CrossEntropyLoss()

T = TypeVar("T")


class ReadyLogits(nn.Module):
    """Stands in for a classifier: a picture is one pixel whose colour is its number, and its logits are looked up."""

    def __init__(self, labels: NDArray[np.int64], num_classes: int) -> None:
        """Draw noise of 2, and 9 +- 3 more for the true class: right about two times in three of 5,000 classes."""
        super().__init__()
        rng = np.random.default_rng(0)
        self.labels = torch.from_numpy(labels)
        self.margins = torch.from_numpy(rng.normal(9, 3, len(labels)).astype(np.float32))
        self.noise = 2 * torch.from_numpy(rng.standard_normal((NUM_READY_ROWS, num_classes), np.float32))
        self.unused = nn.Parameter(torch.zeros(1))  # tells the device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, C) logits."""
        number = ((images[:, :, 0, 0] * 255).round().long() * torch.tensor([1, 256, 65536])).sum(1)
        logits = self.noise[number % NUM_READY_ROWS]
        logits[torch.arange(len(number)), self.labels[number]] += self.margins[number]
        return logits


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON file; return the exit code: 1 where more was needed than is wanted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(words)
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="pillsnap-benchmark-") as folder:
            results = {"small_case": _small_case(), **_measure(options, Path(folder))}
        if options.json is not None:
            save_json(options.json, {**results, **circumstances("benchmarks.metrics", words)})
    except PillError as error:
        print(f"benchmarks.metrics: {error}", file=sys.stderr)
        return error.exit_code
    print(_report(results))
    return 0 if results["is_within"] else 1


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics",
        description="Memory and seconds of judging a classifier on a split.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--json", type=Path, help="file for every figure and setting")
    add("--pills", type=int, default=60_000)
    add("--classes", type=int, default=5_000)
    add("--batch", type=int, default=256)
    add("--threads", type=int, default=2, help="threads of PyTorch")
    options = parser.parse_args(words)
    for name in ("pills", "classes", "batch", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; wanted 1 or more")
    return options


def _measure(options: argparse.Namespace, reports: Path) -> dict[str, Any]:
    labels = np.random.default_rng(1).integers(0, options.classes, options.pills)
    model = ReadyLogits(labels, options.classes)
    records = Records(synthesise(options.pills))
    sample_ids = records.column("sample_id")
    items = ClassificationItems(np.arange(options.pills), np.full(options.pills, NO_BOX), labels)
    codes = [f"K-{number:06d}" for number in range(options.classes)]
    before_gib = _peak_gib()
    seconds, cpu_seconds = dict[str, float](), dict[str, float]()

    def timed(name: str, work: Callable[[], T]) -> T:
        start, cpu_start = time.perf_counter(), time.process_time()
        result = work()
        seconds[name], cpu_seconds[name] = time.perf_counter() - start, time.process_time() - cpu_start
        return result

    batches = _batches(labels, sample_ids, options.batch)
    found = timed("answers", lambda: classify_loader(model, batches, SPEC, CROSS_ENTROPY, keep_logits=True))
    groups = groups_of(records, items)
    figures = timed(
        "figures_and_plots",
        lambda: report_classification(found, "val", reports, codes=codes, names={}, groups=groups),
    )
    calibrated = timed("at_a_temperature", lambda: calibrated_figures(found, TEMPERATURE))
    table = timed("table", lambda: tabulate(found, records, items, codes, temperature=TEMPERATURE))
    timed("table_file", lambda: write_predictions(reports / "predictions_val.arrow", table))
    peak_gib, total = _peak_gib(), sum(seconds.values())
    return {
        "pills": options.pills,
        "classes": options.classes,
        "threads": options.threads,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # both cores added up; well below the seconds, something else had the cores
        "total_seconds": total,
        "peak_gib": peak_gib,
        "peak_gib_before": before_gib,
        "wanted": {"peak_gib": WANTED_GIB, "total_seconds": WANTED_SECONDS},
        "is_within": peak_gib <= WANTED_GIB and total <= WANTED_SECONDS,
        "figures": {**figures, **calibrated},
    }


def _batches(labels: NDArray[np.int64], sample_ids: NDArray[Any], size: int) -> Iterator[ClassificationBatch]:
    for start in range(0, len(labels), size):
        number = np.arange(start, min(start + size, len(labels)))
        pixels = np.stack([number & 255, number >> 8 & 255, number >> 16], axis=1).astype(np.uint8)
        yield ClassificationBatch(
            torch.from_numpy(pixels).view(-1, 3, 1, 1), torch.from_numpy(labels[number]), sample_ids[number].tolist()
        )


def _small_case() -> dict[str, dict[str, float]]:
    """Return figures of a small split as they are streamed, and by scikit-learn from its probabilities."""
    num_pills, num_classes = SMALL
    labels = np.random.default_rng(2).integers(0, num_classes, num_pills)
    model = ReadyLogits(labels, num_classes)
    batches = _batches(labels, np.arange(num_pills), 64)
    found: ClassificationPredictions = classify_loader(model, batches, SPEC, CROSS_ENTROPY)
    rows = torch.cat([model(batch.images_BCHW / 255) for batch in _batches(labels, np.arange(num_pills), 64)])
    prob, numbers = rows.double().softmax(1).numpy(), np.arange(num_classes)
    by_scikit_learn = {
        "accuracy": float(accuracy_score(labels, prob.argmax(1))),
        "macro_f1": float(f1_score(labels, prob.argmax(1), average="macro", zero_division=0)),
        "top5": float(top_k_accuracy_score(labels, prob, k=5, labels=numbers)),
        "nll": float(log_loss(labels, prob, labels=numbers)),
    }
    ours = classification_figures(found)
    return {"ours": {name: float(ours[name]) for name in by_scikit_learn}, "scikit_learn": by_scikit_learn}


def _peak_gib() -> float:
    """Return the most resident memory this process ever had, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _report(results: dict[str, Any]) -> str:
    lines = [f"{results['pills']:,} pills of {results['classes']:,} classes, {results['threads']} threads"]
    lines += [
        f"  {name.replace('_', ' '):<18} {seconds:6.1f} s ({results['cpu_seconds'][name]:.1f} s of processor time)"
        for name, seconds in results["seconds"].items()
    ]
    lines += [
        f"  {'together':<18} {results['total_seconds']:6.1f} s, wanted at most {WANTED_SECONDS:g} s",
        f"  {'resident memory':<18} {results['peak_gib']:6.2f} GiB at most, wanted at most {WANTED_GIB:g} GiB "
        f"({results['peak_gib_before']:.2f} before the first answer)",
        f"a split of {SMALL[0]} pills and {SMALL[1]} classes, here and by scikit-learn:",
    ]
    small = results["small_case"]
    lines += [f"  {name:<18} {value:.9f}  {small['scikit_learn'][name]:.9f}" for name, value in small["ours"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
