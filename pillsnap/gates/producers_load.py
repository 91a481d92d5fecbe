"""Checks that give the best models more to do at once: more pictures in a pass, and more in a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from pillsnap.boxes import FloatArray
from pillsnap.data.datasets import Key
from pillsnap.data.images import decode_rgb
from pillsnap.data.loaders import Loader, classification_evaluation_loader
from pillsnap.data.preprocess import frame_view, letterbox
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.errors import DataError
from pillsnap.gates.evidence import Outcome, outcome
from pillsnap.gates.growth import only_what_is_new_collected, resident_mb, return_free_memory
from pillsnap.gates.subject import Subject
from pillsnap.memory import MEMORY_ERRORS, free_memory, is_out_of_memory

SCALES = (1, 2, 4)
ROUNDS = 3
MAX_SLOWDOWN = 1.25
MAX_KB_PER_PICTURE = 4.0
"""Resident memory that a picture more may cost. The demo shows 0.01; keeping its views would be 37 kB each."""
NOISE_MB = 2.0
"""Of a reading of resident memory: allocators come and go with pages; the demo shows 0.3."""
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
WANTED_BATCH = 32
MAX_DIFFERENCE = 1e-4


@dataclass(slots=True)
class Pass:
    """One pass over so many pictures."""

    pictures: int
    seconds_a_picture: float
    peak_mb: float
    """Largest resident memory seen."""


class RepeatingSampler(Sampler[list[Key]]):
    """Yields the keys of `num_samples` samples in order, over and over through a set that has fewer."""

    def __init__(self, num_samples: int, size: int, batch_size: int) -> None:
        """Cover `num_samples`, at most `batch_size` at a time, of a set of `size`."""
        self.num_samples, self.size, self.batch_size = num_samples, size, batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield lists of `(0, position, 0)`."""
        for start in range(0, self.num_samples, self.batch_size):
            stop = min(start + self.batch_size, self.num_samples)
            yield [(0, number % self.size, 0) for number in range(start, stop)]


def scalability_test_pass(subject: Subject) -> Outcome:
    """Twice and four times the pictures through loader and classifier take as long a picture, and no more memory."""
    engine = subject.pipeline.classifier
    loader = classification_evaluation_loader(subject.data, subject.cfg, engine.spec, "val")

    def work(num_pictures: int) -> Iterator[int]:
        for batch in _repeating(loader, num_pictures):
            if isinstance(batch, list):
                raise DataError(f"no picture of a batch can be decoded; first: {batch[0].reason}. Check the data set.")
            engine.probabilities(np.ascontiguousarray(batch.images_BCHW.permute(0, 2, 3, 1).numpy()))
            yield len(batch)

    passes = measure_scaling(work, subject.options.scale_pictures)
    return judge_scaling(passes, subject)


def judge_scaling(passes: Sequence[Pass], subject: Subject) -> Outcome:
    """Return what the passes of all rounds come to; the fastest of each size counts, for others slow a machine."""
    sizes = sorted({each.pictures for each in passes})
    fastest = {size: min(each.seconds_a_picture for each in passes if each.pictures == size) for size in sizes}
    slowdown = max(fastest.values()) / fastest[sizes[0]]
    # The first round also fills caches: memory is compared in the last one.
    last = {each.pictures: each.peak_mb for each in passes}
    grown_mb = max(0.0, last[sizes[-1]] - last[sizes[0]] - NOISE_MB)
    kb_per_picture = 1000 * grown_mb / (sizes[-1] - sizes[0])
    problems = []
    if slowdown >= MAX_SLOWDOWN:
        problems.append(f"a picture takes {slowdown:.2f} times as long when there are more of them")
    if kb_per_picture > MAX_KB_PER_PICTURE:
        problems.append(f"each picture more keeps {kb_per_picture:.1f} kB of memory")
    content = {
        "slowdown": slowdown,
        "kb_per_picture": kb_per_picture,
        "passes": [[each.pictures, each.seconds_a_picture, each.peak_mb] for each in passes],
    }
    rates = ", ".join(f"{size} pictures {1 / seconds:.1f}/s" for size, seconds in fastest.items())
    return outcome(
        not problems,
        "; ".join(problems) or f"{rates}; {kb_per_picture:.1f} kB of memory a picture more",
        value=round(slowdown, 4),
        wanted=f"< {MAX_SLOWDOWN}",
        unit="times the time a picture",
        file=subject.write("scalability_test_pass", content),
    )


