"""Lists every requirement id with the tests that name it, and the ids no test names yet.

Ids and titles come from docs/requirements.tsv; the tests name ids with the marker `@pytest.mark.req("DAT-5", ...)`
on a function, a class, a parameter set (`pytest.param(..., marks=...)`) or a whole module (`pytestmark = ...`). The
files are parsed, never imported, so this needs neither pytest nor torch:

    python scripts/requirements.py            print the list
    python scripts/requirements.py --write    write docs/requirements.md
    python scripts/requirements.py --check    exit 1 when docs/requirements.md is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REWRITE = "python scripts/requirements.py --write"

Coverage = dict[str, dict[str, list[str]]]  # id -> test file (posix, relative to the root) -> names of its tests


class ListingError(Exception):
    """A marker or the table of ids is wrong; the text says where."""


def read_titles(path: Path) -> dict[str, str]:
    """Read the table of ids and one-line titles, separated by a tab.

    Raises:
        ListingError: If a line is not an id, a tab and a title, or an id stands twice.
    """
    titles: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        requirement, tab, title = line.partition("\t")
        if not (requirement and tab and title):
            raise ListingError(f"{path}:{number}: {line!r} is not an id, a tab and a title")
        if requirement in titles:
            raise ListingError(f"{path}:{number}: {requirement} stands twice; remove one line")
        titles[requirement] = title
    return titles


def collect(tests_dir: Path, root: Path) -> Coverage:
    """Find the tests of every id named below `tests_dir`.

    Raises:
        ListingError: If a marker's argument is not a text written out.
    """
    coverage: Coverage = {}
    for path in sorted(tests_dir.rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        for test, requirement in _named_in(ast.parse(path.read_text(encoding="utf-8")), name):
            tests = coverage.setdefault(requirement, {}).setdefault(name, [])
            if test not in tests:
                tests.append(test)
    return coverage


def _named_in(module: ast.Module, file: str) -> Iterator[tuple[str, str]]:
    """Yield (test name, id) for every test of a module."""
    yield from _named_in_body(module.body, _assigned_marks(module.body, file), file, prefix="")


def _named_in_body(body: list[ast.stmt], inherited: set[str], file: str, *, prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            ids = inherited | _ids_in(node.decorator_list, file) | _assigned_marks(node.body, file)
            yield from _named_in_body(node.body, ids, file, prefix=f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for requirement in sorted(inherited | _ids_in(node.decorator_list, file)):
                yield prefix + node.name, requirement


def _assigned_marks(body: list[ast.stmt], file: str) -> set[str]:
    """Return the ids of `pytestmark = ...`, which hold for the whole module or class."""
    values: list[ast.expr] = []
    for node in body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets):
            values.append(node.value)
    return _ids_in(values, file)


def _ids_in(expressions: list[ast.expr], file: str) -> set[str]:
    """Return the arguments of every `pytest.mark.req(...)` inside the expressions."""
    ids: set[str] = set()
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.req":
                ids.update(_text(argument, file) for argument in node.args)
    return ids


def _text(argument: ast.expr, file: str) -> str:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value
    raise ListingError(f'{file}:{argument.lineno}: {ast.unparse(argument)} is not an id in quotes, such as "DAT-5"')


def check_known(coverage: Coverage, titles: dict[str, str]) -> None:
    """Make sure that every id a test names is in the table.

    Raises:
        ListingError: If one is not; the text names the files.
    """
    unknown = {requirement: ", ".join(files) for requirement, files in coverage.items() if requirement not in titles}
    if unknown:
        raise ListingError(f"ids that docs/requirements.tsv does not have: {unknown}; correct the markers")


def render(titles: dict[str, str], coverage: Coverage) -> str:
    """Return the Markdown page: a table of all ids, then those without a test."""
    open_ids = [requirement for requirement in titles if requirement not in coverage]
    lines = [
        "# Requirements and their tests",
        "",
        f"Written by `{REWRITE}` from the markers in the tests; do not edit by hand.",
        f"{len(titles) - len(open_ids)} of {len(titles)} requirements are named by a test.",
        "",
        "| id | requirement | tests |",
        "|---|---|---|",
    ]
    lines += [f"| {key} | {title} | {_cell(coverage.get(key, {}))} |" for key, title in titles.items()]
    lines += ["", "## Without a test", "", ", ".join(open_ids) or "None.", ""]
    return "\n".join(lines)


def _cell(files: dict[str, list[str]]) -> str:
    return "<br>".join(
        f"[{file}](../{file}): {', '.join(f'`{test}`' for test in tests)}" for file, tests in sorted(files.items())
    )


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command; return its exit code (1: out of date, 2: a marker or the table is wrong)."""
    parser = argparse.ArgumentParser(description="Lists every requirement id with the tests that name it.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="write docs/requirements.md")
    action.add_argument("--check", action="store_true", help="exit 1 when docs/requirements.md is out of date")
    chosen = parser.parse_args(arguments)
    page_path = root / "docs" / "requirements.md"
    try:
        titles = read_titles(root / "docs" / "requirements.tsv")
        coverage = collect(root / "tests", root)
        check_known(coverage, titles)
    except ListingError as error:
        print(error, file=sys.stderr)
        return 2
    page = render(titles, coverage)
    if chosen.write:
        page_path.write_text(page, encoding="utf-8")
    elif not chosen.check:
        print(page, end="")
    elif not page_path.exists() or page_path.read_text(encoding="utf-8") != page:
        print(f"docs/requirements.md is out of date. Write it again: {REWRITE}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
