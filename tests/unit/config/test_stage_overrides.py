from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

import pytest
from omegaconf import DictConfig, OmegaConf

from pillsnap.config.loading import load_config, save_config
from pillsnap.config.stage_overrides import (
    apply_stage_overrides,
    apply_stage_settings,
    enable_large_dataset_optimizations,
    enable_small_dataset_optimizations,
)
from pillsnap.config.stage_precedence import GENERAL, TARGETS
from pillsnap.config.train_schema import StageKey
from pillsnap.errors import ConfigError
from tests.unit.config.builders import REPOSITORY, ROOT_CONFIG, write_child

STAGE = "data.progressive_validation.current_stage"
OVERRIDES = "train.stage_overrides"


def at_stage(stage: int, *overrides: str) -> DictConfig:
    return apply_stage_settings(load_config(ROOT_CONFIG, [f"{STAGE}={stage}", *overrides]))


def hand_made(stages: dict[Any, Any]) -> DictConfig:
    return OmegaConf.create(
        {
            "train": {"batch_size": 64, "stage_overrides": stages},
            "optimization": {"torch_compile": "none", "channels_last": True},
            "dataloader": {"num_workers": 8},
        }
    )


def edited_file(path: Path, overrides: list[str]) -> Path:
    """Return a complete file whose values stand in one place, as a user who edits config.yaml has it."""
    save_config(load_config(ROOT_CONFIG, [*overrides, "optimization.torch_compile=max-autotune"]), path)
    text = OmegaConf.load(path)
    OmegaConf.update(text, f"{OVERRIDES}.keep", [])
    OmegaConf.save(text, path)
    return path


ALL = {
    "batch_size_override": 32,
    "compile_mode": "max-autotune",
    "memory_format": "contiguous_format",
    "num_workers_override": 4,
}


@pytest.mark.req("STG-2")
@pytest.mark.parametrize("key", [3, "3", "stage_3"])
@pytest.mark.parametrize("stage", [3, "stage_3"])
def test_a_stage_and_its_section_go_by_number_or_by_name(key: int | str, stage: int | str) -> None:
    cfg = apply_stage_overrides(hand_made({key: ALL}), stage)
    found = (cfg.train.batch_size, cfg.optimization.torch_compile, cfg.dataloader.num_workers)
    assert found == (32, "max-autotune", 4)
    assert cfg.optimization.channels_last is False
    assert cfg.train.classification.channels_last is False


@pytest.mark.req("STG-2")
def test_each_change_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    apply_stage_overrides(hand_made({"stage_2": ALL}), 2)
    assert "stage 2: train.batch_size 64 -> 32" in caplog.messages
    assert "stage 2: dataloader.num_workers 8 -> 4" in caplog.messages


@pytest.mark.req("STG-2")
def test_a_stage_without_overrides_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    cfg = hand_made({"stage_2": ALL})
    assert apply_stage_overrides(cfg, 1) == cfg
    assert caplog.messages == ["stage 1: no overrides configured"]


@pytest.mark.req("STG-2")
def test_the_given_configuration_stays_and_the_new_one_is_read_only() -> None:
    before = hand_made({"stage_2": ALL})
    after = apply_stage_overrides(before, 2)
    assert before.train.batch_size == 64
    assert OmegaConf.is_readonly(after)


@pytest.mark.req("STG-2")
@pytest.mark.parametrize("stage", [0, 5, "stage_x"])
def test_an_unknown_stage_is_an_error(stage: int | str) -> None:
    with pytest.raises(ConfigError, match=f"the stage is {stage!r}; there are 1 to 4"):
        apply_stage_overrides(hand_made({}), stage)


@pytest.mark.req("STG-3")
def test_small_stages_cap_batches_and_compile_fast(tmp_path: Path) -> None:
    overrides = ["train.classification.auto_batch_max=256", "train.detection.auto_batch_max=128"]
    small = enable_small_dataset_optimizations(load_config(edited_file(tmp_path / "edited.yaml", overrides)))
    assert (small.train.classification.auto_batch_max, small.train.detection.auto_batch_max) == (96, 64)
    assert small.optimization.torch_compile == "reduce-overhead"


