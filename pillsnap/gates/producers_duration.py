"""Checks that let the best models answer again and again: whether memory grows, answers change, or anything fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pillsnap.data.records import COMBO, SINGLE
from pillsnap.errors import DataError, PillError
from pillsnap.gates.evidence import Outcome, outcome
from pillsnap.gates.growth import Growth, only_what_is_new_collected
from pillsnap.gates.subject import Subject
from pillsnap.inference.answers import Answer

MAX_MB_PER_1000 = 1.0
"""As `benchmarks.endurance` allows training. A process without a leak shows 0.005 or less over 300 predictions."""
WARMUP_PREDICTIONS = 100
NUM_SAMPLES = 30
MIN_SAMPLES = 3
MAX_GROWTH_MB = 16.0
"""Over the whole stability test; more than any cache of the libraries takes once the warm-up is over."""
MAX_CONFIDENCE_DRIFT = 1e-4
MAX_BOX_DRIFT_PX = 0.1
NUM_SINGLES, NUM_COMBOS = 8, 4
SECONDS_A_MINUTE, SECONDS_AN_HOUR = 60.0, 3600.0

Request = tuple[Path, str]
"""A picture, and the mode it is asked about in."""


def memory_leak_test(subject: Subject) -> Outcome:
    """After a warm-up, hundreds of single and combo predictions leave no memory in use that was not before."""
    requests, num_wanted = requests_of(subject), subject.options.predictions
    growth = Growth()
    every = max(num_wanted // NUM_SAMPLES, 1)
    with only_what_is_new_collected():
        for done, (path, mode) in enumerate(islice(cycle(requests), WARMUP_PREDICTIONS + num_wanted), start=1):
            subject.pipeline.predict(path, mode)
            if done >= WARMUP_PREDICTIONS and (done - WARMUP_PREDICTIONS) % every == 0:
                growth.sample(done)
    resident, gpu = growth.per_1000()
    slope = max(resident, gpu)
    return outcome(
        slope < MAX_MB_PER_1000,
        f"over {num_wanted} predictions resident memory grew by {resident:+.3f} MB per 1,000, GPU memory by {gpu:+.3f}",
        value=round(slope, 4),
        wanted=f"< {MAX_MB_PER_1000:g}",
        unit="MB per 1,000 predictions",
        file=subject.write("memory_leak_test", growth.to_dict()),
    )


@dataclass
class Stability:
    """What a long run of predictions has shown so far."""

    growth: Growth = field(default_factory=Growth)
    first: dict[Request, Answer] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    num_predictions: int = 0
    seconds: float = 0.0


def stability_test_pass(subject: Subject) -> Outcome:
    """For the minutes asked for, single and combo predictions go on without error, change, or growing memory."""
    wanted_s = subject.options.minutes * SECONDS_A_MINUTE
    with only_what_is_new_collected():
        found = predict_for(wanted_s, requests_of(subject), subject.pipeline.predict)
    has_enough = len(found.growth.done) >= MIN_SAMPLES
    growth_mb = found.growth.fitted_mb() if has_enough else 0.0
    if not has_enough and not found.problems:
        found.problems.append(f"{found.num_predictions} predictions are too few to judge memory by: give more minutes")
    if growth_mb > MAX_GROWTH_MB:
        found.problems.append(f"memory grew by {growth_mb:.1f} MB, allowed are {MAX_GROWTH_MB:g}")
    hours = found.seconds / SECONDS_AN_HOUR
    content = {"hours": hours, "predictions": found.num_predictions, "problems": found.problems}
    return outcome(
        not found.problems,
        "; ".join(found.problems)
        or f"{found.num_predictions} predictions in {hours:.3f} hours, all as the first; memory {growth_mb:+.1f} MB",
        value=round(hours, 6),
        wanted=f">= {wanted_s / SECONDS_AN_HOUR:.5g}",
        unit="hours",
        file=subject.write("stability_test_pass", {**content, **found.growth.to_dict()}),
    )


def predict_for(seconds: float, requests: Sequence[Request], predict: Callable[[Path, str], Answer]) -> Stability:
    """Predict over and over for so long; ends early with the first thing that goes wrong.

    Every request is asked once before the clock starts, and its answer is what later ones are compared with.
    """
    found = Stability()
    try:
        for path, mode in requests:
            found.first[path, mode] = predict(path, mode)
        began = time.monotonic()
        sampled = began - seconds
        for path, mode in cycle(requests):
            found.seconds = time.monotonic() - began
            if found.seconds >= seconds:
                break
            if time.monotonic() - sampled >= seconds / NUM_SAMPLES and found.num_predictions >= len(requests):
                found.growth.sample(found.num_predictions)
                sampled = time.monotonic()
            answer = predict(path, mode)
            found.num_predictions += 1
            if not is_same_answer(found.first[path, mode], answer):
                found.problems.append(f"{path.name} in mode {mode}: another answer than at first")
                break
    except PillError as error:
        found.problems.append(f"after {found.num_predictions} predictions: {error}")
    return found


def is_same_answer(one: Answer, other: Answer) -> bool:
    """Tell whether two answers name the same drugs at the same places as surely."""
    if len(one["pills"]) != len(other["pills"]):
        return False
    for first, second in zip(one["pills"], other["pills"], strict=True):
        if first["code"] != second["code"]:
            return False
        if abs(first["confidence"] - second["confidence"]) > MAX_CONFIDENCE_DRIFT:
            return False
        boxes = [np.array(pill["box_xyxy"] or [], np.float32) for pill in (first, second)]
        if len(boxes[0]) != len(boxes[1]) or np.abs(boxes[0] - boxes[1]).max(initial=0) > MAX_BOX_DRIFT_PX:
            return False
    return True


def requests_of(subject: Subject) -> list[Request]:
    """Return val pictures with the mode to ask about each: single ones, and combinations where there is a detector.

    Raises:
        DataError: The val split holds none.
    """
    singles: list[Request] = [(path, "single") for path in subject.val_pictures(SINGLE, NUM_SINGLES)]
    has_detector = "detection" in subject.tasks
    paths = subject.val_pictures(COMBO, NUM_COMBOS) if has_detector else []
    combos: list[Request] = [(path, "combo") for path in paths]
    if not singles and not combos:
        raise DataError("the val split holds no picture: there is nothing to predict. Use a data set with one.")
    return [*singles, *combos]
