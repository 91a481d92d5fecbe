from pathlib import Path

import pytest

from pillsnap.config.loading import load_config
from tests.unit.config.builders import REPOSITORY, ROOT_CONFIG, report_of, write_child

pytestmark = pytest.mark.req("UTL-1")

STOPPING = "train.early_stopping"
COMMON = "optimization.channels_last"
OWN = "train.classification.channels_last"
RAM = "dataloader.ram_optimization"


@pytest.mark.parametrize(
    ("overrides", "key", "text"),
    [
        (
            ["data.split.val_fraction=0.6", "data.split.test_fraction=0.4"],
            "data.split.val_fraction and data.split.test_fraction",
            "they are 0.6 and 0.4, which leaves nothing to train on; their sum must be below 1",
        ),
        (
            ["data.split.policy=given", "data.reader=aihub576"],
            "data.split.policy and data.reader",
            "the Validation part of AI Hub 576 holds other drugs than its Training part; set data.split.policy=groups",
        ),
        (
            ["data.reader=manifest"],
            "data.reader and data.manifest",
            "there is no manifest to read; set data.manifest=FILE.csv or data.reader=auto",
        ),
        (
            [f"{STOPPING}.monitor.classification=val_loss"],
            f"{STOPPING}.monitor.classification and {STOPPING}.mode and train.tasks",
            f"of val_loss, lower is better, but mode is max; set {STOPPING}.mode=min",
        ),
        (
            [f"{STOPPING}.mode=min", "train.tasks=[classification]"],
            f"{STOPPING}.monitor.classification and {STOPPING}.mode and train.tasks",
            f"of macro_f1, higher is better, but mode is min; set {STOPPING}.mode=max",
        ),
        (
            [f"{STOPPING}.mode=min", "train.tasks=[detection]"],
            f"{STOPPING}.monitor.detection and {STOPPING}.mode and train.tasks",
            f"of mAP@0.5, higher is better, but mode is min for both tasks; set {STOPPING}.mode=max,"
            " or leave detection out of train.tasks",
        ),
        (
            ["data.split.unknown_classes=[K-1, sky]", "data.ignore_classes=[sky]"],
            "data.split.unknown_classes and data.ignore_classes",
            "sky is in both; a drug kept from training is a drug, what is ignored is none: leave it out of one of them",
        ),
        (
            ["data.classification.sampling=balanced"],
            "data.classification.sampling and loss.use_class_weights",
            "classes shown equally often need no weights, and both together favour rare classes twice; set"
            " loss.use_class_weights=false or data.classification.sampling=natural",
        ),
        (
            ["data.classification.combo_share=0.2", "data.classification.combo_crops=false"],
            "data.classification.combo_share and data.classification.combo_crops",
            "a share of 0.2 is asked for crops that are not used; set data.classification.combo_crops=true or"
            " data.classification.combo_share=null",
        ),
        (
            [f"{RAM}.cache_policy=mmap", f"{RAM}.use_lmdb=true"],
            f"{RAM}.cache_policy and {RAM}.use_lmdb",
            "both keep every picture on the disk; set use_lmdb=false, or cache_policy=hotset or none",
        ),
        (
            [f"{RAM}.cache_policy=auto", f"{RAM}.use_lmdb=true"],
            f"{RAM}.cache_policy and {RAM}.use_lmdb",
            "auto decides by itself whether there is an LMDB; set use_lmdb=false, or cache_policy=hotset or none",
        ),
        (
            [f"{RAM}.cache_policy=auto", f"{RAM}.lmdb_codec=jpeg"],
            f"{RAM}.lmdb_codec and {RAM}.use_lmdb and {RAM}.cache_policy",
            "auto keeps pictures without loss; set lmdb_codec=lossless, or cache_policy=hotset and use_lmdb=true",
        ),
        (
            [f"{RAM}.lmdb_codec=jpeg"],
            f"{RAM}.lmdb_codec and {RAM}.use_lmdb and {RAM}.cache_policy",
            "there is no LMDB whose pictures could be packed; set use_lmdb=true or lmdb_codec=lossless",
        ),
    ],
    ids=[
        "fractions",
        "given-aihub",
        "no manifest",
        "val_loss-max",
        "macro_f1-min",
        "map-min",
        "unknown-ignored",
        "balanced-weights",
        "share-crops",
        "mmap-lmdb",
        "auto-lmdb",
        "auto-jpeg",
        "jpeg-no lmdb",
    ],
)
def test_values_that_cannot_stand_together_are_reported(overrides: list[str], key: str, text: str) -> None:
    (line,) = report_of(ROOT_CONFIG, overrides)
    assert "command line" in line
    assert line.endswith(f": {key}: {text}")


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.split.policy=given", "a synthetic data set has no parts of its own; set data.split.policy=groups"),
        ("data.reader=yolo", "a synthetic data set has the AI Hub layout, which the reader yolo cannot read"),
    ],
)
def test_a_synthetic_data_set_fits_its_layout_only(override: str, text: str) -> None:
    (line,) = report_of(REPOSITORY / "configs" / "demo.yaml", [override])
    assert text in line