def measure_scaling(work: Callable[[int], Iterator[int]], base: int) -> list[Pass]:
    """Time `work` over once, twice and four times `base` pictures, in turns, `ROUNDS` times.

    Args:
        work: Given a number of pictures, does the work batch by batch and yields the size of each. The first batch is
            not timed: workers start.
        base: Pictures of the smallest pass; more than one batch.
    """
    with only_what_is_new_collected():
        return [_pass(work, scale * base) for _ in range(ROUNDS) for scale in SCALES]


def _pass(work: Callable[[int], Iterator[int]], num_pictures: int) -> Pass:
    return_free_memory()
    done, peak_mb = 0, 0.0
    batches = work(num_pictures)
    next(batches, None)
    began = time.perf_counter()
    for size in batches:
        done += size
        peak_mb = max(peak_mb, resident_mb())
    seconds = time.perf_counter() - began
    if not done:
        raise DataError(f"{num_pictures} pictures make a single batch, which says nothing about more. Ask for more.")
    return Pass(num_pictures, seconds / done, peak_mb)


def _repeating(loader: Loader, num_pictures: int) -> Loader:
    """Return a loader like `loader` over `num_pictures`, through its pictures again and again."""
    size = len(loader.dataset)  # type: ignore[arg-type]
    batch_size = min(loader.batch_sampler.batch_size, max(num_pictures // 4, 1))  # type: ignore[union-attr]
    return DataLoader(
        loader.dataset,
        batch_sampler=RepeatingSampler(num_pictures, size, batch_size),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator().manual_seed(0),
    )


def multi_batch_processing(subject: Subject) -> Outcome:
    """Batches of 2 to 64 val pictures get the answers that their pictures get one by one, from both models."""
    pipeline = subject.pipeline
    detector = pipeline.load_detector() if "detection" in subject.tasks else None
    images = [decode_rgb(path) for path in subject.val_pictures(SINGLE, BATCH_SIZES[-1])]
    photographs = [decode_rgb(path) for path in subject.val_pictures(COMBO, BATCH_SIZES[-1])] or images
    if not photographs:
        raise DataError("the val split holds no picture: nothing can be put into batches. Use a data set with one.")
    views = [frame_view(image, pipeline.classifier.spec) for image in images or photographs]
    differences = {"classification": compare_batches(views, pipeline.classify_crops)}
    if detector is not None:
        fitted = [letterbox(image, detector.size_px)[0] for image in photographs]

        def detect(inputs_NHWC: np.ndarray[Any, np.dtype[np.uint8]]) -> FloatArray:
            raw = detector.predictions(inputs_NHWC).cpu().numpy()
            raw[:, :4] /= detector.size_px
            return np.asarray(raw, np.float32)

        differences["detection"] = compare_batches(fitted, detect)
    right = {name: _largest_right(found) for name, found in differences.items()}
    largest = min(right.values())
    parts = (
        f"{name} up to {right[name]}, largest difference {max(found.values(), default=0):.1e}"
        for name, found in differences.items()
    )
    content = {name: {str(size): value for size, value in found.items()} for name, found in differences.items()}
    return outcome(
        largest >= WANTED_BATCH,
        f"batches answer as single pictures do: {'; '.join(parts)}",
        value=largest,
        wanted=f">= {WANTED_BATCH}",
        unit="pictures a batch",
        file=subject.write("multi_batch_processing", content),
    )


def compare_batches(
    inputs: Sequence[np.ndarray[Any, np.dtype[np.uint8]]], answer: Callable[[Any], FloatArray]
) -> dict[int, float]:
    """Return the largest difference from the answers one by one, by batch size; memory that runs out ends the series.

    Args:
        inputs: uint8 (S, S, 3) each; with fewer than the largest batch they are repeated.
        answer: Takes uint8 (N, S, S, 3), returns float32 (N, ...).
    """
    wanted = list(islice(cycle(inputs), BATCH_SIZES[-1]))
    found: dict[int, float] = {}
    with _exact_arithmetic():
        single = np.concatenate([answer(np.stack([each])) for each in wanted])
        for size in BATCH_SIZES:
            largest = 0.0
            try:
                for start in range(0, len(wanted), size):
                    answers = answer(np.stack(wanted[start : start + size]))
                    difference = np.abs(answers - single[start : start + size]).max()
                    largest = max(largest, float(difference) if np.isfinite(difference) else 1e9)
            except MEMORY_ERRORS as error:
                if not is_out_of_memory(error, is_memory_scarce=False):
                    raise
                break
            found[size] = largest
        free_memory()
    return found


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Keep a GPU from rounding to TF32: it does so differently for each batch size, by more than is allowed here."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _largest_right(differences: dict[int, float]) -> int:
    largest = 1
    for size, difference in differences.items():
        if difference > MAX_DIFFERENCE:
            break
        largest = size
    return largest
