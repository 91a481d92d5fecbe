"""Finding a figure in a results dict: under D-14's name, or as the specification's own code calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Sections whose figures need their name: there is an accuracy of the classifier only, but two inference times.
_TASKS = ("detection", "classification")
_ALSO_CALLED = {"system.data_loading_s": "data_loading_time_s"}


def find_figure(results: Mapping[str, Any], name: str) -> Any:
    """Return a figure from a results dict; None where it is not there.

    Args:
        results: Flat (`detection.mAP_0.5` or `detection_mAP_0.5`), or with a dict a section.
        name: Section and figure as in `stage_targets.yaml`; a name without a section is looked up as it is.

    Example:
        >>> find_figure({"classification_accuracy": 0.5}, "classification.accuracy")
        0.5
        >>> find_figure({"gpu_memory_gb": 12.0}, "system.gpu_memory_gb")
        12.0
    """
    section, _, figure = name.partition(".")
    names = [name, f"{section}_{figure}", _ALSO_CALLED.get(name, name)]
    if section not in _TASKS:
        names.append(figure)
    found = next((results[each] for each in names if each in results), None)
    nested = results.get(section)
    if found is None and isinstance(nested, Mapping):
        return nested.get(figure)
    return found
