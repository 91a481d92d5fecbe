"""The search for micro-batches with both tasks resident: what it runs, what it changes, and what it leaves alone."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.data.batches import DetectionBatch
from pillsnap.errors import InterruptedRunError, OutOfMemoryFloorError
from pillsnap.memory import DeviceMemory
from pillsnap.training import auto_batch, probe
from pillsnap.training.auto_batch import tune_batch_sizes
from pillsnap.training.batch_size import SEARCH_LIMIT_S
from pillsnap.training.loop import train_step
from pillsnap.training.oom import oom_recovery_state_machine
from pillsnap.training.recovery import Cut
from pillsnap.training.task import Task
from tests.run.tiny import REPOSITORY, tiny_config
from tests.run.tiny_tasks import TinyTasks, build_tiny_tasks, fingerprint

AMPLE_GB = 10_000.0  # a limit, so that there is a search, which nothing real runs into
ENFORCED = DeviceMemory.enforced
Build = Callable[..., TinyTasks]


@pytest.fixture
def build(data_root: Path, tmp_path: Path) -> Build:
    """Return a function that builds both tasks from the tiny configuration and overrides."""

    def build_with(*words: str, limit_gb: float | None = AMPLE_GB) -> TinyTasks:
        return build_tiny_tasks(tiny_config(tmp_path / "exp", data_root, *words), limit_gb)

    return build_with


@contextmanager
def _not_enforced(self: DeviceMemory, share: float = 1.0) -> Iterator[None]:
    yield


@pytest.fixture(autouse=True, scope="module")
def _few_objects_to_collect() -> Iterator[None]:
    """Keep what the libraries made at import out of every collection, which takes a third of a second otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_real_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the limit out where nothing runs into it: under it a CPU computes several times slower."""
    monkeypatch.setattr(DeviceMemory, "enforced", _not_enforced)


@pytest.fixture(autouse=True)
def _equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every size take one second, so that the search goes down to the smallest whatever else the machine does."""

    def one_step(call: Callable[[], object], device: torch.device) -> float:
        call()
        return 1.0

    monkeypatch.setattr(probe, "timed", one_step)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("pillsnap"), "propagate", True)
    caplog.set_level(logging.INFO, "pillsnap")
    return caplog


def _watch(task: Task, before: Callable[[Any], None]) -> None:
    """Call `before` with every slice whose loss is computed."""
    plain = task.parts.loss

    def watched(part: Any) -> torch.Tensor:
        before(part)
        return plain(part)

    task.parts.loss = watched


def _limit(task: Task, room: int) -> None:
    """Let slices of more than `room` samples run out of memory when their forward pass is done."""
    plain = task.parts.loss

    def limited(part: Any) -> torch.Tensor:
        value = plain(part)
        if len(part) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return value

    task.parts.loss = limited


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [path for path in before | after if before.get(path) != after.get(path)]


@pytest.mark.req("BAT-1", "BAT-3", "INT-4")
@pytest.mark.parametrize("steps", [0, 2], ids=["before training", "with optimizer state"])
@pytest.mark.parametrize("room", [100, 2], ids=["all fits", "some fail"])
def test_nothing_but_the_cut_is_changed(build: Build, steps: int, room: int) -> None:
    bench = build()
    for _ in range(steps):
        for task in bench.tasks:
            train_step(task)
    for task in bench.tasks:
        _limit(task, room)
    before = fingerprint(bench.tasks)
    assert steps or not bench.classification.parts.optimizer.state
    tune_batch_sizes(bench.tasks, bench.context)
    assert _changed(before, fingerprint(bench.tasks)) == []
    assert [task.recovery.cut for task in bench.tasks] == [Cut(1, 8), Cut(1, 4)]
    assert [task.recovery.largest for task in bench.tasks] == [Cut(1, 8), Cut(1, 4)], "regrowing stays within it"


