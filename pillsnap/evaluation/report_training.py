"""How the run went: throughput, time spent waiting for data, the cache, and the decisions it took, by topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pillsnap.evaluation.report_files import ExperimentFiles
from pillsnap.evaluation.report_tables import Table, grid_of, label_of, tables_of, text_of
from pillsnap.evaluation.report_values import number, part, rows, share_text

_MIB = 2**20
# topic -> ends or words of the decision's name
_TOPICS = {
    "Batch size and memory": ("cut", "batch", "memory", "oom"),
    "Workers, loading and waiting for data": ("num_workers", "workers", "loading", "data wait"),
    "Cache": ("cache", "store", "hot set", "pixels"),
    "Start, resume and end": ("resume", "time cap", "stage"),
}
_OTHER = "Other"
# Parts of run.json that have a place of their own on the page.
_PLACED = {"data", "decisions", "evaluation", "tasks", "pixel_stores", "memory_plan", "peak_memory_mb"}


def training_tables(files: ExperimentFiles) -> list[Table]:
    """Return throughput and waiting, why it waited, the cache, and memory."""
    run = files.run
    tables = [_tasks(part(run, "tasks")), _stores(part(run, "pixel_stores")), _memory(run)]
    return [table for table in tables if table.rows] + _wait_reasons(part(run, "tasks"))


def _tasks(tasks: Mapping[str, Any]) -> Table:
    """Return one row a task."""
    columns = {
        "epochs": "epochs",
        "steps": "steps",
        "throughput": "pictures a second",
        "data_wait_share": "waiting for data",
        "skipped": "unreadable, skipped",
    }
    facts = {task: part(tasks, task) for task in tasks}
    shown = [key for key in columns if any(key in entry for entry in facts.values())]
    cells = [[task, *(text_of(key, entry.get(key)) for key in shown)] for task, entry in facts.items()]
    return Table("throughput and data wait", ["task", *(columns[key] for key in shown)], cells)


def _wait_reasons(tasks: Mapping[str, Any]) -> list[Table]:
    """Return why each task waited, where it did for more than is tolerated."""
    found = []
    for task in tasks:
        reasons = part(tasks, task, "data_wait_reasons")
        entries = [{"reason": name, **part(reasons, name)} for name in reasons]
        if entries:
            found.append(grid_of(f"{task}: why it waited for data", entries))
    return found


def _stores(stores: Mapping[str, Any]) -> Table:
    """Return what the cache of decoded pictures held and served."""
    cells = []
    for name in stores:
        store = part(stores, name)
        hits = sum(int(number(store, key) or 0) for key in ("hits_ram", "hits_disk"))
        asked = hits + int(number(store, "misses") or 0)
        ram = number(store, "ram_bytes")
        cells.append(
            [
                name,
                text_of("entries", store.get("entries")),
                "–" if ram is None else f"{ram / _MIB:,.0f}",
                share_text(hits / asked) if asked else "–",
                text_of("damaged", store.get("damaged")),
            ]
        )
    return Table("cache", ["store", "pictures", "MiB in memory", "served from it", "damaged"], cells)


def _memory(run: Mapping[str, Any]) -> Table:
    """Return the memory plan and the peak."""
    plan, peak = part(run, "memory_plan"), part(run, "peak_memory_mb")
    cells = [[f"plan: {label_of(name)}", f"{plan[name] / _MIB:,.0f} MiB"] for name in plan if number(plan, name)]
    cells += [[f"peak: {label_of(name)}", f"{peak[name]:,.0f} MB"] for name in peak if number(peak, name)]
    return Table("memory", [], cells)


def decision_tables(files: ExperimentFiles) -> list[Table]:
    """Return the decisions the run took on its own, one table a topic."""
    groups: dict[str, list[Mapping[str, Any]]] = {topic: [] for topic in (*_TOPICS, _OTHER)}
    for decision in rows(files.run, "decisions"):
        groups[_topic(str(decision.get("what", "")))].append(decision)
    return [grid_of(topic, decisions) for topic, decisions in groups.items() if decisions]


def _topic(what: str) -> str:
    """Return the topic of a decision by what it is about."""
    name = what.lower()
    # A name such as "train: data wait" begins with its task; what follows says more.
    subject = name.rpartition(": ")[2]
    found = (topic for topic, hints in _TOPICS.items() if any(subject.endswith(hint) for hint in hints))
    return next(found, _OTHER)


def other_facts(files: ExperimentFiles) -> list[Table]:
    """Return whatever else `run.json` holds, known in advance or not."""
    facts = {key: value for key, value in files.run.items() if key not in _PLACED}
    plain = {key: value for key, value in facts.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in facts.items() if isinstance(value, Mapping)}
    return [*tables_of("Run", plain), *tables_of("", nested)]
