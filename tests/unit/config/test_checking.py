from pathlib import Path

import pytest

from pillsnap.config.loading import load_config
from tests.unit.config.builders import ROOT_CONFIG, report_of, write_child

pytestmark = pytest.mark.req("UTL-1")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("train.batch_size=64.5", "a whole number of 1 or more"),
        ("train.batch_size=true", "a whole number of 1 or more"),
        ("train.batch_size=null", "a whole number of 1 or more"),
        ("train.detection.batch_size=0", "a whole number of 1 or more; or null"),
        ("train.classification.epochs=0", "a whole number of 1 or more"),
        ("train.lr='1e-3'", "a number above 0"),
        ("train.lr=.nan", "a number above 0"),
        ("train.lr=.inf", "a number above 0"),
        ("train.lr={a: 1}", "a number above 0"),
        ("train.deterministic=1", "true or false"),
        ("train.scheduler=linear", "one of: cosine, onecycle"),
        ("train.resume=best", "one of: last; or null"),
        ("train.ema.decay=1", "a number above 0 and below 1"),
        ("data.split.val_fraction=0", "a number above 0 and below 1"),
        ("data.split.test_fraction=1.0", "a number above 0 and below 1"),
        ("loss.label_smoothing=1", "a number of 0 or more and below 1"),
        ("data.progressive_validation.current_stage=5", "a whole number from 1 to 4"),
        ("detection.image_size=200", "a whole number of 32 or more that is a multiple of 32"),
        ("train.interleave_ratio=[1]", "a list of exactly 2 items; each item is a whole number of 1 or more"),
        ("train.interleave_ratio=[1, 0]", "a list of exactly 2 items; each item is a whole number of 1 or more"),
        (
            "train.tasks=[]",
            "a list of at least one item without repeats; each item is one of: classification, detection",
        ),
        (
            "train.tasks=[detection, detection]",
            "a list of at least one item without repeats; each item is one of: classification, detection",
        ),
        (
            "train.early_stopping.monitor.classification=mAP@0.5",
            "one of: macro_f1, acc, top5, val_loss",
        ),
        (
            "train.early_stopping.monitor.detection=macro_f1",
            "one of: mAP@0.5, mAP@0.5:0.95, precision, recall",
        ),
        ("model.backbone=''", "text (in quotes if it looks like a number) that is not empty"),
        ("paths.exp_dir=5", "the path of a file or folder"),
        ("paths.exp_dir=", "the path of a file or folder"),
        ("data.synthetic.num_drugs=1", "a whole number from 2 to 5000"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_reported(override: str, wanted: str) -> None:
    key = override.split("=")[0]
    line = next(line for line in report_of(ROOT_CONFIG, [override]) if key in line)
    assert line.startswith(f"command line: {key}: got ")
    assert line.endswith(f"; wants {wanted}")


@pytest.mark.parametrize("override", ["train.grad_clip=0", "train.grad_clip=null", "dataloader.num_workers=0"])
def test_off_switches_are_accepted(override: str) -> None:
    load_config(ROOT_CONFIG, [override])


def test_the_value_is_shown_as_yaml_and_shortened() -> None:
    (line,) = report_of(ROOT_CONFIG, [f"train.lr=[null, '5', {'x' * 80}]"])
    assert "got [null, '5', xxx" in line
    assert "x...; wants a number above 0" in line


def test_a_reference_to_no_key_is_reported_with_the_nearest_one() -> None:
    (line,) = report_of(ROOT_CONFIG, ["data.root=${paths.data_rot}/x"])
    assert line == (
        "command line: data.root: cannot resolve ${paths.data_rot}/x:"
        " Interpolation key 'paths.data_rot' not found; did you mean paths.data_root?"
    )


def test_references_in_a_circle_are_reported() -> None:
    lines = report_of(ROOT_CONFIG, ["paths.exp_dir=${paths.data_root}", "paths.data_root=${paths.exp_dir}"])
    assert "command line: paths.exp_dir: cannot resolve ${paths.data_root}: Recursive interpolation detected" in lines


def test_a_reference_with_broken_syntax_is_reported() -> None:
    (line,) = report_of(ROOT_CONFIG, ["data.root='${paths.'"])
    assert line.startswith("command line: data.root: cannot resolve ${paths.: no viable alternative")


def test_a_reference_to_a_value_of_the_wrong_type_shows_both() -> None:
    (line,) = report_of(ROOT_CONFIG, ["train.batch_size=${paths.data_root}"])
    got = "/home/max16/pillsnap_data (from ${paths.data_root})"
    assert line == f"command line: train.batch_size: got {got}; wants a whole number of 1 or more"


def test_references_inside_a_list_are_resolved() -> None:
    cfg = load_config(ROOT_CONFIG, ["train.interleave_ratio=['${train.grad_accum_steps}', 2]"])
    assert cfg.train.interleave_ratio == [1, 2]


def test_an_escaped_reference_is_refused() -> None:
    (line,) = report_of(ROOT_CONFIG, [r"data.root='\${x}'"])
    assert line.endswith("a literal '${' cannot be part of a value")


def test_a_value_that_no_reference_could_hold_is_reported_by_its_type(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  lr: !!set {a, b}\n")
    assert report_of(child) == [f"{child}:3: train.lr: got !!set {{a: null, b: null}}; wants a number above 0"]