@pytest.mark.req("BAT-3")
def test_a_training_after_a_search_is_the_training_without_one(build: Build) -> None:
    searched, plain = build("train.oom.max_grad_accum=1"), build("train.oom.max_grad_accum=1")
    tune_batch_sizes(searched.tasks, searched.context)
    for bench in (searched, plain):
        for task in bench.tasks:
            assert task.recovery.cut.grad_accum == 1
            train_step(task)
            train_step(task)
    found, expected = fingerprint(searched.tasks), fingerprint(plain.tasks)
    assert [path for path in _changed(expected, found) if "/scaler/0" not in path] == []


@pytest.mark.req("INT-4", "BAT-3")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InterruptedRunError], ids=lambda kind: kind.__name__)
def test_any_other_error_goes_through_and_leaves_both_tasks_alone(build: Build, error: type[BaseException]) -> None:
    bench = build()
    calls = []

    def fail(part: Any) -> None:
        calls.append(len(part))
        if len(calls) == 5:
            raise error("in the detector's fifth slice")

    _watch(bench.detection, fail)
    before = fingerprint(bench.tasks)
    with pytest.raises(error, match="fifth slice"):
        tune_batch_sizes(bench.tasks, bench.context)
    assert len(calls) == 5
    assert _changed(before, fingerprint(bench.tasks)) == []
    assert [task.recovery.cut for task in bench.tasks] == [Cut(8, 1), Cut(4, 1)]


@pytest.mark.req("BAT-1", "BAT-2", "BAT-3")
def test_a_cut_that_does_not_fit_is_passed_over_and_the_next_is_used(
    build: Build, heard: pytest.LogCaptureFixture
) -> None:
    bench = build("train.oom.min_batch=2")
    _limit(bench.classification, 4)
    found = tune_batch_sizes(bench.tasks, bench.context, skip=("detection",))
    assert [(one.size, one.fits) for one in found["classification"].tried] == [(8, False), (4, True), (2, True)]
    assert bench.classification.recovery.cut == found["classification"].cut == Cut(2, 4)
    assert bench.detection.recovery.cut == Cut(4, 1)
    assert bench.tb.values == [("perf/auto_batch_found", 2, 0)]
    ((what, old, new, why),) = bench.decisions
    assert (what, old, new) == ("train: cut", Cut(8, 1), Cut(2, 4))
    assert why == (
        "auto batch: the smallest of those run with at least 97% of the best speed, 8.0 images/s at 2; 8 does not fit"
    )
    assert "[train] auto batch: 8 x 1: does not fit (OutOfMemoryError: CUDA out of memory." in heard.text
    assert "[train] auto batch: 4 x 2: 8.0 images/s, peak memory not measured" in heard.text
    assert "[train] auto batch: micro-batches 8 x 1 -> 2 x 4, G 8 -> 8: the smallest" in heard.text
    assert "BatchNorm sees 2 samples" in heard.text
    assert "[auto batch] byte budget: 8800.00 GB, which are 88% of 10000.00 GB" in heard.text
    assert "[auto batch] detection: weights 0.010 GB, optimizer state 0.021 GB, average 0.010 GB" in heard.text
    assert "not measured on a CPU" in heard.text


@pytest.mark.req("BAT-2")
def test_where_memory_can_be_measured_it_is_told_per_candidate_and_for_the_step_chosen(
    build: Build, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "peak_bytes", lambda device: 2_500_000_000)  # what a GPU's allocator would say
    bench = build("train.oom.max_grad_accum=1")
    found = tune_batch_sizes(bench.tasks, bench.context)
    assert found["detection"].step_bytes == 2_500_000_000
    assert "[train/detection] auto batch: 4 x 1: 4.0 images/s, peak memory 2.50 GB" in heard.text
    assert "with activations and workspace, a step of 4 x 1 takes 2.500 GB" in heard.text


