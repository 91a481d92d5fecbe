"""Turns settings into checked values: keys, then interpolations, then types and rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pillsnap.config.keys import KeyTree
from pillsnap.config.problems import Place, Problem
from pillsnap.config.yaml_text import Setting

_MAX_LISTED = 10
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")


def merge_settings(settings: Iterable[Setting], keys: KeyTree, problems: list[Problem]) -> dict[str, Setting]:
    """Let later settings replace earlier ones; unknown keys and misused sections go to `problems`.

    Null for a section that may be null removes what earlier layers set below it. `???` takes a value back.
    """
    merged: dict[str, Setting] = {}
    for setting in settings:
        key = setting.key
        if key in keys.leaves:
            merged.pop(key, None)
            if setting.value != "???":
                merged[key] = setting
        elif key not in keys.sections:
            among_sections = isinstance(setting.value, dict)
            text = f"unknown key, got {setting.shown}; {keys.advice(key, among_sections=among_sections)}"
            problems.append(Problem((setting.place,), key, text))
        elif keys.sections[key] and setting.value is None:
            merged = {each: value for each, value in merged.items() if not each.startswith(f"{key}.")}
        else:
            example = next(leaf for leaf in keys.leaves if leaf.startswith(f"{key}."))
            text = f"got {setting.shown}; it is a section, set the keys below it, such as {example}"
            problems.append(Problem((setting.place,), key, text))
    return merged


def find_missing(settings: dict[str, Setting], keys: KeyTree, cfg_path: Path) -> list[Problem]:
    """Return one problem that names the keys without a value; sections that are null need none."""
    unused = [f"{key}." for key, is_nullable in keys.sections.items() if is_nullable]
    unused = [prefix for prefix in unused if not any(key.startswith(prefix) for key in settings)]
    missing = [key for key in keys.leaves if key not in settings and not key.startswith(tuple(unused))]
    if not missing:
        return []
    listed = ", ".join(missing[:_MAX_LISTED]) + (", ..." if len(missing) > _MAX_LISTED else "")
    text = f"no value for {listed} ({len(missing)} in all); begin the file with `extends: config.yaml`, or set them"
    return [Problem((Place(0, 0, str(cfg_path)),), "", text)]


def resolve_references(settings: dict[str, Setting], keys: KeyTree, problems: list[Problem]) -> dict[str, Any]:
    """Return the value of each key with `${other.key}` filled in; a key that cannot be resolved is left out."""
    tree = OmegaConf.create()
    values: dict[str, Any] = {}
    for key, setting in settings.items():
        try:
            OmegaConf.update(tree, key, setting.value)
        except OmegaConfBaseException as err:
            if _has_reference(setting.value):
                problems.append(_unresolved(setting, err, keys))
                continue
        values[key] = setting.value
    for key in [key for key, value in values.items() if _has_reference(value)]:
        try:
            values[key] = _resolved(tree, key)
        except OmegaConfBaseException as err:
            problems.append(_unresolved(settings[key], err, keys))
            del values[key]
            continue
        if _has_reference(values[key]):  # an escaped one; the finished configuration would resolve it once more
            text = f"got {settings[key].shown}; a literal '${{' cannot be part of a value"
            problems.append(Problem((settings[key].place,), key, text))
            del values[key]
    return values


def check_values(
    values: dict[str, Any], settings: dict[str, Setting], keys: KeyTree, problems: list[Problem]
) -> dict[str, Any]:
    """Return the values that have the right type and follow their rules, as the program uses them."""
    checked: dict[str, Any] = {}
    for key, value in values.items():
        leaf = keys.leaves[key]
        if leaf.accepts(value):
            checked[key] = leaf.convert(value)
        else:
            setting = settings[key]
            got = Setting(key, value, setting.place).shown
            origin = f" (from {setting.shown})" if value != setting.value else ""
            text = f"got {got}{origin}; wants {leaf.describe()}"
            problems.append(Problem((setting.place,), key, text))
    return checked


def _has_reference(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_reference(item) for item in value)
    return isinstance(value, str) and "${" in value


def _resolved(tree: DictConfig, key: str) -> Any:
    node = OmegaConf.select(tree, key)
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _unresolved(setting: Setting, err: OmegaConfBaseException, keys: KeyTree) -> Problem:
    """Word what OmegaConf says, with the nearest key where the reference names none."""
    reason = str(err).splitlines()[0]
    unknown = [name for name in _REFERENCE.findall(setting.shown) if name not in keys.paths]
    advice = f"; {keys.advice(unknown[0], among_sections=False)}" if unknown else ""
    return Problem((setting.place,), setting.key, f"cannot resolve {setting.shown}: {reason}{advice}")
