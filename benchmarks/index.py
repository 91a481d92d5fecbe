"""How fast a data set is indexed beside a plain loop: `python -m benchmarks.index --json index.json`.

On a synthetic tree of AI Hub's layout with labels of all 50 fields (files of 124 bytes stand for the pictures, which
nobody opens), turn by turn in one process, page cache warm:

- ours: everything from the folders to the table, with all checks, in as many processes as there are cores.
- plain: a `glob` and `json` loop that makes the same rows, without looking for damage (`index_plain`).
- reading: merely opening and reading the same label files, in as many processes as ours.
- second start: from the cache, looking again at every folder and label file. Ours alone.

Then how the cost grows: trees of 1,000 labels up, and tables of records without files up to the real set's 2.6
million, with the exponent of a power law fitted to the times of all sizes (1: linear). Last, by how much the private
memory of a loader's worker grows while it reads random rows of the largest table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_plain import plain_index, read_files
from benchmarks.index_records import synthesise
from benchmarks.index_tree import write_tree
from benchmarks.index_workers import worker_growth
from benchmarks.machine import circumstances
from benchmarks.rounds import Plan, RoundKeeper, RoundTimes, Turn, median
from pillsnap.data.classes import ClassMap
from pillsnap.data.index import load_index
from pillsnap.data.items import classification_items
from pillsnap.data.records import Records
from pillsnap.data.scan_file import TableFile
from pillsnap.data.scan_pool import num_processes
from pillsnap.errors import PillError
from pillsnap.jsonfile import save_json

TARGET = 3.0
SIZES = (1_000, 10_000)  # trees beside the one that is compared
RECORDS = (100_000, 1_000_000, 2_600_000)
INTERRUPTED = 130

Seconds = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write the JSON file; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(words)
    try:
        with tempfile.TemporaryDirectory(prefix="pillsnap-benchmark-", dir=options.dir) as folder:
            results = _measure(options, Path(folder))
        if options.json is not None:
            save_json(options.json, {**results, **circumstances("benchmarks.index", words)})
    except PillError as error:
        print(f"benchmarks.index: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks.index: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    print(_report(results))
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index",
        description="Seconds of indexing a data set beside a plain glob and json loop.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--json", type=Path, help="file for every figure, setting and round")
    add("--labels", type=int, default=100_000, help="labels of the tree that is compared")
    add("--sizes", type=int, nargs="*", default=SIZES, help="labels of other trees, for the slope")
    add("--records", type=int, nargs="*", default=RECORDS, help="records of tables without files")
    add("--reads", type=int, default=200_000, help="rows a loader's worker reads of the largest table")
    add("--rounds", type=int, default=5, help="rounds that count, after one that does not")
    add("--processes", type=int, default=num_processes(), help="of ours and of reading alone")
    add("--dir", type=Path, help="where the trees are written and removed; the system's folder when left out")
    return parser.parse_args(words)


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    trees = []
    for size in sorted({*options.sizes, options.labels}):
        print(f"tree of {size:,} labels", file=sys.stderr, flush=True)
        root = folder / f"tree{size}"
        num_labels = write_tree(root, size)
        trees.append(_measure_tree(root, num_labels, options, folder / "cache"))
        trees[-1]["is_compared"] = size == options.labels
    tables = []
    for size in sorted(options.records):
        print(f"table of {size:,} records", file=sys.stderr, flush=True)
        tables.append({"records": size, "seconds": _measure_table(size, folder / "table.arrow", options.rounds)})
    growth = _measure_workers(max(options.records), folder / "table.arrow", options.reads) if options.records else {}
    return {
        "worker_growth_bytes": growth,
        "worker_reads": options.reads,
        "processes": options.processes,
        "rounds": options.rounds,
        "trees": trees,
        "tables": tables,
        "exponents": {"trees": _exponents(trees, "labels"), "tables": _exponents(tables, "records")},
    }


def _measure_tree(root: Path, num_labels: int, options: argparse.Namespace, cache_dir: Path) -> dict[str, Any]:
    paths = [str(path) for path in (root / "train" / "labels").rglob("*.json")]
    num_pictures = _require_same(root, options.processes)
    turns: dict[str, Turn] = {
        "ours": lambda: _seconds(lambda: load_index(root, processes=options.processes)),
        "plain": lambda: _seconds(lambda: plain_index(root)),
        "reading": lambda: _seconds(lambda: read_files(paths, options.processes)),
        "second_start": lambda: _seconds(lambda: load_index(root, cache_dir=cache_dir, processes=options.processes)),
    }
    times = _take_turns(turns, options.rounds)
    (cache_file,) = cache_dir.glob("*.arrow")
    cache_bytes = cache_file.stat().st_size
    cache_file.unlink()
    return {
        "labels": num_labels,
        "pictures": num_pictures,
        "cache_bytes": cache_bytes,
        "rounds_seconds": times.seconds,
        "seconds": {name: median(values) for name, values in times.seconds.items()},
        "ratio_to_plain": median(times.ratios("ours", "plain")),
        "ratios_to_plain": times.ratios("ours", "plain"),
        "times_reading": median(times.ratios("reading", "ours")),
    }


def _require_same(root: Path, processes: int) -> int:
    """Compare the rows of both; return how many there are."""
    columns = load_index(root, processes=processes).records.table.to_pydict()
    names = ("image_path", "task", "code", "group", "source", "part", "width", "height", "boxes_xyxy", "box_codes")
    ours = [
        (*row[:8], _pills(zip(*[iter(row[8])] * 4, strict=True), row[9]))
        for row in zip(*(columns[name] for name in names), strict=True)
    ]
    plain = [(*row[:8], _pills(row[8], row[9])) for row in plain_index(root)]
    if ours != plain:
        raise PillError(f"{root}: the index and the plain loop give other rows; nothing can be compared")
    return len(ours)


def _pills(boxes: Iterable[tuple[float, ...]], codes: Iterable[str]) -> list[tuple[str, tuple[float, ...]]]:
    """Return the pills of a picture in one order: `glob` sorts nothing."""
    return sorted(zip(codes, boxes, strict=True))


def _measure_table(size: int, path: Path, rounds: int) -> Seconds:
    """Return the median seconds of making, writing, opening and using a table of records."""
    seconds: dict[str, list[float]] = {}
    table = synthesise(size)
    for _ in range(rounds):
        start = time.perf_counter()
        Records(table).write(path)
        written = time.perf_counter()
        records = Records.from_file(TableFile(path))
        opened = time.perf_counter()
        class_map = ClassMap.from_records(records, {})
        items = classification_items(records, np.arange(len(records)), class_map)
        used = time.perf_counter()
        for name, value in (("write", written - start), ("open", opened - written), ("items", used - opened)):
            seconds.setdefault(name, []).append(value)
        del records, items
        path.unlink()
    return {name: median(values) for name, values in seconds.items()}


def _measure_workers(size: int, path: Path, num_reads: int) -> dict[str, int]:
    """Return by how many bytes a worker's private memory grows over its reads, for each way of starting it."""
    print(f"workers on {size:,} records", file=sys.stderr, flush=True)
    Records(synthesise(size)).write(path)
    growth = {method: worker_growth(path, method, num_reads)[1] for method in ("fork", "spawn")}
    path.unlink()
    return growth


