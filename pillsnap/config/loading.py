"""Loads a configuration: a YAML file, the files it extends, and overrides from the command line.

Later layers win: the command line over the file, the file over what it extends. Everything that is wrong is reported
in one `ConfigError`, each with its place, its key, what was got and what is wanted.

    cfg = load_config("configs/demo.yaml", ["train.lr=1e-3", "train.tasks=[classification]"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf

from pillsnap.atomicfile import atomic_path
from pillsnap.config.checking import check_values, find_missing, merge_settings, resolve_references
from pillsnap.config.contradictions import find_contradictions, settle_channels_last
from pillsnap.config.keys import KEYS
from pillsnap.config.layers import read_layers
from pillsnap.config.problems import Problem, report
from pillsnap.config.stage_precedence import settle_stage_overrides
from pillsnap.errors import ConfigError

# The common `train.*` keys that a task's own section can replace.
OVERRIDABLE = ("batch_size", "lr", "weight_decay", "scheduler", "warmup_steps", "grad_accum_steps", "grad_clip")


def load_config(cfg_path: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Load and check a configuration.

    Args:
        cfg_path: A YAML file; it may begin with `extends: other.yaml` (relative to itself).
        overrides: `a.b=value` each, the value in YAML (`1e-3`, `null`, `[classification]`).

    Returns:
        The resolved configuration, read-only; every key of the schema is present.

    Raises:
        ConfigError: Anything is wrong; the message lists all of it.
    """
    path = Path(cfg_path).expanduser()
    layers = read_layers(path, overrides, KEYS)
    problems = layers.problems
    settings = merge_settings(layers.settings, KEYS, problems)
    unresolved: list[Problem] = []
    values = resolve_references(settings, KEYS, unresolved)
    if layers.is_complete:  # else these follow from the file that could not be read
        problems += [*find_missing(settings, KEYS, path), *unresolved]
    checked = check_values(values, settings, KEYS, problems)
    problems += find_contradictions(checked, settings)
    problems += settle_channels_last(checked, settings)
    settle_stage_overrides(checked, settings)
    if problems:
        raise report(path, problems)
    return freeze(_nest(checked))


def load_experiment_config(exp_dir: Path) -> DictConfig:
    """Load the configuration an experiment was trained with, for its folder where it lies now.

    Raises:
        ConfigError: The folder is no experiment's, or its `config.yaml` is of a version with other keys.
    """
    path = exp_dir / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{exp_dir} holds no config.yaml, so it is not the folder of an experiment. Give the folder that "
            "`paths.exp_dir` named when it was trained."
        )
    plain = config_snapshot(load_config(path))
    plain["paths"]["exp_dir"] = str(exp_dir)
    return freeze(plain)


def for_task(cfg: DictConfig, task: Literal["classification", "detection"]) -> DictConfig:
    """Return a read-only copy whose common `train.*` values are those of one task.

    Each key in `OVERRIDABLE` takes the value of `train.<task>` where that is not null, and `train.epochs`, which only
    this copy has, is the task's. Doing it again changes nothing; for the other task, start from the loaded `cfg`.
    """
    plain = config_snapshot(cfg)
    plain["train"]["epochs"] = plain["train"][task]["epochs"]
    for key in OVERRIDABLE:
        own_value = plain["train"][task][key]
        if own_value is not None:
            plain["train"][key] = own_value
    plain["train"]["epochs"] = plain["train"][task]["epochs"]
    return freeze(plain)


def config_snapshot(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain nested dicts and lists, nothing left to resolve."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def freeze(plain: dict[str, Any]) -> DictConfig:
    """Return a configuration that can neither be changed nor gain keys."""
    cfg = OmegaConf.create(plain)
    OmegaConf.set_struct(cfg, True)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def save_config(cfg: DictConfig, path: Path) -> None:
    """Write the resolved configuration as YAML, which `load_config` reads back to the same values.

    The file appears whole or not at all.

    Raises:
        PillError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(cfg, resolve=True), "utf-8")


def _nest(values: dict[str, Any]) -> dict[str, Any]:
    """Build the nested dict, in the schema's order; a section without values is one that is null."""
    root: dict[str, Any] = {}
    holders: dict[str, dict[str, Any]] = {"": root}
    for path in KEYS.paths:
        parent, _, name = path.rpartition(".")
        if path in values:
            holders[parent][name] = values[path]
        elif path in KEYS.sections:
            is_null = KEYS.sections[path] and not any(key.startswith(f"{path}.") for key in values)
            holders[path] = {}
            holders[parent][name] = None if is_null else holders[path]
    return root