@pytest.mark.parametrize("section", ["model", "detection"])
def test_weights_must_be_a_file(tmp_path: Path, section: str) -> None:
    (line,) = report_of(ROOT_CONFIG, [f"{section}.weights={tmp_path}/gone.pt"])
    text = f"there is no file {tmp_path}/gone.pt; give the path of a weights file, or null"
    assert line == f"command line: {section}.weights: {text}"


def test_weights_beside_pretrained_are_no_contradiction(tmp_path: Path) -> None:
    (tmp_path / "own.pt").touch()
    assert load_config(ROOT_CONFIG, [f"model.weights={tmp_path}/own.pt"]).model.pretrained is True


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataloader.num_workers=0"],
        ["train.tasks=[classification]"],
        ["train.tasks=[classification]", f"{STOPPING}.monitor.classification=val_loss", f"{STOPPING}.mode=min"],
    ],
    ids=["workers-kept-without-workers", "interleaved-single-task", "val_loss-min"],
)
def test_settings_without_effect_are_no_contradiction(overrides: list[str]) -> None:
    load_config(ROOT_CONFIG, overrides)


def test_contradictions_are_reported_beside_other_mistakes() -> None:
    lines = report_of(ROOT_CONFIG, ["train.lr=0", "data.split.policy=given", "data.reader=aihub576"])
    assert len(lines) == 2


@pytest.mark.req("CFG-1")
def test_two_memory_formats_in_one_file_are_reported_with_both_lines(tmp_path: Path) -> None:
    child = write_child(tmp_path, f"{COMMON}: true\n{OWN}: false\n")
    text = "they mean the same but are false and true; set only one"
    assert report_of(child) == [f"{child}:3 and {child}:2: {OWN} and {COMMON}: {text}"]


@pytest.mark.req("CFG-1")
def test_two_memory_formats_on_the_command_line_are_reported() -> None:
    (line,) = report_of(ROOT_CONFIG, [f"{COMMON}=false", f"{OWN}=true"])
    assert line == f"command line: {OWN} and {COMMON}: they mean the same but are true and false; set only one"


@pytest.mark.req("CFG-1")
@pytest.mark.parametrize("key", [COMMON, OWN])
def test_the_memory_format_set_in_the_later_layer_holds_for_both_keys(tmp_path: Path, key: str) -> None:
    child = write_child(tmp_path, f"{key}: false\n")
    from_file, from_command_line = load_config(child), load_config(child, [f"{COMMON}=true"])
    assert (from_file.optimization.channels_last, from_file.train.classification.channels_last) == (False, False)
    assert from_command_line.optimization.channels_last is True
    assert from_command_line.train.classification.channels_last is True
