"""Facts of any shape as small tables of text, so that the report shows what a run recorded, known in advance or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Words for keys whose own name a reader would stumble over; any other key is shown with its underscores as spaces.
_LABELS = {
    "counts": "pictures of each split",
    "git_sha": "source version (git)",
    "seconds": "duration",
    "data_wait_share": "time spent waiting for data",
    "throughput": "pictures a second",
    "peak_memory_mb": "peak memory (MB)",
    "train_loss": "train loss",
    "val_loss": "val loss",
    "acc": "accuracy",
    "macro_f1": "macro F1",
    "top5": "top-5",
    "lr": "learning rate",
    "is_best": "best so far",
    "n_broken": "unreadable pictures",
}
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table of text; `columns` is empty for a list of key and value."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)


def label_of(key: str) -> str:
    """Return the words to show for a key."""
    return _LABELS.get(key, key.replace("_", " "))


def text_of(key: str, value: object) -> str:
    """Return a value as a reader wants it; `key` tells its unit."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number_text(key, value)
    if isinstance(value, str):
        return _time_text(value)
    if isinstance(value, Sequence):
        return ", ".join(text_of(key, item) for item in value) or NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{label_of(name)} {text_of(name, item)}" for name, item in value.items()) or NOTHING
    return str(value)


def duration_text(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds, for example "1 h 04 min"."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{seconds:.1f} s"


def tables_of(title: str, facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield tables that together show `facts`: plain values as key and value, anything nested as its own table."""
    nested = {key: value for key, value in facts.items() if _is_rows(value) or (isinstance(value, Mapping) and value)}
    plain = [[label_of(key), text_of(key, value)] for key, value in facts.items() if key not in nested]
    if plain:
        yield Table(title, [], plain)
    for key, value in nested.items():
        name = f"{title}: {label_of(key)}" if title else label_of(key)
        if isinstance(value, list):
            yield grid_of(name, value)
        elif _is_rows(list(value.values())):
            yield grid_of(name, list(value.values()), names=[label_of(row) for row in value])
        else:
            yield from tables_of(name, value)


def grid_of(title: str, entries: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Table:
    """Return mappings as the rows of one table, with a column for every key that occurs.

    Args:
        title: Of the table.
        entries: One mapping a row.
        names: A name for each row, shown in a first column; none to leave that column out.
    """
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    rows = [[text_of(key, entry.get(key)) for key in keys] for entry in entries]
    columns = [label_of(key) for key in keys]
    if not names:
        return Table(title, columns, rows)
    return Table(title, ["", *columns], [[name, *row] for name, row in zip(names, rows, strict=True)])


def _is_rows(value: object) -> bool:
    """Say whether a value is a list of mappings, the rows of a table."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _number_text(key: str, value: float) -> str:
    """Return a number with the precision and unit its key asks for."""
    if key == "seconds":
        return duration_text(value)
    if key.endswith("share"):
        return f"{value:.1%}"
    if isinstance(value, int):
        return str(value) if key in {"seed", "epoch"} else f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _time_text(value: str) -> str:
    """Return an ISO time as UTC without the letters between; any other text as it is."""
    if len(value) < 19 or value[10:11] != "T":
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return value
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if time.tzinfo else f"{time:%Y-%m-%d %H:%M:%S}"
