"""Whole runs with a pixel store: what it changes (nothing but time), what is said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pillsnap.data.loaders import build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.ram_plan import Machine, RamDemand, RamPlan, require_fit
from pillsnap.data.twostage import load_data
from pillsnap.errors import ConfigError
from pillsnap.training import memory_plan
from pillsnap.training.run import run_training
from tests.run.conftest import FinishedRun
from tests.run.tiny import tiny_config

CLASSIFIER = ("train.tasks=[classification]", "train.classification.auto_batch_tune=false")

SPEC = ClassifierInput(size_px=32, mean=(0.5,) * 3, std=(0.5,) * 3, frame_fit="center")


def _weights(exp_dir: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(exp_dir / "checkpoints" / "last.pt", weights_only=True)["model_state"]
    return state


@pytest.mark.req("DAT-3")
@pytest.mark.parametrize(
    "policy",
    [("mmap", "false"), ("none", "true"), ("auto", "false"), ("hotset", "false")],
    ids=["mmap", "LMDB", "auto", "hot set, decoded before the first step"],
)
def test_the_store_changes_no_weight(policy: tuple[str, str], data_root: Path, tmp_path: Path) -> None:
    store = "dataloader.ram_optimization"
    without = tiny_config(tmp_path / "without", data_root, *CLASSIFIER, f"{store}.cache_policy=none")
    run_training(without)
    words = (f"{store}.cache_policy={policy[0]}", f"{store}.use_lmdb={policy[1]}", f"{store}.preload_samples=40")
    run_training(tiny_config(tmp_path / "with", data_root, *CLASSIFIER, *words))
    expected, found = _weights(tmp_path / "without"), _weights(tmp_path / "with")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.req("DAT-3")
def test_the_plan_of_the_memory_is_printed_and_kept(finished_run: FinishedRun) -> None:
    assert "memory plan:" in finished_run.log
    assert "hot set" in finished_run.log
    facts = json.loads((finished_run.exp_dir / "reports" / "run.json").read_text())
    plan = facts["memory_plan"]
    assert sum(plan[part] for part in plan if part != "total") == plan["total"]
    assert 0 < plan["hot_set"] < 50e6
    stores = facts["pixel_stores"]
    assert stores["classification-train"]["in_ram"] == stores["classification-train"]["entries"] > 0
    assert set(stores) == {f"{task}-{split}" for task in ("classification", "detection") for split in ("train", "val")}


@pytest.mark.req("DAT-3")
def test_a_plan_that_does_not_fit_is_refused_with_what_would(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "measure_machine", lambda: Machine(total=1_000_000_000, in_use=999_900_000))
    with pytest.raises(ConfigError, match=r"hotset_size_images=\d+"):
        run_training(tiny_config(tmp_path / "exp", data_root, *CLASSIFIER))


@pytest.mark.req("DAT-3")
def test_what_workers_and_batches_take_is_in_the_plan(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[RamDemand] = []

    def note(machine: Machine, demand: RamDemand) -> RamPlan:
        plans.append(demand)
        return require_fit(machine, demand)

    monkeypatch.setattr(memory_plan, "require_fit", note)
    run_training(tiny_config(tmp_path / "exp", data_root, *CLASSIFIER, "dataloader.num_workers=1"))
    training, validation = plans[0].loaders
    assert (training.num_workers, training.batch_bytes) == (1, 8 * 32 * 32 * 3)
    assert validation.num_workers == 1
    assert plans[0].worker_bytes == memory_plan.WORKER_BYTES


@pytest.mark.req("DAT-3", "WRK-1")
def test_only_numbers_of_workers_that_fit_are_tried(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config(tmp_path / "exp", data_root, *CLASSIFIER, "dataloader.num_workers=2")
    loaders = build_loaders(load_data(cfg), cfg, SPEC)
    monkeypatch.setattr(memory_plan, "measure_machine", lambda: Machine(total=4_000_000_000, in_use=500_000_000))
    plan, fitting = memory_plan.plan_memory(loaders, {"classification": 32}, [1, 2, 4, 8, 16])
    loaders.meta.stores.close()
    assert fitting == [1, 2, 4]  # training and validation have as many each
    assert plan.workers == 2 * memory_plan.WORKER_BYTES
