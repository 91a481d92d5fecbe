"""`pillsnap data select` and `pillsnap data leaks`: what a stage uses, and what lies on two sides of its split."""

# What reads data is imported where it is used: `pillsnap data check` does not wait for it.
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pillsnap.config.loading import load_config
from pillsnap.jsonfile import save_json

Cfg = Annotated[Path, typer.Option(help="A YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Values that win.")]

NUM_SHOWN = 20


def select(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV file; a .json with the facts lies beside it.")],
    overrides: Overrides = None,
    cfg: Cfg = Path("config.yaml"),
) -> None:
    """Write the pictures the current stage uses, with their sides, without training."""
    from pillsnap.data.selection_file import write_selection

    config = load_config(cfg, overrides or [])
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = write_selection(_load(config), config, out)
    Console(soft_wrap=True).print(_selection(facts), f"written: {escape(str(out))}", sep="\n")


def leaks(
    overrides: Overrides = None,
    cfg: Cfg = Path("config.yaml"),
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
) -> None:
    """Show groups and copies of pictures that lie on two sides of the split; exit code 3 when the run would stop."""
    from pillsnap.data.leakage import find_leaks, judge_leaks

    config = load_config(cfg, overrides or [])
    data = _load(config)
    report = find_leaks(data, config)
    if json_file:
        save_json(json_file, report.to_dict())
    console = Console(soft_wrap=True)
    for group in report.groups[:NUM_SHOWN]:
        console.print(f"group {group}", markup=False)
    for copy in (report.copies or [])[:NUM_SHOWN]:
        console.print(f"copy {copy}", markup=False)
    num_copies = "not looked for" if report.copies is None else f"{len(report.copies)}"
    console.print(f"groups on two sides: {len(report.groups)}; pairs of copies: {num_copies}")
    judge_leaks(report, data, config, None)


def _load(config: DictConfig) -> Any:
    from pillsnap.data.twostage import load_data

    return load_data(config)


def _selection(facts: dict[str, Any]) -> Table:
    """Return the facts of a selection as a table."""
    table = Table(title=f"Stage {facts['stage']}", title_justify="left")
    for column in ("side", "single", "combo", "pills a class", "gini"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for side, counts in facts["split"]["counts"].items():
        figures = facts["class_balance"]["splits"].get(side)
        row = [side, f"{counts.get('single', 0):,}", f"{counts.get('combo', 0):,}"]
        if figures is not None:
            row += [f"{figures['min_pills']}-{figures['max_pills']}", f"{figures['gini']:.3f}"]
        table.add_row(*row)
    return table
