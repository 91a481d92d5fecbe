"""What is known of the steps of one task: log lines, TensorBoard figures, totals, and the check for a finite loss.

Losses stay on the device until a logging step, so that no step waits for the GPU just to be reported.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import torch

from pillsnap.data.batches import LoadStats
from pillsnap.errors import NonFiniteLossError
from pillsnap.training.data_wait import DataWait
from pillsnap.training.precision import cuda_mem_mb
from pillsnap.training.telemetry import StepTimer, TBWriter


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step as it was done; `loss` is still on the device."""

    epoch: int
    step_in_epoch: int
    steps_per_epoch: int
    step: int
    loss: torch.Tensor
    lr: float
    sample_ids: list[int]
    load: LoadStats = field(default_factory=LoadStats)
    """What loading the samples took."""


@dataclass
class StepTotals:
    """Sums over a run, for its record; the first steps of a compiled model are left out (UTL-9)."""

    steps: int = 0
    samples: int = 0
    data_s: float = 0.0
    compute_s: float = 0.0

    def throughput(self) -> float | None:
        """Samples a second while training (waiting included), or None before the first counted step."""
        seconds = self.data_s + self.compute_s
        return self.samples / seconds if seconds > 0 else None

    def data_wait_share(self) -> float | None:
        """Share of the time spent waiting for data, 0..1, or None before the first counted step."""
        seconds = self.data_s + self.compute_s
        return self.data_s / seconds if seconds > 0 else None


@dataclass
class EpochLoss:
    """Training loss of the current epoch, summed over samples; part of a task's state."""

    total: float = 0.0
    samples: int = 0

    def mean(self) -> float | None:
        """Mean over the epoch's samples so far, or None when there are none."""
        return self.total / self.samples if self.samples else None


class StepLog:
    """Collects the steps of one task and reports them every `step_log_interval` steps."""

    def __init__(
        self,
        *,
        label: str,
        prefix: str,
        epochs: int,
        device: torch.device,
        logger: logging.Logger,
        tb: TBWriter,
        step_log_interval: int,
        profile_interval: int,
        warmup_steps: int = 0,
        data_wait: DataWait | None = None,
    ) -> None:
        """Report as `[label]` in the log and under `prefix` in TensorBoard.

        Args:
            label: `train` for the classifier, `train/detection` for the detector.
            prefix: Leads every TensorBoard tag; empty for the classifier.
            epochs: Epochs of the task, for the log line.
            device: Where losses lie.
            logger: The run's logger.
            tb: The run's TensorBoard session.
            step_log_interval: Steps between two log lines.
            profile_interval: Steps between two detailed lines.
            warmup_steps: First steps left out of the totals (compilation).
            data_wait: Looks why steps wait for data, between two detailed lines.
        """
        self.timer = StepTimer(device)
        self.totals = StepTotals()
        self.epoch_loss = EpochLoss()
        self.data_wait = data_wait
        self._label, self._prefix = label, prefix
        self._epochs = epochs
        self._logger, self._tb = logger, tb
        self._interval, self._profile_interval = step_log_interval, profile_interval
        self._warmup_left = warmup_steps
        # On a CPU the loss is at hand at once; waiting ten steps to notice a NaN would help nobody.
        self._check_every_step = device.type != "cuda"
        self._pending: list[StepReport] = []

    def record(self, report: StepReport, *, checkpoint: str) -> None:
        """Take in one step; every `step_log_interval` steps, and at an epoch's end, it is reported.

        Raises:
            NonFiniteLossError: A loss since the last report is NaN or infinite.
        """
        self._pending.append(report)
        if self._check_every_step:
            self._require_finite([float(report.loss)], [report], checkpoint)
        if report.step % self._interval == 0 or report.step_in_epoch == report.steps_per_epoch:
            self.flush(checkpoint=checkpoint)

    def flush(self, *, checkpoint: str) -> None:
        """Report what is pending; waits for the device.

        Raises:
            NonFiniteLossError: A pending loss is NaN or infinite.
        """
        reports, self._pending = self._pending, []
        if not reports:
            return
        losses = [float(value) for value in torch.stack([report.loss for report in reports]).cpu()]
        self._require_finite(losses, reports, checkpoint)
        times = self.timer.flush()
        for loss, report in zip(losses, reports, strict=True):
            self.epoch_loss.total += loss * len(report.sample_ids)
            self.epoch_loss.samples += len(report.sample_ids)
        self._count(reports, times)
        last = reports[-1]
        data_s, compute_s = (sum(column) / len(times) for column in zip(*times, strict=True))
        figures = {
            "train/loss": losses[-1],
            "train/lr": last.lr,
            "perf/data_time": data_s,
            "perf/compute_time": compute_s,
            "perf/throughput": len(last.sample_ids) / (data_s + compute_s),
            "perf/cuda_mem": cuda_mem_mb(),
        }
        self._tb.add_scalars(figures, last.step, self._prefix)
        self._logger.info(
            f"[{self._label}] e={last.epoch + 1}/{self._epochs} s={last.step_in_epoch}/{last.steps_per_epoch} "
            f"loss={losses[-1]:.4f} lr={last.lr:.2e} data={data_s:.3f}s comp={compute_s:.3f}s "
            f"thr={figures['perf/throughput']:.1f}/s cuda={figures['perf/cuda_mem']:.0f}MB"
        )
        if last.step // self._profile_interval > (reports[0].step - 1) // self._profile_interval:
            self._detail(losses, times)
            if self.data_wait is not None:
                self.data_wait.close_window(last.epoch, last.step)

    def _detail(self, losses: list[float], times: list[tuple[float, float]]) -> None:
        totals = self.totals
        share, rate = totals.data_wait_share(), totals.throughput()
        self._logger.info(
            f"[{self._label}] profile: steps={totals.steps} samples={totals.samples} "
            f"loss mean={sum(losses) / len(losses):.4f} min={min(losses):.4f} max={max(losses):.4f} "
            f"data max={max(data for data, _ in times):.3f}s comp max={max(compute for _, compute in times):.3f}s "
            f"data-wait={'n/a' if share is None else f'{share:.1%}'} thr={'n/a' if rate is None else f'{rate:.1f}/s'}"
        )

    def _count(self, reports: list[StepReport], times: list[tuple[float, float]]) -> None:
        for report, (data_s, compute_s) in zip(reports, times, strict=True):
            if self.data_wait is not None:
                self.data_wait.add(data_s, compute_s, report.load)
            if self._warmup_left > 0:
                self._warmup_left -= 1
                continue
            self.totals.steps += 1
            self.totals.samples += len(report.sample_ids)
            self.totals.data_s += data_s
            self.totals.compute_s += compute_s

    def _require_finite(self, losses: list[float], reports: list[StepReport], checkpoint: str) -> None:
        for loss, report in zip(losses, reports, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"[{self._label}] the loss of step {report.step} (epoch {report.epoch + 1}) is {loss}; a finite "
                    f"one was wanted. Samples: {report.sample_ids}. Go back to {checkpoint} (train.resume=last) with a "
                    "lower train.lr, a smaller train.grad_clip, or amp_dtype=bf16."
                )
