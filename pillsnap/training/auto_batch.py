"""Finding the micro-batch of each task before training, with all models of the run on the device (BAT-1 to BAT-3).

The samples of a step, G = batch_size x grad_accum_steps, are the recipe and stay; only how they are cut is searched.
A loader yields the G samples of a step whatever the cut, so loaders stay as they are. Memory beyond the headroom fails
for real while the search runs, on a GPU and, under `hardware.gpu_memory_limit_gb`, on a CPU. On a CPU the copies of
weights and optimizer state that the search puts back afterwards count towards the limit: it errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import torch

from pillsnap.errors import OutOfMemoryFloorError
from pillsnap.memory import GB, MEMORY_ERRORS, describe_failure, free_memory
from pillsnap.training.batch_size import SEARCH_LIMIT_S, BatchSizeSearch, Candidate
from pillsnap.training.byte_budget import ByteBudget
from pillsnap.training.context import RunContext
from pillsnap.training.oom import oom_recovery_state_machine
from pillsnap.training.probe import StepProbe, make_resident
from pillsnap.training.recovery import Cut, next_cut, policy_state
from pillsnap.training.schedule import TaskName
from pillsnap.training.snapshot import left_as_found
from pillsnap.training.task import Task


@dataclass(frozen=True, slots=True)
class FoundCut:
    """The cut a search ended with, and how it came to it."""

    cut: Cut
    reason: str
    tried: list[Candidate]
    """All that was run, in order; `size` is the micro-batch."""
    seconds: float
    step_bytes: int | None
    """GPU memory a step takes beside what is always there: gradients, activations, workspace. None on a CPU."""


def tune_batch_sizes(
    tasks: Sequence[Task], context: RunContext, *, skip: Collection[str] = ()
) -> dict[TaskName, FoundCut]:
    """Choose the cut of every task with `auto_batch_tune`, and let the task use it.

    Everything else about the tasks (weights, BatchNorm, optimizer state, average, scaler, clock) and the random
    generators is bit for bit as before, also when an error ends the search.

    Args:
        tasks: All tasks of the run, on the device. What is not searched still takes its memory.
        context: Gives the memory to stay within, and is told what was found.
        skip: Names of tasks that are not to be searched, such as resumed ones whose checkpoint says how they are cut.

    Returns:
        What was found; empty where there is nothing to search, such as on a CPU without a limit.

    Raises:
        OutOfMemoryFloorError: A task does not fit, however it is cut.
        DataError: Not one picture of a task can be decoded.
        InterruptedRunError: A stop was asked for.
    """
    wanted = [task for task in tasks if task.name not in skip and _is_wanted(task)]
    if not wanted:
        return {}
    memory, logger = context.memory, context.logger
    if not memory.is_bounded:
        logger.info("[auto batch] not searched: a CPU without hardware.gpu_memory_limit_gb has no limit to search for")
        return {}
    headroom = wanted[0].cfg.train.auto_batch_vram_headroom
    with left_as_found(tasks):
        searches = {task.name: _CutSearch(task, context) for task in wanted}
        with memory.enforced(headroom):
            _make_all_resident(tasks, context)
            budgets = {task.name: ByteBudget.of(task.parts) for task in tasks}
            found = {name: search.run() for name, search in searches.items()}
    free_memory()
    if memory.is_cuda:
        torch.cuda.reset_peak_memory_stats(memory.device)  # the peaks reported from here on are those of training
    for task in wanted:
        _apply(task, found[task.name], context)
    _log_budget(budgets, found, context, headroom)
    return found


def possible_cuts(cut: Cut, *, largest: int, smallest: int, max_grad_accum: int) -> list[Cut]:
    """Return the ways to cut the samples of `cut`'s step, by ascending micro-batch.

    Args:
        cut: As configured.
        largest: Largest micro-batch wanted.
        smallest: Smallest micro-batch allowed.
        max_grad_accum: Most micro-batches a step.

    Returns:
        All that keep to the bounds and leave no ragged slice; where none does, the largest without one up to `largest`.
    """
    total = cut.step_size
    sizes = [size for size in range(1, min(largest, total) + 1) if total % size == 0]
    allowed = [size for size in sizes if size >= smallest and total // size <= max_grad_accum]
    return [replace(cut, batch_size=size, grad_accum=total // size) for size in allowed or sizes[-1:]]


class _CutSearch:
    """The search of one task."""

    def __init__(self, task: Task, context: RunContext) -> None:
        """Decode the samples; memory that runs out here has nothing to do with cuts."""
        self._task = task
        self._context = context
        self._oom = task.cfg.train.oom
        self._tried: list[Candidate] = []
        self._started = 0.0
        self._cuts = possible_cuts(
            task.recovery.cut,
            largest=task.cfg.train[task.name].auto_batch_max,
            smallest=self._oom.min_batch,
            max_grad_accum=self._oom.max_grad_accum,
        )
        self._probe = StepProbe(task, self._cuts[-1].batch_size)

    def run(self) -> FoundCut:
        """Run cuts of the configured step, then, where none fits, what recovery would go down to."""
        free_memory()
        resident = torch.cuda.memory_allocated(self._context.memory.device) if self._context.memory.is_cuda else 0
        self._started = monotonic()
        cuts = self._cuts
        way_down = ""
        while (found := self._search(cuts)) is None:
            action, cuts = self._further_down(cuts)
            way_down += f"{action}: "
        cut, answer, reason = found
        step_bytes = None if answer.peak_bytes is None else answer.peak_bytes - resident
        return FoundCut(cut, way_down + reason, self._tried, monotonic() - self._started, step_bytes)

    def _search(self, cuts: Sequence[Cut]) -> tuple[Cut, Candidate, str] | None:
        by_size = {cut.batch_size: cut for cut in cuts}

        def say(candidate: Candidate) -> None:
            self._tried.append(candidate)
            self._context.logger.info(
                "[%s] auto batch: %s: %s", self._task.log_label, by_size[candidate.size], candidate
            )

        search = BatchSizeSearch(
            list(by_size),
            max(by_size),
            lambda size: self._probe(by_size[size]),
            on_candidate=say,
            limit_s=SEARCH_LIMIT_S - (monotonic() - self._started),
        )
        answer = search.run()
        return None if answer is None else (by_size[answer.size], answer, search.reason())

    def _further_down(self, cuts: Sequence[Cut]) -> tuple[str, list[Cut]]:
        """Ask recovery's policy what to try after all of `cuts` failed, and prepare the task for it.

        Raises:
            OutOfMemoryFloorError: There is nothing.
        """
        parts, cut = self._task.parts, cuts[0]
        is_16bit = parts.precision.is_amp or parts.precision.device.type != "cuda"
        decision = oom_recovery_state_machine(0, policy_state(cut, is_16bit=is_16bit), self._task.cfg)
        action = str(decision["action"])
        if "next_state" not in decision:
            raise self._floor_error(
                decision.get("reason", f"{action} with train.oom.max_retries {self._oom.max_retries}")
            )
        if action == "amp_fp16":
            parts.precision = replace(parts.precision, is_amp=True, dtype=torch.float16)
            parts.scaler = parts.precision.build_scaler()
            return action, [replace(each, is_fp16=True) for each in cuts]
        return action, [next_cut(cut, decision)]

    def _floor_error(self, why: str) -> OutOfMemoryFloorError:
        last = self._tried[-1]
        return OutOfMemoryFloorError(
            f"[{self._task.log_label}] a training step ran out of memory at every micro-batch down to {last.size}: "
            f"{why}. Last: {last.reason}. Close other programs that use the memory; train one task at a time "
            "(train.tasks); or use a smaller model.image_size or detection.image_size, or lower train.oom.min_batch."
        )


def _is_wanted(task: Task) -> bool:
    return bool(task.cfg.train[task.name].auto_batch_tune) and not task.is_finished


def _make_all_resident(tasks: Sequence[Task], context: RunContext) -> None:
    """Let all tasks take what they keep between steps; what is searched must fit beside it.

    Raises:
        OutOfMemoryFloorError: Not even that fits.
    """
    try:
        for task in tasks:
            make_resident(task)
    except MEMORY_ERRORS as error:
        if not context.memory.is_exhausted_by(error):
            raise
        failure = describe_failure(error)
    else:
        return
    raise OutOfMemoryFloorError(
        f"The weights, gradients and optimizer states of {' and '.join(task.name for task in tasks)} alone do not fit "
        f"into the memory: {failure}. Close other programs that use it, train one task at a time (train.tasks), or use "
        "a smaller model.backbone or detection.model_size."
    )


def _apply(task: Task, found: FoundCut, context: RunContext) -> None:
    before, cut = task.recovery.cut, found.cut
    task.use_cut(cut)
    context.logger.info(
        f"[{task.log_label}] auto batch: micro-batches {before} -> {cut}, G {before.step_size} -> {cut.step_size}: "
        f"{found.reason}. BatchNorm sees {cut.batch_size} samples. {len(found.tried)} run in {found.seconds:.1f} s."
    )
    context.decide(f"{task.log_label}: cut", before, cut, f"auto batch: {found.reason}")
    context.tb.add_scalar(f"{task.tb_prefix}perf/auto_batch_found", cut.batch_size, task.clock.step)


def _log_budget(
    budgets: Mapping[TaskName, ByteBudget], found: Mapping[TaskName, FoundCut], context: RunContext, headroom: float
) -> None:
    total = context.memory.total_bytes
    resident = sum(budget.resident for budget in budgets.values())
    context.logger.info(
        f"[auto batch] byte budget: {headroom * total / GB:.2f} GB, which are {headroom:.0%} of {total / GB:.2f} GB; "
        f"{resident / GB:.3f} GB are always taken"
    )
    for name, budget in budgets.items():
        context.logger.info("[auto batch] %s: %s%s", name, budget, _step_bytes(found.get(name)))


def _step_bytes(found: FoundCut | None) -> str:
    if found is None:
        return ""
    if found.step_bytes is None:
        return "; activations and workspace are not measured on a CPU"
    return f"; with activations and workspace, a step of {found.cut} takes {found.step_bytes / GB:.3f} GB"
