"""`pillsnap config CONFIG [a.b=c ...] [--get a.b]`: shows what a configuration comes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml
from omegaconf import OmegaConf

from pillsnap.config.keys import KEYS
from pillsnap.config.loading import config_snapshot, load_config
from pillsnap.errors import ConfigError


def config(
    cfg_path: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="a.b=c", help="Values that win.")] = None,
    get: Annotated[str | None, typer.Option(metavar="a.b", help="Print this one value, for shell scripts.")] = None,
) -> None:
    """Check a configuration and print all of it, or one value."""
    typer.echo(show(cfg_path, overrides or (), get))


def show(cfg_path: Path, overrides: Sequence[str], get: str | None) -> str:
    """Return the resolved configuration as YAML text, or one value of it.

    Args:
        cfg_path: A YAML file.
        overrides: `a.b=c` each.
        get: A dotted key; its value comes as plain text: true, 0.001, [1, 1]; null is the empty text.

    Returns:
        The text without a line feed at the end.

    Raises:
        ConfigError: The configuration cannot be used, or there is no key `get`.
    """
    cfg = load_config(cfg_path, overrides)
    if get is None:
        return _to_yaml(config_snapshot(cfg))
    if get not in KEYS.paths:
        raise ConfigError(f"--get {get}: unknown key; {KEYS.advice(get, among_sections=False)}")
    value = OmegaConf.select(cfg, get)
    if value is None or isinstance(value, str):
        return value or ""
    return _to_yaml(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def _to_yaml(value: object) -> str:
    is_section = isinstance(value, dict)
    text = yaml.safe_dump(value, default_flow_style=not is_section, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").removesuffix("\n")
