"""An experiment that has completed stage 4, as far as the final test looks at it, and an evaluation that is none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pillsnap.config.loading import load_config
from pillsnap.data.loaders import TwoStageLoaders, build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.stores import Stores
from pillsnap.data.twostage import load_data
from pillsnap.evaluation.final_test import BEST_FILES
from pillsnap.evaluation.test_ledger import LEDGER_NAME
from pillsnap.manifest import seal
from tests.builders import write_yolo

REPOSITORY = Path(__file__).parents[3]
SPEC = ClassifierInput(size_px=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), frame_fit="letterbox")
FIGURES: dict[str, dict[str, Any]] = {
    split: {
        "split": split,
        "classification": {"acc": 0.95, "macro_f1": macro_f1, "top5": 1.0, "n": 2},
        "detection": {"mAP@0.5": 0.9, "mAP@0.5:0.95": 0.7, "precision": 1.0, "recall": 1.0, "n_boxes": 2},
    }
    for split, macro_f1 in (("val", 0.97), ("test", 0.94))
}


def completed_experiment(tmp_path: Path, *words: str, name: str = "exp", is_completed: bool = True) -> DictConfig:
    """Write the checkpoints of a completed training beside a data set with a test part; return its configuration."""
    root = tmp_path / "data"
    if not root.exists():
        write_yolo(root)
    exp_dir = tmp_path / name
    cfg = load_config(
        REPOSITORY / "configs" / "demo.yaml",
        [
            f"paths.exp_dir={exp_dir}",
            f"data.root={root}",
            "data.synthetic=null",
            "data.split.policy=given",
            "data.detection.images=all",
            "data.progressive_validation.min_images_per_class=0",
            "dataloader.num_workers=0",
            *words,
        ],
    )
    (exp_dir / "checkpoints").mkdir(parents=True)
    (exp_dir / "reports").mkdir()
    for task in cfg.train.tasks:
        (exp_dir / BEST_FILES[task]).write_text(f"{task} of {name}")
    manifest = seal({"moments": [], "completed": is_completed})
    (exp_dir / "checkpoints" / "manifest.json").write_text(json.dumps(manifest))
    return cfg


def loaders_of(cfg: DictConfig) -> TwoStageLoaders:
    return build_loaders(load_data(cfg), cfg, SPEC, Stores.none())


@dataclass
class FakeEvaluation:
    """Takes the place of `SplitEvaluation`: answers with `figures`, and notes what was asked of it."""

    figures: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(FIGURES))
    splits: list[str] = field(default_factory=list)
    uses_at_test: list[Any] = field(default_factory=list)
    """What the ledger on the disk listed when the test split was about to be read."""
    error: BaseException | None = None
    """Raised in place of an answer for the test split."""

    def __call__(self, _cfg: DictConfig, _data: object, exp_dir: Path, *_place: object) -> FakeEvaluation:
        self._exp_dir = exp_dir
        return self

    def run(self, split: str) -> dict[str, Any]:
        self.splits.append(split)
        if split == "test":
            self.uses_at_test = json.loads((self._exp_dir / LEDGER_NAME).read_text())["uses"]
            if self.error is not None:
                raise self.error
        return self.figures[split]
