"""Values that are right one by one but cannot stand together.

Left out, because it is no contradiction: `persistent_workers` and `prefetch_factor` with 0 workers (they have no
effect), `pretrained: true` with `weights` (the weights win), `strategy: interleaved` with one task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pillsnap.config.problems import Problem
from pillsnap.config.yaml_text import Setting

Values = dict[str, Any]
"""Checked values by dotted key."""
Settings = dict[str, Setting]
"""How and where each of them was written."""

_TASK_KEY = "train.classification.channels_last"
_COMMON_KEY = "optimization.channels_last"
_POLICY_KEY = "dataloader.ram_optimization.cache_policy"
_LMDB_KEY = "dataloader.ram_optimization.use_lmdb"


def _fractions(val_fraction: float, test_fraction: float) -> str | None:
    total = val_fraction + test_fraction
    if total < 1:
        return None
    return f"they are {val_fraction} and {test_fraction}, which leaves nothing to train on; their sum must be below 1"


def _given_parts(policy: str, reader: str) -> str | None:
    if (policy, reader) != ("given", "aihub576"):
        return None
    return "the Validation part of AI Hub 576 holds other drugs than its Training part; set data.split.policy=groups"


def _given_parts_of_synthetic(policy: str, _num_drugs: int) -> str | None:
    if policy != "given":
        return None
    return "a synthetic data set has no parts of its own; set data.split.policy=groups or data.synthetic=null"


def _reader_of_synthetic(reader: str, _num_drugs: int) -> str | None:
    if reader in ("auto", "aihub576"):
        return None
    return f"a synthetic data set has the AI Hub layout, which the reader {reader} cannot read; set data.reader=auto"


def _no_manifest(reader: str, manifest: str | None) -> str | None:
    if reader != "manifest" or manifest is not None:
        return None
    return "there is no manifest to read; set data.manifest=FILE.csv or data.reader=auto"


def _kept_twice(cache_policy: str, use_lmdb: bool) -> str | None:
    if cache_policy != "mmap" or not use_lmdb:
        return None
    return "both keep every picture on the disk; set use_lmdb=false, or cache_policy=hotset or none"


def _auto_and_lmdb(cache_policy: str, use_lmdb: bool) -> str | None:
    if cache_policy != "auto" or not use_lmdb:
        return None
    return "auto decides by itself whether there is an LMDB; set use_lmdb=false, or cache_policy=hotset or none"


def _codec_of_nothing(lmdb_codec: str, use_lmdb: bool, cache_policy: str) -> str | None:
    if lmdb_codec == "lossless" or (use_lmdb and cache_policy != "auto"):
        return None
    if cache_policy == "auto":
        return "auto keeps pictures without loss; set lmdb_codec=lossless, or cache_policy=hotset and use_lmdb=true"
    return "there is no LMDB whose pictures could be packed; set use_lmdb=true or lmdb_codec=lossless"


def _unknown_and_ignored(unknown_classes: list[str], ignored: list[str]) -> str | None:
    both = sorted({*unknown_classes} & {*ignored})
    if not both:
        return None
    return (
        f"{', '.join(both[:10])} is in both; a drug kept from training is a drug, what is ignored is none: leave it out"
        " of one of them"
    )


def _weights_file(path: str | None) -> str | None:
    if path is None or Path(path).is_file():
        return None
    return f"there is no file {path}; give the path of a weights file, or null"


def _classification_mode(monitor: str, mode: str, tasks: list[str]) -> str | None:
    wanted = "min" if monitor == "val_loss" else "max"
    if "classification" not in tasks or mode == wanted:
        return None
    better = "lower" if wanted == "min" else "higher"
    return f"of {monitor}, {better} is better, but mode is {mode}; set train.early_stopping.mode={wanted}"


def _detection_mode(monitor: str, mode: str, tasks: list[str]) -> str | None:
    if "detection" not in tasks or mode == "max":
        return None
    return (
        f"of {monitor}, higher is better, but mode is min for both tasks; set train.early_stopping.mode=max,"
        " or leave detection out of train.tasks"
    )


def _balancing_twice(sampling: str, has_class_weights: bool) -> str | None:
    if sampling != "balanced" or not has_class_weights:
        return None
    return (
        "classes shown equally often need no weights, and both together favour rare classes twice; set"
        " loss.use_class_weights=false or data.classification.sampling=natural"
    )


def _share_of_no_crops(combo_share: float | None, combo_crops: bool) -> str | None:
    if combo_crops or not combo_share:
        return None
    return (
        f"a share of {combo_share} is asked for crops that are not used; set data.classification.combo_crops=true or"
        " data.classification.combo_share=null"
    )


_MODE = "train.early_stopping.mode"
_CHECKS: tuple[tuple[tuple[str, ...], Callable[..., str | None]], ...] = (
    (("data.split.val_fraction", "data.split.test_fraction"), _fractions),
    (("data.split.policy", "data.reader"), _given_parts),
    (("data.split.policy", "data.synthetic.num_drugs"), _given_parts_of_synthetic),
    (("data.reader", "data.synthetic.num_drugs"), _reader_of_synthetic),
    (("data.reader", "data.manifest"), _no_manifest),
    (("data.split.unknown_classes", "data.ignore_classes"), _unknown_and_ignored),
    (("data.classification.sampling", "loss.use_class_weights"), _balancing_twice),
    (("data.classification.combo_share", "data.classification.combo_crops"), _share_of_no_crops),
    ((_POLICY_KEY, _LMDB_KEY), _kept_twice),
    ((_POLICY_KEY, _LMDB_KEY), _auto_and_lmdb),
    (("dataloader.ram_optimization.lmdb_codec", _LMDB_KEY, _POLICY_KEY), _codec_of_nothing),
    (("model.weights",), _weights_file),
    (("detection.weights",), _weights_file),
    (("train.early_stopping.monitor.classification", _MODE, "train.tasks"), _classification_mode),
    (("train.early_stopping.monitor.detection", _MODE, "train.tasks"), _detection_mode),
)


def find_contradictions(values: Values, settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each contradiction; a check is left out when one of its keys has no valid value."""
    for keys, check in _CHECKS:
        if all(key in values for key in keys):
            text = check(*(values[key] for key in keys))
            if text is not None:
                yield _problem(keys, settings, text)


def settle_channels_last(values: Values, settings: Settings) -> list[Problem]:
    """Make the two keys for the classifier's memory format equal: the one set in the later layer wins.

    A layer is a file or the command line. Two different values in the same layer are a contradiction.

    Args:
        values: Changed in place.
        settings: Tell in which layer each key was set.

    Returns:
        The contradiction, if there is one.
    """
    keys = (_TASK_KEY, _COMMON_KEY)
    if not all(key in values for key in keys) or values[_TASK_KEY] == values[_COMMON_KEY]:
        return []
    task_layer, common_layer = (settings[key].place.layer for key in keys)
    if task_layer == common_layer:
        text = f"they mean the same but are {settings[_TASK_KEY].shown} and {settings[_COMMON_KEY].shown}; set only one"
        return [_problem(keys, settings, text)]
    winner = _TASK_KEY if task_layer > common_layer else _COMMON_KEY
    values[_TASK_KEY] = values[_COMMON_KEY] = values[winner]
    return []


def _problem(keys: tuple[str, ...], settings: Settings, text: str) -> Problem:
    return Problem(tuple(settings[key].place for key in keys), " and ".join(keys), text)
