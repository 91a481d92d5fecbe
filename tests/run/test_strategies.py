"""Other ways to run: one task, one after the other, 16 bits, epoch by epoch."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

from pillsnap.data.loaders import build_dataloaders_twostage
from pillsnap.errors import DataError
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from src.train import (
    build_classification_model,
    build_criterion_classification,
    build_optimizer,
    build_scheduler,
    build_yolo_model,
    main,
    train_classification_stage,
    train_detection_stage,
    train_one_epoch_classification,
    train_one_epoch_detection,
    validate_classification,
    validate_detection,
)
from src.utils.core import TBWriter, load_config
from tests.run.conftest import FinishedRun
from tests.run.tiny import REPOSITORY, tiny_config, tiny_words

LOGGER = logging.getLogger("pillsnap")


@pytest.mark.req("INT-2")
def test_sequential_is_another_order_of_the_same_steps(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    run_training(tiny_config(tmp_path / "exp", data_root, "train.strategy=sequential"))
    log = (tmp_path / "exp" / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    order = re.findall(r"\[(train(?:/detection)?)\] e=\d/2 s=", log)
    assert order == sorted(order, key=["train", "train/detection"].index)
    for name in ("last.pt", "detection_last.pt"):
        one, other = (load_ckpt(exp / "checkpoints" / name) for exp in (tmp_path / "exp", finished_run.exp_dir))
        assert all(torch.equal(value, other["model_state"][key]) for key, value in one["model_state"].items()), (
            "a task's weights do not depend on the steps of the other"
        )


@pytest.mark.req("INT-2", "CKP-1")
def test_the_detector_alone_leaves_no_classifier(data_root: Path, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path / "exp", data_root, "train.detection.epochs=1")
    path = train_detection_stage(cfg, LOGGER)
    assert path == tmp_path / "exp" / "checkpoints" / "detection_best.pt"
    assert path.is_file()
    assert not (tmp_path / "exp" / "checkpoints" / "last.pt").exists()
    assert list((tmp_path / "exp" / "reports" / "detections").glob("*.png"))


@pytest.mark.req("CKP-2", "TRN-1")
def test_a_stage_of_its_own_leaves_the_other_tasks_training_where_it_was(data_root: Path, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path / "exp", data_root, "train.detection.epochs=1", "train.classification.epochs=1")
    train_classification_stage(cfg, LOGGER)
    detector = train_detection_stage(cfg, LOGGER)
    before = detector.read_bytes()
    more = ("train.resume=last", "train.tasks=[classification]", "train.classification.epochs=2")
    run_training(tiny_config(tmp_path / "exp", data_root, "train.detection.epochs=1", *more))
    run_training(tiny_config(tmp_path / "exp", data_root, "train.detection.epochs=1", "train.resume=last"))
    assert detector.read_bytes() == before
    assert load_ckpt(tmp_path / "exp" / "checkpoints" / "detection_last.pt")["epoch"] == 1
    assert load_ckpt(tmp_path / "exp" / "checkpoints" / "last.pt")["epoch"] == 2


@pytest.mark.req("CKP-2", "LOP-4")
def test_a_resume_with_a_lower_learning_rate_and_more_epochs_has_them(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    words = ("train.resume=last", "train.tasks=[classification]", "train.classification.epochs=3")
    run_training(
        tiny_config(
            tmp_path / "exp", data_root, *words, "train.lr=1e-5", "train.early_stopping.monitor.classification=acc"
        )
    )
    epochs = json.loads((tmp_path / "exp" / "reports" / "metrics.json").read_text())["history"]["classification"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[2]["lr"] <= 1e-5 < epochs[0]["lr"]


@pytest.mark.req("PRC-2", "PRC-6", "UTL-7")
def test_the_classifier_alone_in_bf16_without_ema_or_class_weights(data_root: Path, tmp_path: Path) -> None:
    words = (
        "train.classification.amp=true",
        "train.classification.amp_dtype=bf16",
        "train.ema.enabled=false",
        "loss.use_class_weights=false",
        "train.classification.channels_last=false",
        "optimization.channels_last=false",
        "train.scheduler=onecycle",
        "train.grad_accum_steps=2",
        "train.classification.epochs=1",
    )
    path = train_classification_stage(tiny_config(tmp_path / "exp", data_root, *words), LOGGER)
    content = load_ckpt(path)
    assert content["ema_state"] is None
    assert content["clock"]["step"] == 5, "66 crops, 8 a micro-batch, 2 micro-batches a step, the last partial one kept"
    assert path.name == "best.pt"


@pytest.mark.req("SUC-1", "CLI-1")
def test_the_command_ends_with_0_and_a_table_of_figures(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words(tmp_path / "exp", data_root, "train.classification.epochs=1", "train.tasks=[classification]")
    assert main(["--cfg", str(REPOSITORY / "configs" / "demo.yaml"), *words]) == 0
    said = capsys.readouterr().out
    assert "macro F1" in said
    assert "best models, test split" in said
    assert "combo_mAP_0.5: not measured, goal 0.85 not met" in said
    assert "NEEDS_IMPROVEMENT" in said
    assert str(tmp_path / "exp" / "reports" / "index.html") in said.replace("\n", "")


@pytest.mark.req("DAT-1")
def test_the_test_split_is_sealed_until_training_is_over(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    before = build_dataloaders_twostage(tiny_config(tmp_path / "exp", data_root))
    assert before.cls_test is None
    assert before.det_test is None
    with pytest.raises(DataError, match="asked for while it is sealed.*after training at stage 4"):
        before.meta.data.rows("test")
    after = build_dataloaders_twostage(tiny_config(finished_run.exp_dir, data_root))
    assert after.cls_test is not None
    assert after.det_test is not None
    assert len(after) == 7


@pytest.mark.req("DAT-1")
def test_below_stage_4_the_figures_are_of_the_val_split(data_root: Path, tmp_path: Path) -> None:
    stage = ("data.progressive_validation.current_stage=1", "model.num_classes=9", "train.classification.epochs=1")
    result = run_training(tiny_config(tmp_path / "exp", data_root, *stage, "train.tasks=[classification]"))
    assert result.figures["split"] == "val"
    metrics = json.loads(result.metrics_path.read_text())
    assert metrics.get("test") is None
    assert result.final_test is None
    assert "model.num_classes 9 -> 5" in (tmp_path / "exp" / "logs" / "pillsnap.log").read_text()


@pytest.mark.req("TRN-1", "LOP-3", "VAL-1")
def test_the_classifier_can_be_trained_epoch_by_epoch(data_root: Path, tmp_path: Path) -> None:
    from pillsnap.config.loading import for_task
    from pillsnap.training.precision import classification_precision

    cfg = tiny_config(tmp_path / "exp", data_root)
    loaders = build_dataloaders_twostage(cfg)
    assert loaders.cls_train is not None
    task = for_task(cfg, "classification")
    model = build_classification_model(cfg.model.backbone, len(loaders.meta.class_map), True, pretrained=False)
    optimizer = build_optimizer(task, model.parameters())
    scheduler = build_scheduler(task, optimizer, len(loaders.cls_train))
    criterion = build_criterion_classification(cfg, None)
    scaler = classification_precision(task, torch.device("cpu")).build_scaler()
    with TBWriter(tmp_path) as tb:
        losses = [
            train_one_epoch_classification(
                model, loaders.cls_train, optimizer, scaler, criterion, scheduler, cfg, LOGGER, tb, epoch
            )["loss"]
            for epoch in range(2)
        ]
        figures = validate_classification(model, loaders.cls_val, criterion, cfg, LOGGER, tb, 1)  # type: ignore[arg-type]
    assert losses[1] < losses[0]
    assert set(figures) == {"val_loss", "acc", "macro_f1", "top5", "confidence", "n"}


@pytest.mark.req("TRN-1", "VAL-2")
def test_the_detector_can_be_trained_epoch_by_epoch(data_root: Path, tmp_path: Path) -> None:
    cfg = load_config(REPOSITORY / "configs" / "demo.yaml", tiny_words(tmp_path / "exp", data_root))
    loaders = build_dataloaders_twostage(cfg)
    model = build_yolo_model("n", 1, lazy_load=False, pretrained=False)
    assert model is not None
    assert loaders.det_train is not None
    with TBWriter(tmp_path) as tb:
        reports = [train_one_epoch_detection(model, loaders.det_train, cfg, LOGGER, tb, epoch) for epoch in range(2)]
        figures = validate_detection(model, loaders.det_val, cfg, LOGGER, tb, 1)  # type: ignore[arg-type]
    assert reports[1]["lr"] < reports[0]["lr"], "the schedule goes on from epoch to epoch"
    assert 0 <= figures["mAP@0.5"] <= 1
