import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from pillsnap.cli.config import config, show
from pillsnap.config.loading import config_snapshot, load_config
from pillsnap.errors import ConfigError

ROOT_CONFIG = Path(__file__).parents[3] / "config.yaml"


@pytest.mark.req("CLI-1", "SH-1")
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("paths.exp_dir", "runs/a b"),
        ("train.lr", "0.001"),
        ("train.ema.enabled", "false"),
        ("train.interleave_ratio", "[1, 1]"),
        ("model.weights", ""),
        ("data.synthetic.width", ""),
        ("train.ema", "enabled: false\ndecay: 0.9998"),
    ],
)
def test_one_value_comes_as_plain_text(key: str, text: str) -> None:
    assert show(ROOT_CONFIG, ["paths.exp_dir=runs/a b", "train.lr=1e-3"], key) == text


@pytest.mark.req("CLI-1")
def test_without_a_key_all_of_it_comes_as_yaml() -> None:
    assert yaml.safe_load(show(ROOT_CONFIG, [], None)) == config_snapshot(load_config(ROOT_CONFIG))


def test_an_unknown_key_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"--get paths\.exp: unknown key; did you mean paths\.exp_dir\?"):
        show(ROOT_CONFIG, [], "paths.exp")


def test_the_command_prints_the_value_and_a_line_feed() -> None:
    app = typer.Typer()
    app.command()(config)
    result = CliRunner().invoke(app, [str(ROOT_CONFIG), "train.seed=7", "--get", "train.seed"])
    assert (result.exit_code, result.stdout) == (0, "7\n")


def test_the_command_does_not_import_torch() -> None:
    code = "import sys, pillsnap.cli.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
