"""How a task's steps are cut into micro-batches, and how the cut changes when memory runs out or has been ample.

Samples, learning rate and schedule stay as configured as long as the G samples of a step can be cut smaller.
BatchNorm's statistics are over micro-batches, so they do depend on the cut; every change is logged and kept in the
checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from omegaconf import DictConfig

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import free_memory
from pillsnap.training.oom import oom_recovery_state_machine
from pillsnap.training.telemetry import TBWriter

Decide = Callable[[str, object, object, str], None]
"""Notes a decision the run took on its own: what, before, after, why."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How the samples of an optimizer step are divided, and what had to change for them to fit."""

    batch_size: int
    """Samples of a micro-batch."""
    grad_accum: int
    """Micro-batches of a step."""
    is_fp16: bool = False
    """The task went over to float16 to save memory."""
    lr_scale: float = 1.0
    """Factor on the configured learning rate; 1 unless the step itself got another size."""
    wd_scale: float = 1.0
    """Factor on the configured weight decay."""

    @property
    def step_size(self) -> int:
        """Samples of an optimizer step, G."""
        return self.batch_size * self.grad_accum

    def __str__(self) -> str:
        """Return `16 x 4`, with `fp16` where it applies."""
        return f"{self.batch_size} x {self.grad_accum}{' fp16' if self.is_fp16 else ''}"


def policy_state(cut: Cut, *, is_16bit: bool) -> dict[str, Any]:
    """Return a cut as `oom_recovery_state_machine` wants it; `is_16bit` where float16 would free nothing."""
    return {
        "batch_size": cut.batch_size,
        "grad_accum": cut.grad_accum,
        "did_amp_escalate": cut.is_fp16,
        "is_16bit": is_16bit,
    }


def next_cut(cut: Cut, decision: dict[str, Any]) -> Cut:
    """Return the cut a decision with a `next_state` leads to."""
    state = decision["next_state"]
    return Cut(
        state["batch_size"],
        state["grad_accum"],
        state["did_amp_escalate"],
        cut.lr_scale * decision.get("lr_scale", 1.0),
        cut.wd_scale * decision.get("wd_scale", 1.0),
    )


