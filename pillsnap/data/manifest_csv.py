"""CSV manifests: lists of pictures with the columns `image_path,mapping_code,image_type,source`.

    train/images/single/TS_1_single/K-000059/K-000059_0_2_0_1_75_320_200.png,K-000059,single,aihub576
    train/images/combination/TS_1_combo/K-000059-001900/....png,K-000059+K-001900,combo,aihub576

Paths are relative to the data root, with `/`. `mapping_code` is the class key; of a combo the keys of its pills, joined
by `+` (in a file that is read, AI Hub's folder name `K-000059-001900` means the same, and an empty one anything). Other
columns are passed over, so the `selection.csv` of a run is a manifest too. UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pillsnap.atomicfile import atomic_path
from pillsnap.data.records import COMBO, SINGLE, Problem, Records
from pillsnap.errors import DataError

COLUMNS = ("image_path", "mapping_code", "image_type", "source")
JOINT = "+"  # between the class keys of a combo
NUM_SHOWN = 10
WANTED = f"A CSV file in UTF-8 with the columns {','.join(COLUMNS)} is wanted, one picture a line"
ADVICE = "`pillsnap data index DIR --csv FILE` writes one. Correct the file named by data.manifest, or set it to null."


def joined_codes(records: Records) -> pa.Array:
    """Return the `mapping_code` of every picture: a single's class key, or those of a combo's pills, joined."""
    table = records.table
    return pc.coalesce(table.column("code"), pc.binary_join(table.column("box_codes"), JOINT))


def write_manifest(records: Records, path: Path) -> None:
    """Write all pictures as a manifest, atomically.

    Raises:
        PillError: The file cannot be written.
    """
    table = records.table
    columns = [table.column("image_path"), joined_codes(records), table.column("task"), table.column("source")]
    # Arrow quotes every text or refuses those that need it.
    needs_quotes = any(pc.any(pc.match_substring_regex(column, r'[,"\r\n]')).as_py() for column in columns)
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed" if needs_quotes else "none")
    with atomic_path(path) as temporary, temporary.open("wb") as sink:
        sink.write(",".join(COLUMNS).encode() + b"\n")
        pa.csv.write_csv(pa.table(columns, names=COLUMNS), sink, options)


def write_rejected(problems: Iterable[Problem], path: Path) -> None:
    """Write every problem as `path,reason,detail`, atomically.

    Raises:
        PillError: The file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(("path", "reason", "detail"))
        writer.writerows((problem.path, problem.kind, problem.detail) for problem in problems)


def read_manifest_csv(path: Path) -> pa.Table:
    """Read a manifest.

    Returns:
        Its four columns as text without nulls, in the order of its lines.

    Raises:
        DataError: It is missing, no such file, or has lines that cannot be used; the first ones are named.
    """
    text = _text(path)
    try:
        table = _table(path, text)
    except (pa.ArrowInvalid, csv.Error) as error:
        raise _error(path, [str(error)]) from error
    faults: dict[int, str] = {}
    for column, is_bad, what in _RULES:
        for row in pc.indices_nonzero(is_bad(table)).to_pylist()[:NUM_SHOWN]:
            faults.setdefault(row, f"{column} {table.column(column)[row].as_py()!r} {what}")
    if faults:
        raise _error(path, _lines(text, faults))
    if not len(table):
        raise _error(path, ["it has no line below the column names"])
    return table


def _text(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _error(path, [f"it cannot be read ({error.strerror})"]) from error
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(path, [f"line {line} is not UTF-8 ({error.reason}); save it as UTF-8"]) from error
    return content.removeprefix(b"\xef\xbb\xbf")


def _table(path: Path, text: bytes) -> pa.Table:
    names = next(csv.reader(io.StringIO(text.partition(b"\n")[0].decode())), [])
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise _error(path, [f"it has no column {', '.join(missing)}; its first line is {names[:NUM_SHOWN]}"])
    wrong: list[str] = []

    def note(row: pa.csv.InvalidRow) -> str:
        wrong.append(f"line {row.number} has {row.actual_columns} values for {row.expected_columns} columns")
        return "skip"

    table = pa.csv.read_csv(
        io.BytesIO(text),
        pa.csv.ReadOptions(use_threads=False),  # threads do not know the line they are at
        pa.csv.ParseOptions(invalid_row_handler=note, newlines_in_values=True),
        pa.csv.ConvertOptions(
            include_columns=COLUMNS, column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False
        ),
    )
    if wrong:
        raise _error(path, wrong)
    return table.combine_chunks()


def _lines(text: bytes, faults: dict[int, str]) -> list[str]:
    """Return the faults of rows with the numbers of their lines: rows of a CSV file can span several."""
    reader = csv.reader(io.StringIO(text.decode(), newline=""))
    rows = (reader.line_num for row in reader if row)
    numbers = itertools.islice(rows, 1, max(faults) + 2)
    return [f"line {line}: {faults[row]}" for row, line in enumerate(numbers) if row in faults]


def _error(path: Path, faults: list[str]) -> DataError:
    shown = "\n".join(f"  {fault}" for fault in faults[:NUM_SHOWN])
    more = f"\n  and {len(faults) - NUM_SHOWN} more" if len(faults) > NUM_SHOWN else ""
    return DataError(f"The manifest {path} cannot be used:\n{shown}{more}\n{WANTED}. {ADVICE}")


def _path_matches(pattern: str) -> Callable[[pa.Table], pa.ChunkedArray]:
    return lambda table: pc.match_substring_regex(table.column("image_path"), pattern)


_RULES: tuple[tuple[str, Callable[[pa.Table], pa.ChunkedArray], str], ...] = (
    ("image_path", _path_matches("^$"), "is empty"),
    ("image_path", _path_matches(r"\\"), "has a backslash; write / between folders"),
    ("image_path", _path_matches(r"\x00"), "has a character that no file name can have"),
    ("image_path", _path_matches("^(/|[A-Za-z]:)"), "is absolute; write it relative to data.root"),
    ("image_path", _path_matches(r"(^|/)\.\.(/|$)"), "leads out of the data set"),
    (
        "image_type",
        lambda table: pc.invert(pc.is_in(table.column("image_type"), pa.array([SINGLE, COMBO]))),
        f"is neither {SINGLE} nor {COMBO}",
    ),
    (
        "mapping_code",
        lambda table: pc.and_(pc.equal(table.column("image_type"), SINGLE), pc.equal(table.column("mapping_code"), "")),
        "names no class; a single picture has one",
    ),
)