@pytest.mark.req("BAT-3")
def test_every_slice_carries_the_boxes_of_four_of_the_densest_photographs(build: Build) -> None:
    bench = build()
    pictures = bench.detection.train_loader.dataset.pictures  # type: ignore[attr-defined]
    densest = max(len(pictures.records.boxes_xyxy(int(row))) for row in pictures.rows)
    boxes = set()

    def count(part: DetectionBatch) -> None:
        flat = part.targets(torch.device("cpu"))
        boxes.update(flat["batch_idx"].long().bincount().tolist())
        assert len(flat["bboxes"]) == 4 * densest * len(part)

    _watch(bench.detection, count)
    tune_batch_sizes(bench.tasks, bench.context)
    assert densest > 1
    assert boxes == {4 * densest}


@pytest.mark.req("BAT-3")
def test_every_step_finds_the_optimizer_states_and_averages_of_both_models_resident(build: Build) -> None:
    bench = build()
    slices: list[int] = []

    def note(part: Any) -> None:
        slices.append(len(part))
        for task in bench.tasks:
            parts = task.parts
            assert len(parts.optimizer.state) == sum(1 for each in parts.model.parameters() if each.requires_grad)

    for task in bench.tasks:
        _watch(task, note)
    tune_batch_sizes(bench.tasks, bench.context)
    warm_up_and_timed = 2
    classification = [8] * 1 * warm_up_and_timed + [4] * 2 * warm_up_and_timed + [2] * 4 * warm_up_and_timed
    assert slices[:14] == classification
    assert slices[14:30] == [1] * 8 * warm_up_and_timed
    assert slices[30:] == [4] * 1 * warm_up_and_timed + [2] * 2 * warm_up_and_timed + [1] * 4 * warm_up_and_timed


@pytest.mark.req("BAT-3", "PRC-4")
def test_every_candidate_is_validated_at_its_size_with_the_average(build: Build) -> None:
    bench = build()
    validated: dict[str, list[int]] = {task.name: [] for task in bench.tasks}

    def note(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor], Any], None]:
        def hook(model: torch.nn.Module, inputs: tuple[torch.Tensor], output: Any) -> None:
            assert not model.training
            assert not torch.is_grad_enabled()
            assert inputs[0].dtype == torch.float32
            validated[name].append(len(inputs[0]))

        return hook

    for task in bench.tasks:
        assert task.parts.ema is not None
        assert task.evaluation_model is task.parts.ema.module
        task.evaluation_model.register_forward_hook(note(task.name))
    tune_batch_sizes(bench.tasks, bench.context)
    assert validated == {"classification": [8, 4, 2, 1], "detection": [4, 2, 1]}


