from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ReadonlyConfigError

from pillsnap.config.loading import config_snapshot, for_task, load_config, load_experiment_config, save_config
from pillsnap.errors import ConfigError, PillError
from tests.unit.config.builders import ROOT_CONFIG, report_of, write_child

pytestmark = pytest.mark.req("UTL-1")


@pytest.mark.req("CLI-1")
def test_the_command_line_wins_over_the_file_and_the_file_over_what_it_extends(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train: {batch_size: 32, lr: 1e-3}\ndataloader: {num_workers: 4}\n")
    cfg = load_config(child, ["train.batch_size=128", "train.resume=last"])
    assert (cfg.train.batch_size, cfg.train.lr, cfg.dataloader.num_workers) == (128, 0.001, 4)
    assert (cfg.train.resume, cfg.train.weight_decay) == ("last", 0.0001)


@pytest.mark.req("CLI-1")
def test_the_last_of_two_overrides_of_one_key_wins() -> None:
    assert load_config(ROOT_CONFIG, ["train.seed=1", "train.seed=2"]).train.seed == 2


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "0.001", ".001", "1.0e-03", "+1e-3"])
def test_every_spelling_of_a_number_is_a_number_in_a_file_and_in_an_override(tmp_path: Path, text: str) -> None:
    child = write_child(tmp_path, f"train:\n  lr: {text}\n")
    assert load_config(child).train.lr == 0.001
    assert load_config(ROOT_CONFIG, [f"train.lr={text}"]).train.lr == 0.001


@pytest.mark.req("CLI-1")
def test_overrides_are_yaml() -> None:
    overrides = ["train.tasks=[classification]", "train.grad_clip=null", "model.num_classes=", "train.ema.enabled=true"]
    cfg = load_config(ROOT_CONFIG, [*overrides, "data.root='my photos/알약'", "data.ignore_classes=[000123, Unknown]"])
    assert (cfg.train.tasks, cfg.train.grad_clip, cfg.model.num_classes) == (["classification"], None, None)
    assert (cfg.train.ema.enabled, cfg.data.root) == (True, "my photos/알약")
    assert cfg.data.ignore_classes == ["000123", "Unknown"]


def test_whole_numbers_become_floats_where_a_float_is_wanted() -> None:
    value = load_config(ROOT_CONFIG, ["train.lr=1"]).train.lr
    assert isinstance(value, float)
    assert value == 1.0


def test_a_reference_follows_an_override_of_what_it_names() -> None:
    cfg = load_config(ROOT_CONFIG, ["paths.exp_dir=runs/a", "paths.data_root=photos"])
    assert (cfg.paths.cache_dir, cfg.data.root) == ("runs/cache", "photos")


def test_the_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    cfg = load_config(ROOT_CONFIG, ["paths.exp_dir=~/exp", "paths.data_root=~/data"])
    assert (cfg.paths.exp_dir, cfg.data.root) == ("/home/someone/exp", "/home/someone/data")


def test_a_section_that_may_be_null_can_be_filled_and_emptied_by_later_layers(tmp_path: Path) -> None:
    sizes = "num_drugs: 3, singles_per_drug: 4, num_combos: 5, width: 160, height: 200, num_unknown_drugs: 0"
    child = write_child(tmp_path, f"data: {{synthetic: {{{sizes}, seed: 1}}}}\n")
    assert load_config(child, ["data.synthetic.seed=7"]).data.synthetic.seed == 7
    assert load_config(child, ["data.synthetic=null"]).data.synthetic is None
    assert load_config(ROOT_CONFIG, [f"data.synthetic={{{sizes}, seed: 2}}"]).data.synthetic.seed == 2


def test_the_result_is_read_only_and_knows_no_other_keys() -> None:
    cfg = load_config(ROOT_CONFIG)
    with pytest.raises(ReadonlyConfigError, match="read-only"):
        cfg.train.lr = 1.0
    with pytest.raises(ConfigAttributeError, match="batch_szie"):
        _ = cfg.train.batch_szie


@pytest.mark.req("CLI-1")
def test_everything_wrong_is_reported_at_once_with_its_place_and_the_nearest_key(tmp_path: Path) -> None:
    child = write_child(
        tmp_path,
        "train:\n  batch_szie: 64\n  learning_rate: 1e-3\n  epochs: 5\n  lr: fast\n"
        "trian: {seed: 1}\nloss:\n  smooth: 2\n",
    )
    assert report_of(child, ["batch_szie=3", "model.image_size=big"]) == [
        f"{child}:3: train.batch_szie: unknown key, got 64; did you mean train.batch_size?",
        f"{child}:4: train.learning_rate: unknown key, got 0.001; did you mean train.lr?",
        f"{child}:5: train.epochs: unknown key, got 5;"
        " did you mean train.classification.epochs or train.detection.epochs?",
        f"{child}:6: train.lr: got fast; wants a number above 0",
        f"{child}:7: trian: unknown key, got {{seed: 1}}; did you mean train?",
        f"{child}:9: loss.smooth: unknown key, got 2; did you mean loss.label_smoothing?",
        "command line: batch_szie: unknown key, got 3; did you mean train.batch_size?",
        "command line: model.image_size: got big; wants a whole number of 32 or more",
    ]