def _take_turns(turns: dict[str, Turn], rounds: int) -> RoundTimes:
    keeper = RoundKeeper(Plan(rounds, 1, 1), lambda number: print(f"  round {number}", file=sys.stderr, flush=True))
    while not keeper.is_done:
        keeper.take(turns)
    return keeper.times


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _exponents(rows: Sequence[dict[str, Any]], size: str) -> dict[str, float]:
    """Return the slope of seconds over size, both as logarithms, for each thing that was measured."""
    if len(rows) < 2:
        return {}
    sizes = np.log([row[size] for row in rows])
    names = rows[0]["seconds"]
    return {
        name: round(float(np.polyfit(sizes, np.log([row["seconds"][name] for row in rows]), 1)[0]), 3) for name in names
    }


def _report(results: dict[str, Any]) -> str:
    lines = [f"{results['processes']} processes, median seconds of {results['rounds']} rounds"]
    for rows, size in ((results["trees"], "labels"), (results["tables"], "records")):
        if rows:
            names = list(rows[0]["seconds"])
            lines += ["", f"{size:>12}" + "".join(f"{name:>14}" for name in names)]
            lines += [f"{row[size]:>12,}" + "".join(f"{row['seconds'][name]:>14.4f}" for name in names) for row in rows]
            slopes = results["exponents"]["trees" if size == "labels" else "tables"]
            lines.append(f"{'exponent':>12}" + "".join(f"{slopes.get(name, float('nan')):>14.2f}" for name in names))
    for row in results["trees"]:
        if row["is_compared"]:
            spread = f"{min(row['ratios_to_plain']):.2f}..{max(row['ratios_to_plain']):.2f}"
            per_million = row["seconds"]["second_start"] / row["pictures"] * 1e6
            lines += [
                "",
                f"{row['labels']:,} labels: {row['ratio_to_plain']:.2f} times as fast as the plain loop ({spread}; "
                f"{TARGET} wanted), {row['times_reading']:.2f} times the time of merely reading the files",
                f"second start: {row['seconds']['second_start']:.3f} s, {per_million:.2f} s a million pictures",
            ]
    growth = ", ".join(f"{size / 1e6:+.1f} MB with {method}" for method, size in results["worker_growth_bytes"].items())
    if growth:
        lines.append(f"private memory of a worker over {results['worker_reads']:,} reads: {growth} (30 MB allowed)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