@pytest.mark.req("STG-3")
@pytest.mark.parametrize("mode", ["none", "reduce-overhead"])
def test_small_stages_leave_other_values_alone(mode: str) -> None:
    cfg = load_config(ROOT_CONFIG, [f"optimization.torch_compile={mode}"])
    assert enable_small_dataset_optimizations(cfg) == cfg


@pytest.mark.req("STG-3")
@pytest.mark.parametrize(("headroom", "expected"), [(0.88, 0.92), (0.90, 0.90), (0.95, 0.95)])
def test_large_stages_use_all_there_is(headroom: float, expected: float) -> None:
    cfg = OmegaConf.create(
        {
            "train": {"auto_batch_vram_headroom": headroom, "classification": {"channels_last": False}},
            "optimization": {"torch_compile": "none", "channels_last": False},
        }
    )
    large = enable_large_dataset_optimizations(cfg)
    assert large.train.auto_batch_vram_headroom == expected
    assert (large.optimization.torch_compile, large.optimization.channels_last) == ("max-autotune", True)
    assert large.train.classification.channels_last is True


@pytest.mark.req("STG-2", "STG-3")
@pytest.mark.parametrize(("stage", "mode"), [(1, "reduce-overhead"), (2, "reduce-overhead"), (3, "max-autotune")])
def test_the_production_configuration_compiles_as_its_stage_says(stage: int, mode: str) -> None:
    assert at_stage(stage).optimization.torch_compile == mode


@pytest.mark.req("STG-2", "CLI-1")
def test_the_command_line_wins_over_the_stage() -> None:
    cfg = at_stage(4, "optimization.torch_compile=none", "optimization.channels_last=false")
    assert (cfg.optimization.torch_compile, cfg.optimization.channels_last) == ("none", False)
    assert cfg.train.classification.channels_last is False
    assert cfg.train.auto_batch_vram_headroom == 0.92


@pytest.mark.req("STG-2", "CLI-1")
def test_an_override_on_the_command_line_wins_over_a_file(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  batch_size: 8\noptimization:\n  torch_compile: none\n")
    words = [f"{OVERRIDES}.stage_1.batch_size_override=16", f"{OVERRIDES}.stage_1.compile_mode=max-autotune"]
    cfg = apply_stage_settings(load_config(child, words))
    assert (cfg.train.batch_size, cfg.optimization.torch_compile) == (16, "max-autotune")


@pytest.mark.req("STG-2")
@pytest.mark.parametrize("name", ["demo.yaml", "photos.yaml"])
def test_a_file_that_extends_keeps_what_it_sets(name: str) -> None:
    cfg = load_config(REPOSITORY / "configs" / name)
    tuned = apply_stage_settings(cfg)
    assert cfg.optimization.torch_compile == tuned.optimization.torch_compile == "none"
    assert (tuned.train.batch_size, tuned.dataloader) == (cfg.train.batch_size, cfg.dataloader)


@pytest.mark.req("STG-2")
def test_what_was_settled_is_saved_with_the_run(tmp_path: Path) -> None:
    tuned = at_stage(4, "optimization.torch_compile=none")
    save_config(tuned, tmp_path / "saved.yaml")
    again = load_config(tmp_path / "saved.yaml")
    assert again == tuned
    assert apply_stage_settings(again) == tuned


@pytest.mark.req("STG-2")
def test_kept_keys_are_left_alone_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    words = [f"{OVERRIDES}.keep=[dataloader.num_workers]", f"{OVERRIDES}.stage_1.num_workers_override=2"]
    assert at_stage(1, *words).dataloader.num_workers == 8
    assert "stage 1: dataloader.num_workers stays 8 (set by the user; 2 otherwise)" in caplog.messages


@pytest.mark.req("STG-2")
def test_the_keys_that_can_be_kept_are_those_a_stage_can_change() -> None:
    changeable = GENERAL.union(*TARGETS.values())
    assert set(get_args(StageKey)) == changeable
    with pytest.raises(ConfigError, match="train.lr"):
        load_config(ROOT_CONFIG, [f"{OVERRIDES}.keep=[train.lr]"])
