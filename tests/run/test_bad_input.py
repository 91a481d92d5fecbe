"""Bad input, as a user would hand it in: the message, the exit code, and that nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from pillsnap.cli.train import main
from pillsnap.config.loading import load_config
from pillsnap.errors import CheckpointError, ConfigError, DataError, ModelError
from pillsnap.jsonfile import read_json
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from tests.builders import write_folders
from tests.run.conftest import FinishedRun
from tests.run.tiny import REPOSITORY, tiny_config, tiny_words

DEMO = str(REPOSITORY / "configs" / "demo.yaml")
FOLDERS = ("data.synthetic=null", "data.reader=folders", "train.tasks=[classification]")


def _run(words: list[str], capsys: pytest.CaptureFixture[str], config: str = DEMO) -> tuple[int, str]:
    code = main(["--cfg", config, *words])
    return code, capsys.readouterr().err.replace("\n", " ")


@pytest.mark.req("UTL-1", "SUC-1")
def test_a_wrong_key_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = _run([f"paths.exp_dir={tmp_path / 'exp'}", "train.batch_szie=64"], capsys)
    assert code == 2
    assert "train.batch_size" in said
    assert not (tmp_path / "exp").exists()


@pytest.mark.req("CLI-1", "SUC-1", "DAT-2")
def test_an_absent_data_root_ends_with_exit_code_3_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"paths.data_root={tmp_path / 'nowhere'}", f"paths.exp_dir={tmp_path / 'exp'}", "train.batch_size=128"]
    code, said = _run([*words, "dataloader.num_workers=12"], capsys, str(REPOSITORY / "config.yaml"))
    assert code == 3
    assert str(tmp_path / "nowhere") in said
    assert "labels" in said
    assert "scripts/train.sh --demo" in said
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_ends_with_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    code, said = _run(_folder_words(tmp_path, tmp_path / "empty"), capsys)
    assert code == 3
    assert str(tmp_path / "empty") in said


def _folder_words(tmp_path: Path, root: Path) -> list[str]:
    return [word for word in tiny_words(tmp_path / "exp", root, *FOLDERS) if not word.startswith("data.synthetic.")]


def _folder_config(tmp_path: Path, root: Path, *more: str) -> DictConfig:
    return load_config(DEMO, [*_folder_words(tmp_path, root), *more])


def _truncate(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])


def test_one_class_only_is_an_error(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", {"aspirin": 8})
    with pytest.raises(DataError, match="1 class.es. on its training side.*A classifier needs two or more"):
        run_training(_folder_config(tmp_path, root))


def test_a_class_with_one_picture_trains(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", {"aspirin": 8, "ibuprofen": 8, "rare": 1})
    result = run_training(_folder_config(tmp_path, root, "train.classification.epochs=1"))
    assert result.figures["classification"]["n"] > 0


def test_detection_without_boxes_is_an_error_that_names_both_ways_out(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", {"aspirin": 8, "ibuprofen": 8})
    with pytest.raises(DataError, match="data.detection.images=all.*train.tasks=.classification."):
        run_training(_folder_config(tmp_path, root, "train.tasks=[detection]"))


@pytest.mark.req("DAT-2")
def test_broken_and_odd_pictures_are_skipped_counted_and_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos 약", {"aspirin": 12, "ibuprofen": 12})
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    odd = {
        "clear.png": Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])),
        "deep.png": Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257),
        "grey.png": Image.fromarray(pixels[:, :, 1]),
        "print.jpg": Image.fromarray(pixels).convert("CMYK"),
    }
    for name, image in odd.items():
        image.save(root / "aspirin" / name)
    Image.fromarray(pixels).save(root / "ibuprofen" / "cut.png")
    _truncate(root / "ibuprofen" / "cut.png")
    words = ("train.classification.epochs=2", "dataloader.drop_last=false", "data.max_corruption=0.1")
    run_training(_folder_config(tmp_path, root, *words))
    log = (tmp_path / "exp" / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    assert "cut.png cannot be decoded" in log
    assert not [name for name in odd if name in log]
    facts = read_json(tmp_path / "exp" / "reports" / "run.json")
    assert facts["tasks"]["classification"]["skipped"] + facts["evaluation"]["classification"]["n_broken"] > 0
    assert facts["data"]["damaged_files"] == {"truncated_image": 1}
    metrics = read_json(tmp_path / "exp" / "reports" / "metrics.json")
    assert metrics["skipped"] == {"truncated_image": 1}
    assert metrics["skipped_details"]["examples"] == {"truncated_image": ["ibuprofen/cut.png"]}


def test_a_split_with_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", {"aspirin": 6, "ibuprofen": 6})
    for photo in root.rglob("*.jpg"):
        _truncate(photo)
    with pytest.raises(DataError, match="could be decoded; at least one is needed"):
        run_training(_folder_config(tmp_path, root, "data.max_corruption=1"))


@pytest.mark.req("PRC-7")
def test_pretrained_weights_without_a_network_are_an_error_with_two_ways_out(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="cannot be fetched.*model.weights=/path.*model.pretrained=false"):
        run_training(
            tiny_config(tmp_path / "exp", data_root, "model.pretrained=true", "model.backbone=mobilenetv3_small_100")
        )


@pytest.mark.req("CKP-2")
@pytest.mark.parametrize(
    ("override", "says"),
    [
        pytest.param(
            "model.backbone=resnet10t",
            "model.backbone = test_resnet, this run has",
            id="backbone",
        ),
        pytest.param(
            "detection.model_size=s", "detection.model_size = n, this run has detection.model_size = s", id="detector"
        ),
        pytest.param("model.image_size=48", "model.image_size = 32, this run has model.image_size = 48", id="input"),
    ],
)
def test_a_checkpoint_of_another_model_is_not_resumed(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, override: str, says: str
) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    with pytest.raises(CheckpointError, match=says):
        run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last", override))


@pytest.mark.req("CKP-2", "DAT-5")
def test_a_checkpoint_of_another_class_map_is_not_resumed(finished_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    words = ("data.synthetic.seed=7", "train.resume=last")
    with pytest.raises(CheckpointError, match="has class map = .*, this run has class map = "):
        run_training(tiny_config(tmp_path / "exp", tmp_path / "others", *words))


@pytest.mark.req("CKP-2")
def test_resuming_where_nothing_is_warns_and_starts(data_root: Path, tmp_path: Path) -> None:
    words = ("train.resume=last", "train.tasks=[classification]", "train.classification.epochs=1")
    run_training(tiny_config(tmp_path / "exp", data_root, *words))
    assert "holds no checkpoint: starting anew" in (tmp_path / "exp" / "logs" / "pillsnap.log").read_text()


@pytest.mark.req("CKP-2")
def test_a_used_experiment_is_not_overwritten(finished_run: FinishedRun, data_root: Path) -> None:
    before = (finished_run.exp_dir / "checkpoints" / "last.pt").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="train.resume=last, or start in another folder with paths.exp_dir=DIR"):
        run_training(tiny_config(finished_run.exp_dir, data_root))
    assert (finished_run.exp_dir / "checkpoints" / "last.pt").stat().st_mtime_ns == before


@pytest.mark.req("CKP-2")
def test_a_refused_resume_leaves_the_experiment_as_it_was(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    before = (tmp_path / "exp" / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match="has train.seed = 42, this run has train.seed = 7"):
        run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last", "train.seed=7"))
    assert (tmp_path / "exp" / "config.yaml").read_text() == before


@pytest.mark.req("CKP-2", "DAT-1")
def test_another_split_is_not_resumed(finished_run: FinishedRun, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    with pytest.raises(CheckpointError, match="has data split = .*, this run has data split = "):
        run_training(tiny_config(tmp_path / "exp", data_root, "train.resume=last", "data.split.seed=7"))


@pytest.mark.req("DAT-2")
def test_an_experiment_inside_the_data_is_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", {"aspirin": 8, "ibuprofen": 8})
    with pytest.raises(ConfigError, match="inside the pictures of .*photos"):
        run_training(_folder_config(tmp_path, root, f"paths.exp_dir={root / 'exp'}"))
    assert not (root / "exp" / "checkpoints").exists()


@pytest.mark.req("DAT-2")
def test_training_on_nothing_but_broken_pictures_is_an_error_and_no_success(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 3)):
        write_folders(tmp_path / "photos" / part, {"aspirin": count, "ibuprofen": count})
    for photo in (tmp_path / "photos" / "train").rglob("*.jpg"):
        _truncate(photo)
    words = ("data.split.policy=given", "data.split.leakage=warn", "data.max_corruption=1")
    with pytest.raises(DataError, match=r"none of the \d+ pictures of epoch 1 could be decoded"):
        run_training(_folder_config(tmp_path, tmp_path / "photos", *words))


LEAVES_AN_ITERATOR = """
import sys
from pillsnap.data.loaders import build_dataloaders_twostage
from tests.run.tiny import tiny_config
from pathlib import Path
loaders = build_dataloaders_twostage(tiny_config(Path(sys.argv[1]), Path(sys.argv[2]), "dataloader.num_workers=1"))
batches = iter(loaders.cls_train)
next(batches)
raise ValueError("an error of the program")
"""


def test_an_error_of_the_program_does_not_leave_it_hanging_on_its_workers(data_root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", LEAVES_AN_ITERATOR, str(tmp_path / "exp"), str(data_root)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "an error of the program" in done.stderr


@pytest.mark.req("DAT-1")
def test_num_classes_that_disagree_with_the_data_are_an_error_at_stage_4(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model.num_classes is 9, but the training data holds 5 classes"):
        run_training(tiny_config(tmp_path / "exp", data_root, "model.num_classes=9"))


def _start(exp_dir: Path, data_root: Path, *more: str) -> subprocess.Popen[str]:
    words = tiny_words(exp_dir, data_root, "train.classification.epochs=200", "train.detection.epochs=200", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", "--cfg", DEMO, *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


@pytest.mark.req("SUC-1", "CKP-2")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_saves_a_checkpoint_and_ends_with_exit_code_130(
    data_root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = _start(tmp_path / "exp", data_root, "dataloader.num_workers=1")
    assert process.stdout is not None
    for line in process.stdout:
        if "[train]" in line:
            break
    os.killpg(process.pid, number)  # a terminal and a service manager signal the whole group, workers included
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "train.resume=last" in errors
    assert "Traceback" not in errors
    assert load_ckpt(tmp_path / "exp" / "checkpoints" / "last.pt")["clock"]["step"] > 0


@pytest.mark.req("CKP-3")
def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(
    finished_run: FinishedRun, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_run.exp_dir, tmp_path / "exp")
    last = tmp_path / "exp" / "checkpoints" / "last.pt"
    before = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    words = tiny_words(tmp_path / "exp", data_root, "train.resume=last", "train.classification.epochs=3")
    try:
        # No file may grow past one megabyte: logs and tables fit, checkpoints do not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        code, said = _run(words, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 1
    assert "could not be written" in said
    assert "The last good checkpoint is untouched" in said
    assert last.read_bytes() == before