def test_the_heading_counts_the_problems() -> None:
    with pytest.raises(ConfigError, match=r"^The configuration .*config\.yaml cannot be used \(2 problems\):\n"):
        load_config(ROOT_CONFIG, ["train.lr=0", "train.seed=x"])
    with pytest.raises(ConfigError, match=r"cannot be used \(1 problem\):"):
        load_config(ROOT_CONFIG, ["train.lr=0"])


def test_a_mistake_in_the_extended_file_names_that_file_and_line(tmp_path: Path) -> None:
    parent = write_child(tmp_path, "train:\n\n  warmup_step: 5\n", name="parent.yaml")
    child = write_child(tmp_path, "train: {lr: 1}\n", parent="parent.yaml")
    expected = f"{parent}:4: train.warmup_step: unknown key, got 5; did you mean train.warmup_steps?"
    assert report_of(child) == [expected]


def test_a_file_that_extends_nothing_must_have_every_key(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text("train: {lr: 1e-3}\n")
    (line,) = report_of(path)
    assert line.startswith(f"{path}: no value for paths.exp_dir, paths.data_root, paths.cache_dir, data.root")
    assert line.endswith("begin the file with `extends: config.yaml`, or set them")


def test_a_started_section_needs_all_its_keys() -> None:
    (line,) = report_of(ROOT_CONFIG, ["data.synthetic.num_drugs=5"])
    assert "no value for data.synthetic.singles_per_drug, data.synthetic.num_combos" in line
    assert "(6 in all)" in line


def test_three_question_marks_take_a_value_back(tmp_path: Path) -> None:
    child = write_child(tmp_path, "paths:\n  exp_dir: ???\n  cache_dir: x\n")
    (line,) = report_of(child)
    assert "no value for paths.exp_dir (1 in all)" in line
    assert load_config(child, ["paths.exp_dir=y"]).paths.exp_dir == "y"


@pytest.mark.req("CFG-1")
def test_a_task_takes_its_own_values_and_else_the_common_ones() -> None:
    cfg = load_config(ROOT_CONFIG, ["train.detection.lr=0.5", "train.detection.grad_clip=0"])
    detection, classification = for_task(cfg, "detection").train, for_task(cfg, "classification").train
    assert (detection.epochs, classification.epochs) == (50, 30)
    assert (detection.batch_size, detection.lr, detection.grad_clip, detection.warmup_steps) == (16, 0.5, 0.0, 500)
    assert (classification.batch_size, classification.lr, classification.grad_clip) == (64, 0.0002, 1.0)


def test_taking_a_task_s_values_twice_changes_nothing_and_leaves_the_original_alone() -> None:
    cfg = load_config(ROOT_CONFIG)
    once = for_task(cfg, "detection")
    assert for_task(once, "detection") == once
    assert cfg.train.batch_size == 64
    assert OmegaConf.is_readonly(once)


def test_a_saved_configuration_is_whole_and_loads_to_the_same_values(tmp_path: Path) -> None:
    cfg = load_config(ROOT_CONFIG, ["train.lr=1e-5", "data.root=알약 사진", "train.tasks=[detection]"])
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == cfg
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_saving_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    cfg = load_config(ROOT_CONFIG)
    with pytest.raises(PillError, match=r"config\.yaml cannot be written: No such file or directory"):
        save_config(cfg, tmp_path / "absent" / "config.yaml")


def test_a_snapshot_is_plain_data() -> None:
    snapshot = config_snapshot(load_config(ROOT_CONFIG))
    assert type(snapshot["train"]["tasks"]) is list
    assert snapshot["paths"]["cache_dir"] == "/home/max16/pillsnap_data/exp/cache"


def test_an_experiment_s_configuration_is_that_of_its_training_at_the_place_where_it_lies_now(tmp_path: Path) -> None:
    cfg = load_config(ROOT_CONFIG, ["train.lr=1e-5"])
    save_config(cfg, tmp_path / "config.yaml")
    found = load_experiment_config(tmp_path)
    assert (found.train.lr, found.paths.exp_dir) == (1e-5, str(tmp_path))
    assert found.paths.cache_dir == cfg.paths.cache_dir


def test_a_folder_without_a_configuration_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no config.yaml, so it is not the folder of an experiment"):
        load_experiment_config(tmp_path)
