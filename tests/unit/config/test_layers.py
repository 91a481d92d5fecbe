from pathlib import Path

import pytest

from pillsnap.config.loading import load_config
from tests.unit.config.builders import ROOT_CONFIG, report_of, write_child

pytestmark = pytest.mark.req("UTL-1", "CLI-1")


def test_extends_is_relative_to_the_file_it_stands_in_and_can_be_chained(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_child(tmp_path, "train: {seed: 1, lr: 0.1}\n", name="a.yaml")
    write_child(tmp_path, "train: {seed: 2}\n", name="b.yaml", parent="a.yaml")
    leaf = write_child(tmp_path / "sub", "", parent="../b.yaml")
    cfg = load_config(leaf)
    assert (cfg.train.seed, cfg.train.lr) == (2, 0.1)


def test_files_that_extend_each_other_are_reported(tmp_path: Path) -> None:
    write_child(tmp_path, "", name="a.yaml", parent="b.yaml")
    write_child(tmp_path, "", name="b.yaml", parent="a.yaml")
    expected = "extends: the files extend each other in a circle: a.yaml -> b.yaml -> a.yaml"
    assert report_of(tmp_path / "a.yaml") == [f"{tmp_path / 'b.yaml'}:1: {expected}"]


def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = report_of("nowhere.yaml")
    assert line == (
        "nowhere.yaml: cannot read nowhere.yaml: No such file or directory;"
        f" give the path of a YAML file, relative to the working directory, {tmp_path}"
    )


def test_a_missing_parent_is_reported_once_at_the_line_that_names_it_beside_other_mistakes(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train: {batch_szie: 1}\n", parent="gone.yaml")
    parent_line, typo_line = report_of(child, ["paths.cache_dir=${paths.exp_dir}/x"])
    assert parent_line.startswith(f"{child}:1: extends: cannot read {tmp_path / 'gone.yaml'}: No such file")
    assert "relative to the file it stands in" in parent_line
    assert "did you mean train.batch_size?" in typo_line


def test_a_folder_in_place_of_a_file_is_reported(tmp_path: Path) -> None:
    (line,) = report_of(tmp_path)
    assert f"cannot read {tmp_path}: Is a directory" in line


@pytest.mark.parametrize("value", ["[a.yaml, b.yaml]", "", "3"], ids=["list", "nothing", "number"])
def test_extends_wants_one_path(tmp_path: Path, value: str) -> None:
    child = write_child(tmp_path, "", parent=value)
    (line,) = report_of(child)
    assert line.startswith(f"{child}:1: extends: got ")
    assert line.endswith("wants the path of one YAML file, relative to this file")


def test_a_file_in_another_encoding_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "korean.yaml"
    path.write_bytes("data: {root: 알약}\n".encode("cp949"))
    assert report_of(path) == [f"{path}: {path} is not UTF-8 text (byte 13 of the file); save it as UTF-8"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_text(f"extends: {ROOT_CONFIG}\r\ntrain: {{seed: 5}}\r\n", "utf-8-sig")
    assert load_config(path).train.seed == 5


def test_broken_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  lr: [1,\nmodel: 3\n")
    (line,) = report_of(child)
    assert line.startswith(f"{child}:5: broken YAML: expected ',' or ']'")
    assert line.endswith("(while parsing a flow sequence from line 3)")


def test_a_control_character_is_reported_with_its_line(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  lr: \x07\n")
    (line,) = report_of(child)
    assert line == f"{child}:3: broken YAML: special characters are not allowed"


def test_a_python_object_is_not_built(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  lr: !!python/name:os.system\n")
    (line,) = report_of(child)
    assert line.startswith(f"{child}:3: broken YAML: could not determine a constructor")


@pytest.mark.parametrize(
    ("text", "got"), [("", "an empty file"), ("# x\n", "an empty file"), ("- a\n", "a list"), ("5\n", "a single value")]
)
def test_a_file_without_keys_is_reported(tmp_path: Path, text: str, got: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert f"{path}: got {got}; wants keys with values, such as `train:`" in report_of(path)


def test_a_key_given_twice_in_one_file_is_reported(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  seed: 1\n  seed: 2\n")
    assert report_of(child) == [f"{child}:4: train.seed: given twice in one file, first at line 3; remove one"]


def test_a_dotted_key_in_a_file_means_the_nested_one(tmp_path: Path) -> None:
    assert load_config(write_child(tmp_path, "train.ema.decay: 0.5\n")).train.ema.decay == 0.5


def test_a_key_that_is_no_name_is_reported(tmp_path: Path) -> None:
    child = write_child(tmp_path, "train:\n  [a, b]: 1\n")
    assert report_of(child) == [f"{child}:3: train: got a list as a key; wants a name"]


@pytest.mark.parametrize("override", ["train.lr", "=3", ""])
def test_an_override_without_key_or_equals_sign_is_reported(override: str) -> None:
    (line,) = report_of(ROOT_CONFIG, [override])
    assert line == f"command line: got {override!r}; wants key=value, such as train.lr=1e-3"


def test_an_override_that_is_no_yaml_is_reported() -> None:
    (line,) = report_of(ROOT_CONFIG, ["train.tasks=[classification"])
    assert line.startswith("command line: train.tasks: broken YAML: ")


@pytest.mark.parametrize("override", ["train=5", "train=null", "data.synthetic=5", "train.ema=[1]"])
def test_a_single_value_for_a_section_is_reported(override: str) -> None:
    key, value = override.split("=")
    (line,) = report_of(ROOT_CONFIG, [override])
    assert line.startswith(f"command line: {key}: got {value}; it is a section, set the keys below it, such as {key}.")


def test_a_key_below_a_value_is_reported() -> None:
    (line,) = report_of(ROOT_CONFIG, ["train.lr.max=4"])
    assert line.endswith("unknown key, got 4; train.lr holds one value, there are no keys below it")


@pytest.mark.req("OOM-2")
@pytest.mark.parametrize(
    "key", ["max_retries", "max_grad_accum", "min_batch", "cooldown_sec", "escalate_to_fp16", "regrow_after_steps"]
)
def test_a_configuration_of_its_own_without_an_out_of_memory_key_is_refused(tmp_path: Path, key: str) -> None:
    lines = ROOT_CONFIG.read_text("utf-8").splitlines()
    path = tmp_path / "own.yaml"
    path.write_text("\n".join(line for line in lines if not line.startswith(f"    {key}:")), "utf-8")
    [problem] = report_of(path)
    assert f"train.oom.{key}" in problem