@pytest.mark.req("BAT-3")
def test_a_candidate_whose_validation_does_not_fit_does_not_fit(build: Build) -> None:
    bench = build()

    def fail(model: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for task in bench.tasks:
        task.evaluation_model.register_forward_pre_hook(fail)
    found = tune_batch_sizes(bench.tasks, bench.context)
    assert [(one.size, one.fits) for one in found["classification"].tried] == [
        (8, False),
        (4, False),
        (2, True),
        (1, True),
    ]
    assert [one.size for one in found["detection"].tried if one.fits] == [2, 1]
    assert bench.classification.val_cut.size == 1, "validation evaluates as many at once as were run"


@pytest.mark.req("BAT-1")
def test_a_step_is_probed_with_gradients_of_a_slice_resident_during_the_next(build: Build) -> None:
    bench = build("train.detection.grad_accum_steps=16", "train.detection.auto_batch_max=8")
    has_gradients: dict[int, list[bool]] = {}

    def note(part: Any) -> None:
        parameter = next(bench.detection.parts.model.parameters())
        has_gradients.setdefault(len(part), []).append(parameter.grad is not None)

    _watch(bench.detection, note)
    found = tune_batch_sizes(bench.tasks, bench.context, skip=("classification",))
    assert [one.size for one in found["detection"].tried] == [8], "64 samples in at most 8 micro-batches of at most 8"
    assert has_gradients == {8: [False, True] * 2}, "two slices of the largest micro-batch stand for all eight"


@pytest.mark.req("BAT-1", "OOM-3")
def test_when_no_cut_fits_the_step_gets_smaller_as_recovery_would_make_it(
    build: Build, heard: pytest.LogCaptureFixture
) -> None:
    bench = build("train.oom.max_grad_accum=2")
    _limit(bench.classification, 1)
    found = tune_batch_sizes(bench.tasks, bench.context, skip=("detection",))["classification"]
    assert [(one.size, one.fits) for one in found.tried] == [(8, False), (4, False), (2, False), (1, True)]
    assert found.cut == Cut(1, 2, lr_scale=0.25, wd_scale=4.0)
    assert found.reason.startswith("global_batch_change: global_batch_change: the smallest")
    group = bench.classification.parts.optimizer.param_groups[0]
    assert group["weight_decay"] == pytest.approx(4 * bench.classification.cfg.train.weight_decay)
    assert "G 8 -> 2" in heard.text
    train_step(bench.classification)
    assert bench.classification.clock.samples == 2


@pytest.mark.req("BAT-1", "OOM-3")
def test_before_that_a_task_in_float32_is_tried_in_float16(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU; here the policy is told that the task is on one, and the step runs under float16 on the CPU."""
    monkeypatch.setattr(
        auto_batch,
        "oom_recovery_state_machine",
        lambda retries, state, cfg: oom_recovery_state_machine(retries, {**state, "is_16bit": False}, cfg),
    )
    bench = build("train.oom.max_grad_accum=2")
    calls: list[tuple[int, bool]] = []

    def fail_in_float32(part: Any) -> None:
        calls.append((len(part), torch.is_autocast_enabled("cpu")))
        if not calls[-1][1]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _watch(bench.classification, fail_in_float32)
    before = fingerprint(bench.tasks)
    found = tune_batch_sizes(bench.tasks, bench.context, skip=("detection",))["classification"]
    assert found.cut == Cut(4, 2, is_fp16=True)
    assert [one.fits for one in found.tried] == [False, False, True, True]
    assert bench.classification.parts.precision.dtype == torch.float16
    assert bench.classification.parts.scaler.is_enabled()
    changed = _changed(before, fingerprint(bench.tasks))
    assert all("classification/scaler" in path or "classification/precision" in path for path in changed)


@pytest.mark.req("BAT-1", "OOM-3", "INT-4")
def test_when_nothing_fits_the_run_ends_with_its_state_as_it_was(build: Build) -> None:
    bench = build()
    _limit(bench.detection, 0)
    before = fingerprint(bench.tasks)
    with pytest.raises(
        OutOfMemoryFloorError,
        match=r"\[train/detection\] a training step ran out of memory at every micro-batch down"
        " to 1: a micro-batch of 1 does not fit and train.oom.min_batch is 1. Last: OutOfMemoryError",
    ):
        tune_batch_sizes(bench.tasks, bench.context)
    assert _changed(before, fingerprint(bench.tasks)) == []
    assert bench.classification.recovery.cut == Cut(8, 1), "what was found for the other task is not used either"


@pytest.mark.req("BAT-3", "INT-4")
def test_models_whose_state_alone_does_not_fit_are_named(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = build()
    step = bench.detection.parts.optimizer.step

    def fail(*args: Any) -> None:
        step(*args)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench.detection.parts.optimizer, "step", fail)
    before = fingerprint(bench.tasks)
    with pytest.raises(OutOfMemoryFloorError, match="of classification and detection alone do not fit"):
        tune_batch_sizes(bench.tasks, bench.context)
    assert _changed(before, fingerprint(bench.tasks)) == []


@pytest.mark.req("BAT-1")
def test_without_a_limit_on_a_cpu_nothing_is_searched(build: Build, heard: pytest.LogCaptureFixture) -> None:
    bench = build(limit_gb=None)
    _limit(bench.classification, 0)
    assert tune_batch_sizes(bench.tasks, bench.context) == {}
    assert "[auto batch] not searched: a CPU without hardware.gpu_memory_limit_gb" in heard.text
    assert bench.classification.recovery.cut == Cut(8, 1)


@pytest.mark.req("BAT-1")
def test_tasks_that_are_skipped_or_not_to_be_tuned_are_not_searched(build: Build) -> None:
    bench = build("train.classification.auto_batch_tune=false")
    for task in bench.tasks:
        _limit(task, 0)
    assert tune_batch_sizes(bench.tasks, bench.context, skip=["detection"]) == {}
    assert (bench.decisions, bench.tb.values) == ([], [])


@pytest.mark.req("BAT-1")
def test_memory_beyond_the_headroom_fails_while_the_search_runs_and_not_after(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceMemory, "enforced", ENFORCED)
    bench = build("train.auto_batch_vram_headroom=0.5", limit_gb=1000.0)
    limits = set()
    _watch(bench.classification, lambda part: limits.add(resource.getrlimit(resource.RLIMIT_AS)[0]))
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bench.context.memory.enforced():
        whole = resource.getrlimit(resource.RLIMIT_AS)[0]
        tune_batch_sizes(bench.tasks, bench.context)
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == whole
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert limits == {whole - 500_000_000_000}


@pytest.mark.req("BAT-1", "UTL-9")
def test_compiled_models_run_plainly_while_the_search_runs(build: Build) -> None:
    bench = build()

    def compiled(*args: Any) -> Any:
        raise AssertionError("compiled for a shape that is only tried")

    bench.classification.parts.model._compiled_call_impl = compiled
    tune_batch_sizes(bench.tasks, bench.context)
    assert bench.classification.parts.model._compiled_call_impl is compiled


@pytest.mark.req("BAT-1")
def test_a_stop_that_was_asked_for_ends_the_search(build: Build) -> None:
    bench = build()
    _watch(bench.classification, lambda part: setattr(bench.context.stop, "signal_name", "SIGTERM"))
    before = fingerprint(bench.tasks)
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM"):
        tune_batch_sizes(bench.tasks, bench.context)
    assert _changed(before, fingerprint(bench.tasks)) == []


@pytest.mark.req("BAT-2")
def test_loaders_yield_the_same_samples_whatever_was_found(build: Build) -> None:
    searched, plain = build(), build()
    tune_batch_sizes(searched.tasks, searched.context)
    slices: list[int] = []
    _watch(searched.classification, lambda part: slices.append(len(part)))
    found, expected = searched.classification.next_samples(), plain.classification.next_samples()
    assert found is not None
    assert expected is not None
    assert found.sample_ids == expected.sample_ids
    searched.classification.step(found)
    assert slices == [1] * 8


@pytest.mark.slow
@pytest.mark.req("BAT-1", "BAT-3")
def test_a_real_limit_of_memory_is_found_with_both_models(data_root: Path, tmp_path: Path) -> None:
    """Under 1.3 GB of address space, of which 88 % may be used, at 200 MB a sample: 8 do not fit, 4 do."""
    command = [sys.executable, "-m", "tests.run.limited_search", str(data_root), str(tmp_path / "exp"), "1.3", "200"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    tried = {name: {size: fits for size, fits, _ in one} for name, one in result["tried"].items()}
    assert tried["classification"][8] is False
    assert tried["classification"][4] is True
    assert tried["detection"][4] is True
    assert "DefaultCPUAllocator: can't allocate memory" in result["tried"]["classification"][0][2]
    assert all(tried[name][size] for name, (size, _) in result["found"].items())
    assert result["changed"] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.req("BAT-1", "BAT-2", "BAT-3")
def test_on_a_gpu_the_search_measures_memory_and_leaves_every_bit_alone(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real limit and the real clock
    bench = build_tiny_tasks(tiny_config(tmp_path / "exp", data_root), device=torch.device("cuda"))
    before = fingerprint(bench.tasks)
    found = tune_batch_sizes(bench.tasks, bench.context)
    assert _changed(before, fingerprint(bench.tasks)) == []
    for one in found.values():
        assert one.seconds < SEARCH_LIMIT_S
        assert one.step_bytes is not None
        assert one.step_bytes > 0
