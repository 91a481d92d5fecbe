"""The smallest configuration that goes the whole way: five synthetic drugs, two tiny models, seconds on a CPU."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pillsnap.config.loading import load_config

REPOSITORY = Path(__file__).parents[2]

TINY = (
    "data.synthetic.num_drugs=5",
    "data.synthetic.singles_per_drug=8",
    "data.synthetic.num_combos=21",
    "data.synthetic.width=160",
    "data.synthetic.height=200",
    "data.synthetic.num_unknown_drugs=2",
    "model.image_size=32",
    "detection.image_size=64",
    "train.batch_size=8",
    "train.warmup_steps=2",
    "train.classification.epochs=2",
    "train.detection.epochs=2",
    "train.detection.batch_size=4",
    "train.detection.augment.close_mosaic_epochs=1",
    "dataloader.num_workers=0",
    "logging.step_log_interval=2",
    "optimization_advisor.run_after_training=false",
)


def tiny_words(exp_dir: Path, data_root: Path, *overrides: str) -> list[str]:
    """Return the command line words of a tiny run; data lie apart so that runs can share them."""
    return [*TINY, f"paths.exp_dir={exp_dir}", f"data.root={data_root}", *overrides]


def tiny_config(exp_dir: Path, data_root: Path, *overrides: str) -> DictConfig:
    """Return the configuration of a tiny run."""
    return load_config(REPOSITORY / "configs" / "demo.yaml", tiny_words(exp_dir, data_root, *overrides))
