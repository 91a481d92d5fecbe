from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from pillsnap.config.keys import KEYS
from pillsnap.config.loading import load_config
from tests.unit.config.builders import REPOSITORY, ROOT_CONFIG

SHIPPED = sorted([ROOT_CONFIG, *(REPOSITORY / "configs").rglob("*.yaml"), *(REPOSITORY / "configs").rglob("*.yml")])

# Requirements, section 20; the keys of later issues arrive with them.
SPECIFIED: dict[str, Any] = {
    "paths.exp_dir": "/home/max16/pillsnap_data/exp/exp01",
    "paths.data_root": "/home/max16/pillsnap_data",
    "data.progressive_validation.current_stage": 1,
    "data.max_corruption": 0.01,
    "data.split.unknown_classes": [],
    "model.backbone": "tf_efficientnetv2_s.in21k_ft_in1k",
    "model.num_classes": 5000,
    "detection.model_size": "m",
    "detection.image_size": 640,
    "train.strategy": "interleaved",
    "train.interleave_ratio": [1, 1],
    "train.seed": 42,
    "train.deterministic": False,
    "train.resume": None,
    "train.classification.auto_batch_tune": True,
    "train.classification.auto_batch_max": 64,
    "train.detection.auto_batch_tune": True,
    "train.detection.auto_batch_max": 16,
    "train.auto_batch_vram_headroom": 0.88,
    "train.oom.max_retries": 4,
    "train.oom.max_grad_accum": 8,
    "train.oom.min_batch": 1,
    "train.oom.cooldown_sec": 2,
    "train.oom.escalate_to_fp16": True,
    "train.oom.regrow_after_steps": 0,
    "train.checkpoint_minutes": 10,
    "hardware.gpu_memory_limit_gb": None,
    "data.progressive_validation.stage_1.max_samples": 5000,
    "data.progressive_validation.stage_1.max_classes": 50,
    "data.progressive_validation.stage_2.max_samples": 25000,
    "data.progressive_validation.stage_2.max_classes": 250,
    "data.progressive_validation.stage_3.max_samples": 100000,
    "data.progressive_validation.stage_3.max_classes": 1000,
    "data.progressive_validation.stage_4.max_samples": 500000,
    "data.progressive_validation.stage_4.max_classes": 5000,
    "data.progressive_validation.stage_1.time_limit_hours": 2,
    "data.progressive_validation.stage_1.allow_success_on_time_cap": True,
    "data.progressive_validation.stage_1.min_samples_required": 1000,
    "data.progressive_validation.stage_1.min_class_coverage": 30,
    "data.progressive_validation.stage_2.time_limit_hours": 8,
    "data.progressive_validation.stage_3.time_limit_hours": 16,
    "data.progressive_validation.stage_4.time_limit_hours": 120,
    "train.lr": 0.0002,
    "train.weight_decay": 0.0001,
    "train.scheduler": "cosine",
    "train.classification.epochs": 30,
    "train.detection.epochs": 50,
    "train.classification.amp": True,
    "train.classification.amp_dtype": "auto",
    "train.classification.tf32": True,
    "train.classification.channels_last": True,
    "train.detection.tf32": True,
    "train.early_stopping.monitor.classification": "macro_f1",
    "train.early_stopping.monitor.detection": "mAP@0.5",
    "train.early_stopping.mode": "max",
    "train.early_stopping.patience": 7,
    "train.early_stopping.min_delta": 0.0,
    "train.ema.enabled": False,
    "train.ema.decay": 0.9998,
    "train.stage_overrides.stage_1.compile_mode": "reduce-overhead",
    "train.stage_overrides.stage_2.compile_mode": "reduce-overhead",
    "train.stage_overrides.stage_3.compile_mode": "max-autotune",
    "train.stage_overrides.stage_4.compile_mode": "max-autotune",
    "train.stage_overrides.stage_1.batch_size_override": None,
    "train.stage_overrides.stage_1.memory_format": None,
    "train.stage_overrides.stage_1.num_workers_override": None,
    "loss.label_smoothing": 0.1,
    "loss.use_class_weights": True,
    "optimization.torch_compile": "reduce-overhead",
    "optimization.channels_last": True,
    "dataloader.num_workers": 8,
    "dataloader.autotune_workers": True,
    "dataloader.autotune_candidates": [4, 8, 12, 16],
    "dataloader.pin_memory": True,
    "dataloader.pin_memory_device": "cuda",
    "dataloader.persistent_workers": True,
    "dataloader.prefetch_factor": 4,
    "dataloader.drop_last": True,
    "dataloader.ram_optimization.cache_policy": "hotset",
    "dataloader.ram_optimization.hotset_size_images": 60000,
    "dataloader.ram_optimization.use_lmdb": False,
    "dataloader.ram_optimization.preload_samples": 0,
    "dataloader.ram_optimization.cache_labels": True,
    "inference.lazy_load_detector": True,
    "inference.conf_threshold": 0.3,
    "inference.iou_threshold": 0.5,
    "inference.max_detections": 100,
    "inference.crop_padding": 0.1,
    "logging.step_log_interval": 10,
    "logging.profile_interval": 50,
    "optimization_advisor.run_after_training": True,
    "ui.language": "auto",
    "logging.hard_cases.confidence": 0.30,
}
# Named by the requirements without a value of their own.
PRESENT = ["batch_size", "warmup_steps", "grad_accum_steps", "grad_clip", "zero_grad_set_to_none"]


def written_keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield from written_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]


def test_there_are_shipped_configurations() -> None:
    assert len(SHIPPED) >= 3


@pytest.mark.req("UTL-1")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_config(path).train.tasks


@pytest.mark.req("CFG-1")
@pytest.mark.parametrize("key", SPECIFIED)
def test_a_specified_key_has_its_default(key: str) -> None:
    value = OmegaConf.select(load_config(ROOT_CONFIG), key)
    assert value == SPECIFIED[key]
    assert isinstance(value, bool) == isinstance(SPECIFIED[key], bool)


@pytest.mark.req("CFG-1")
@pytest.mark.parametrize("name", PRESENT)
def test_a_specified_common_value_is_present(name: str) -> None:
    assert OmegaConf.select(load_config(ROOT_CONFIG), f"train.{name}") is not None


@pytest.mark.req("CFG-1")
def test_the_production_configuration_has_exactly_the_keys_of_the_schema() -> None:
    in_schema = {key for key in KEYS.leaves if not key.startswith("data.synthetic.")} | {"data.synthetic"}
    assert set(written_keys(yaml.safe_load(ROOT_CONFIG.read_text()))) == in_schema


@pytest.mark.req("ADR-4")
def test_the_default_paths_stand_in_no_code() -> None:
    modules = [path for folder in ("pillsnap", "src") for path in (REPOSITORY / folder).rglob("*.py")]
    assert modules
    assert [path for path in modules if "/home/" in path.read_text()] == []


def test_the_demo_and_the_photos_configuration_need_no_network() -> None:
    demo, photos = (load_config(REPOSITORY / "configs" / name) for name in ("demo.yaml", "photos.yaml"))
    assert not any([demo.model.pretrained, demo.detection.pretrained])
    assert not any([photos.model.pretrained, photos.detection.pretrained])
