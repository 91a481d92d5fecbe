"""Reads the layers a configuration is made of: a YAML file, the files it extends, and the command line's overrides.

Problems are collected, never raised, so that one report can name all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pillsnap.config.keys import KeyTree
from pillsnap.config.problems import COMMAND_LINE, Place, Problem
from pillsnap.config.yaml_text import Parsed, Setting, parse_yaml

EXTENDS = "extends"


@dataclass
class Layers:
    """All settings, the outermost parent first and the command line last."""

    settings: list[Setting] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_complete: bool = True
    """False when a file could not be read to its end, so that a missing key proves nothing."""


def read_layers(cfg_path: Path, overrides: Sequence[str], keys: KeyTree) -> Layers:
    """Read a file, everything it extends, and the overrides.

    Args:
        cfg_path: The YAML file that was asked for.
        overrides: `a.b=value` each, the value in YAML.
        keys: Tells which keys are sections to look into.

    Returns:
        The settings and the problems met so far; keys and types are not checked.
    """
    layers = Layers()
    files = _read_files(cfg_path, keys, layers)
    layers.settings = [setting for settings in reversed(files) for setting in settings]
    for number, override in enumerate(overrides, start=1):
        parsed = _read_override(override, Place(1, number, COMMAND_LINE), keys)
        layers.settings += parsed.settings
        layers.problems += parsed.problems
    return layers


def _read_files(cfg_path: Path, keys: KeyTree, layers: Layers) -> list[list[Setting]]:
    """Follow `extends:` from the file that was asked for; return the settings of each file, children first."""
    files: list[list[Setting]] = []
    chain: list[Path] = []
    path: Path | None = cfg_path
    asked_at = Place(0, 0, str(cfg_path))
    while path is not None:
        if path.resolve() in chain:
            circle = " -> ".join(each.name for each in [*chain, path])
            layers.problems.append(Problem((asked_at,), EXTENDS, f"the files extend each other in a circle: {circle}"))
            layers.is_complete = False
            break
        parsed = _read_file(path, -len(chain), asked_at, keys)
        chain.append(path.resolve())
        layers.problems += parsed.problems
        layers.is_complete &= parsed.is_readable
        files.append([setting for setting in parsed.settings if setting.key != EXTENDS])
        parent = next((setting for setting in parsed.settings if setting.key == EXTENDS), None)
        path = _parent_path(path, parent, layers)
        asked_at = parent.place if parent else asked_at
    return files


def _parent_path(path: Path, extends: Setting | None, layers: Layers) -> Path | None:
    """Return the file that `path` extends, relative to the folder of `path`; None where it extends nothing."""
    if extends is None:
        return None
    if not isinstance(extends.value, str) or not extends.value:
        text = f"got {extends.shown}; wants the path of one YAML file, relative to this file"
        layers.problems.append(Problem((extends.place,), EXTENDS, text))
        layers.is_complete = False
        return None
    return Path(os.path.normpath(path.parent / Path(extends.value).expanduser()))


def _read_file(path: Path, layer: int, asked_at: Place, keys: KeyTree) -> Parsed:
    """Read one file, which `asked_at` names."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as err:
        text = f"{path} is not UTF-8 text (byte {err.start} of the file); save it as UTF-8"
        return Parsed(problems=[Problem((asked_at,), "", text)], is_readable=False)
    except OSError as err:
        base = "the file it stands in" if layer < 0 else f"the working directory, {Path.cwd()}"
        text = f"cannot read {path}: {err.strerror}; give the path of a YAML file, relative to {base}"
        return Parsed(problems=[Problem((asked_at,), EXTENDS if layer < 0 else "", text)], is_readable=False)
    return parse_yaml(text, "", lambda line: Place(layer, line, str(path)), keys)


def _read_override(override: str, place: Place, keys: KeyTree) -> Parsed:
    """Read one `a.b=value`; no value at all is null."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        text = f"got {override!r}; wants key=value, such as train.lr=1e-3"
        return Parsed(problems=[Problem((place,), "", text)])
    return parse_yaml(text, key.strip(), lambda _line: place, keys)
