"""`reports/metrics.json`: figures of every epoch, the latest where a script looks for them, and the best models'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pillsnap.jsonfile import save_json

# What the specification wants at the top of the file, and the name of each figure in an epoch's entry (VAL-1).
_FLAT = {
    "classification": {"acc": "acc", "macro_f1": "macro_f1", "top5": "top5", "loss": "val_loss"},
    "detection": {"mAP@0.5": "mAP@0.5", "mAP@0.5:0.95": "mAP@0.5:0.95"},
}
_OPTIONAL = ("val", "test", "run", "skipped", "skipped_details")


def dump_metrics_json(metrics: Mapping[str, Any], out_path: Path) -> Path:
    """Write the figures of a run, whole or not at all.

    Args:
        metrics: `history`: task ("classification", "detection") -> one mapping an epoch, the oldest first; an entry
            needs `epoch` and `acc`, `macro_f1`, `top5`, `val_loss` (classification) or `mAP@0.5`, `mAP@0.5:0.95`
            (detection), and may have more. Optional: `val` and `test` (figures of the best models on that split), `run`
            (facts about the run), `skipped` (files left out, by kind) and `skipped_details`.
        out_path: File to write; its folder is made when missing.

    Returns:
        `out_path`. The file holds `classification` {acc, macro_f1, top5, loss} and `detection` {mAP@0.5, mAP@0.5:0.95}
        of the last epoch (null for a task without one), `latest` (all figures of the last epoch; for classification
        `loss` and `val_loss` are the same), `history`, and the optional parts that were given.

    Raises:
        ValueError: An unknown key or task, an entry without a figure it needs, or a number that is not finite.
        PillError: The file cannot be written.
    """
    unknown = sorted(set(metrics) - {"history", *_OPTIONAL})
    if unknown or "history" not in metrics:
        raise ValueError(
            f"metrics have the keys {sorted(metrics)}; wanted `history`, and optionally {', '.join(_OPTIONAL)}. Put "
            "figures of an epoch into its entry of the history."
        )
    history: Mapping[str, Sequence[Mapping[str, Any]]] = metrics["history"]
    _check_history(history)
    last = {task: dict(epochs[-1]) for task, epochs in history.items() if epochs}
    content: dict[str, Any] = {
        task: {name: last[task][key] for name, key in keys.items()} if task in last else None
        for task, keys in _FLAT.items()
    }
    if "classification" in last:
        last["classification"]["loss"] = last["classification"]["val_loss"]
    content["latest"] = last
    content["history"] = {task: list(history.get(task, ())) for task in _FLAT}
    content |= {key: metrics[key] for key in _OPTIONAL if key in metrics}
    out_path.parent.mkdir(parents=True, exist_ok=True)
    save_json(out_path, content)
    return out_path


def _check_history(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuse tasks nobody knows, and epochs that lack a figure."""
    for task, epochs in history.items():
        if task not in _FLAT:
            raise ValueError(f"history has the task {task!r}; wanted one of {sorted(_FLAT)}. Rename it.")
        for position, entry in enumerate(epochs):
            missing = [key for key in ("epoch", *_FLAT[task].values()) if entry.get(key) is None]
            if missing:
                raise ValueError(
                    f"entry {position} of the {task} history has no {', '.join(missing)}; wanted every epoch to have "
                    "it. Add what the validation of that epoch returned."
                )
