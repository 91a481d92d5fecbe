"""Every mandatory check of D-14 with what produces its evidence, and the run over some of them (CRT-2).

evidence = run_checks(Path("runs/demo"), CHEAP)
evidence.is_passed("pipeline_complete")
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pillsnap.errors import ConfigError, PillError
from pillsnap.gates import (
    producers_data,
    producers_duration,
    producers_load,
    producers_models,
    producers_monitoring,
    producers_run,
    producers_service,
)
from pillsnap.gates.evidence import FAILED, Check, Evidence, Outcome, checkpoint_hashes
from pillsnap.gates.subject import CheckOptions, Subject
from pillsnap.memory import MEMORY_ERRORS, describe_failure, free_memory, is_out_of_memory
from pillsnap.source_version import get_git_sha

logger = logging.getLogger("pillsnap")

OnCheck = Callable[[str, Check], None]


@dataclass(frozen=True, slots=True)
class Producer:
    """What gives a check its evidence."""

    produce: Callable[[Subject], Outcome]
    what: str
    """A sentence: what is run."""
    is_cheap: bool = True
    """Seconds, nothing but the experiment needed: the end of a training runs it."""


PRODUCERS: dict[str, Producer] = {
    "pipeline_complete": Producer(
        producers_run.pipeline_complete,
        "the run's facts, figures, report and checkpoints were read and compared with the manifest",
    ),
    "detection_model_loading": Producer(
        producers_models.detection_model_loading,
        "the best detector was loaded and found the pills of val pictures",
    ),
    "classification_model_loading": Producer(
        producers_models.classification_model_loading,
        "the best classifier was loaded and answered val pictures as the run's evaluation had recorded",
    ),
    "onnx_conversion_success": Producer(
        producers_models.onnx_conversion_success,
        "both exported files were compared with their report and answered a picture in ONNX Runtime",
    ),
    "auto_batch_tuning_success": Producer(
        producers_run.auto_batch_tuning_success, "the run's decisions about batch sizes were read"
    ),
    "tensorboard_logging": Producer(
        producers_run.tensorboard_logging, "TensorBoard's reader read the event files and their points were counted"
    ),
    "class_balance_verification": Producer(
        producers_data.class_balance_verification, "the pills of each class were counted in the run's selection"
    ),
    "memory_optimization_working": Producer(
        producers_run.memory_optimization_working, "the run's memory was compared with the plan made before it"
    ),
    "scalability_test_pass": Producer(
        producers_load.scalability_test_pass,
        "val pictures went through loader and classifier once, twice and four times as many, in turns",
        is_cheap=False,
    ),
    "multi_batch_processing": Producer(
        producers_load.multi_batch_processing,
        "val pictures were answered one by one and in batches up to 64 by both models",
        is_cheap=False,
    ),
    "memory_leak_test": Producer(
        producers_duration.memory_leak_test,
        "memory was read while val pictures were predicted hundreds of times",
        is_cheap=False,
    ),
    "stability_test_pass": Producer(
        producers_duration.stability_test_pass,
        "val pictures were predicted over and over for the minutes asked for, each answer compared with the first",
        is_cheap=False,
    ),
    "full_dataset_processing": Producer(
        producers_data.full_dataset_processing, "the data set was read again and compared with what the run used"
    ),
    "production_api_deployment": Producer(
        producers_service.production_api_deployment,
        "the deployed service was asked for its health and, with its key and without, about val pictures",
        is_cheap=False,
    ),
    "cloudflare_tunnel_setup": Producer(
        producers_service.cloudflare_tunnel_setup,
        "the service was asked for its health by its public address and by its own",
        is_cheap=False,
    ),
    "automated_monitoring": Producer(
        producers_monitoring.automated_monitoring,
        "the service's counters were read around a request; Prometheus was asked for them and for its alert rules",
        is_cheap=False,
    ),
}
CHEAP: tuple[str, ...] = tuple(name for name, producer in PRODUCERS.items() if producer.is_cheap)
"""Names of the checks that take seconds and need nothing but the experiment."""


def run_checks(
    exp_dir: Path,
    names: Iterable[str],
    options: CheckOptions | None = None,
    *,
    reuse: bool = False,
    on_check: OnCheck | None = None,
) -> Evidence:
    """Run checks one by one; `reports/checks.json` is written after each, so that a kill loses one.

    Args:
        exp_dir: The experiment's folder.
        names: Keys of `PRODUCERS`, in the order to run them.
        options: How and against what to check.
        reuse: Leave out checks that passed before and still count.
        on_check: Told of each check as it comes.

    Returns:
        All checks of the experiment, those of earlier calls included.

    Raises:
        ConfigError: A name is unknown, or the folder is no experiment's.
        PillError: `reports/checks.json` cannot be written.
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in PRODUCERS]:
        raise ConfigError(f"There is no check named {', '.join(unknown)}. Choose from: {', '.join(PRODUCERS)}.")
    subject = Subject(exp_dir, options or CheckOptions())
    _ = subject.cfg  # what is no experiment is bad input, not a failed check
    evidence = Evidence.load(exp_dir)
    for name in wanted:
        if not (reuse and evidence.is_passed(name)):
            evidence.checks[name] = run_check(name, subject)
            evidence.save()
            free_memory()
        if on_check is not None:
            on_check(name, evidence.checks[name])
    return evidence


def run_check(name: str, subject: Subject) -> Check:
    """Run one check and return what came of it; an error that is for the user to mend is a failed check."""
    producer = PRODUCERS[name]
    hashes = checkpoint_hashes(subject.exp_dir)
    began, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        found = producer.produce(subject)
    except PillError as error:
        found = Outcome(status=FAILED, message=str(error))
    except MEMORY_ERRORS as error:
        if not isinstance(error, OSError) and not is_out_of_memory(error, is_memory_scarce=False):
            raise  # a bug
        found = Outcome(status=FAILED, message=describe_failure(error))
    logger.info("check %s: %s: %s", name, found.status, found.message)
    return Check(
        status=found.status,
        value=found.value,
        wanted=found.wanted,
        unit=found.unit,
        what=producer.what,
        message=found.message,
        file=found.file,
        time=began,
        seconds=round(time.monotonic() - started, 3),
        git_sha=get_git_sha(),
        checkpoint=hashes,
    )