class Recovery:
    """Keeps the cut of one task and changes it after failures."""

    def __init__(
        self,
        cfg: DictConfig,
        *,
        cut: Cut,
        is_16bit: bool,
        label: str,
        prefix: str,
        logger: logging.Logger,
        tb: TBWriter,
        decide: Decide,
    ) -> None:
        """Start with `cut`.

        Args:
            cfg: Reads `train.oom`.
            cut: As configured.
            is_16bit: Whether going over to float16 would free nothing: the task computes in 16 bit, or on a CPU.
            label: Leads log lines.
            prefix: Leads TensorBoard tags.
            logger: The run's logger.
            tb: The run's TensorBoard session.
            decide: Told of every change, for the report.
        """
        self._cfg = cfg
        self._is_16bit = is_16bit
        self._label, self._prefix, self._logger, self._tb, self._decide = label, prefix, logger, tb, decide
        self.configured = cut
        self.cut = cut
        self.largest = cut
        """What regrowing does not go beyond: the configured cut, or the one auto batch chose."""
        self.is_restored = False
        """The cut comes from a checkpoint."""
        self.retries = 0
        """Failures in a row."""
        self.total = 0
        """Failures in all, for the record."""
        self._clean_steps = 0
        self._regrow_wait: int = cfg.train.oom.regrow_after_steps
        self._grown_to: int | None = None
        self._busy_s = 0.0

    def use(self, cut: Cut) -> None:
        """Take over a cut that was found to fit, as the one to regrow to."""
        self.cut = self.largest = cut

    def after_failure(self, failure: str, step: int) -> None:
        """Free memory, choose the cut of the next attempt, and wait. Call it outside the `except` block.

        Args:
            failure: The error's description.
            step: Number of the step that failed, for log and TensorBoard.

        Raises:
            OutOfMemoryFloorError: Nothing is left to try.
        """
        failed_at = time.monotonic()
        free_memory()
        decision = oom_recovery_state_machine(self.retries, policy_state(self.cut, is_16bit=self._is_16bit), self._cfg)
        self.retries += 1
        self.total += 1
        self._tb.add_scalar(f"{self._prefix}oom/retries", self.retries, step)
        if "next_state" not in decision:
            raise self._floor_error(failure, step, decision)
        if self.cut.batch_size == self._grown_to and self._clean_steps < self._regrow_wait:
            self._regrow_wait *= 2  # memory was not ample for as long as it took to try
        self._clean_steps = 0
        before, self.cut = self.cut, next_cut(self.cut, decision)
        oom = self._cfg.train.oom
        self._logger.warning(
            f"[{self._label}] step {step} ran out of memory ({failure}). {decision['action']}, attempt {self.retries} "
            f"of {oom.max_retries}: micro-batches {before} -> {self.cut}, G {before.step_size} -> "
            f"{self.cut.step_size}; the same samples again in {oom.cooldown_sec:g} s. BatchNorm now sees "
            f"{self.cut.batch_size} samples."
        )
        audit = f" {decision['audit_log']}" if "audit_log" in decision else ""
        self._decide(f"{self._label}: cut", before, self.cut, f"{decision['action']} at step {step}: {failure}{audit}")
        self._busy_s += time.monotonic() - failed_at
        time.sleep(oom.cooldown_sec)

    def after_fetch_failure(self, failure: str, step: int, failures: int) -> None:
        """Free memory and wait after loading samples ran out of it; no cut would help there.

        Args:
            failure: The error's description.
            step: Number of the step the samples are for.
            failures: How often loading them has failed by now.

        Raises:
            OutOfMemoryFloorError: That is more than `train.oom.max_retries` times.
        """
        free_memory()
        oom = self._cfg.train.oom
        self.total += 1
        self._tb.add_scalar(f"{self._prefix}oom/retries", failures, step)
        if failures > oom.max_retries:
            raise OutOfMemoryFloorError(
                f"[{self._label}] loading the samples of step {step} ran out of memory {failures} times: "
                f"{failure}. Close other programs, or lower dataloader.num_workers or dataloader.prefetch_factor."
            )
        self._logger.warning(
            f"[{self._label}] loading the samples of step {step} ran out of memory ({failure}); attempt {failures} "
            f"of {oom.max_retries} in {oom.cooldown_sec:g} s"
        )
        self._decide(f"{self._label}: loading", "failed", "tried again", f"step {step}: {failure}")
        time.sleep(oom.cooldown_sec)

    def after_success(self, step: int) -> None:
        """Note a completed step: recovery, if there was one, succeeded; after many, memory may be ample again."""
        if self.retries:
            wait = self.retries * self._cfg.train.oom.cooldown_sec
            self._logger.info(
                f"[{self._label}] step {step} went through with micro-batches {self.cut} after {self.retries} "
                f"failure(s); freeing and deciding took {self._busy_s:.2f} s, waiting {wait:g} s"
            )
            self.retries, self._busy_s = 0, 0.0
            self._tb.add_scalar(f"{self._prefix}oom/retries", 0, step)
        self._clean_steps += 1
        if self._regrow_wait and self._clean_steps >= self._regrow_wait:
            self._regrow(step)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: a resume neither searches nor fails its way down again."""
        return {
            "configured": asdict(self.configured),
            "cut": asdict(self.cut),
            "largest": asdict(self.largest),
            "total": self.total,
            "clean_steps": self._clean_steps,
            "regrow_wait": self._regrow_wait,
            "grown_to": self._grown_to,
        }

    def load_state(self, state: dict[str, Any]) -> bool:
        """Go on with the cut a checkpoint kept.

        Returns:
            False when the configuration was changed since, so that today's is used instead.
        """
        self.total = state["total"]
        if Cut(**state["configured"]) != self.configured:
            return False
        self.cut, self.largest = Cut(**state["cut"]), Cut(**state["largest"])
        self._clean_steps, self._grown_to = state["clean_steps"], state["grown_to"]
        if self._regrow_wait and state["regrow_wait"]:
            self._regrow_wait = state["regrow_wait"]
        self.is_restored = True
        return True

    def _regrow(self, step: int) -> None:
        before = self.cut
        if before.batch_size * 2 > self.largest.batch_size or before.grad_accum % 2:
            return
        self._clean_steps = 0
        self.cut = replace(before, batch_size=before.batch_size * 2, grad_accum=before.grad_accum // 2)
        self._grown_to = self.cut.batch_size
        self._logger.info(f"[{self._label}] {self._regrow_wait} clean steps: micro-batches {before} -> {self.cut}")
        self._decide(f"{self._label}: cut", before, self.cut, f"{self._regrow_wait} clean steps before step {step + 1}")

    def _floor_error(self, failure: str, step: int, decision: dict[str, Any]) -> OutOfMemoryFloorError:
        oom = self._cfg.train.oom
        why = decision.get("reason", f"train.oom.max_retries is {oom.max_retries} failures in a row")
        self._logger.error(f"[{self._label}] step {step}: {decision['action']}, {why}")
        return OutOfMemoryFloorError(
            f"[{self._label}] step {step} ran out of memory with micro-batches {self.cut}: {why}. Last: {failure}. "
            "Close other programs that use the memory; train in a new paths.exp_dir with a smaller model.image_size or "
            "detection.image_size; or raise train.oom.max_retries or lower train.oom.min_batch."
        )
