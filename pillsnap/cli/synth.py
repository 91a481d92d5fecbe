"""`pillsnap synth DIR`: draw a synthetic data set in the AI Hub 576 layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pillsnap.data.synthetic import SyntheticSpec, SyntheticSummary, draw_dataset

PLAIN_LINES = 10  # how often progress is told where there is no terminal to redraw a bar on


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to draw into: new, empty, or half drawn before.")],
    drugs: Annotated[int, typer.Option(help="Classes of the train part.")] = 20,
    singles: Annotated[int, typer.Option(help="Single-pill pictures of each drug, at most 1,296.")] = 36,
    combos: Annotated[int, typer.Option(help="Pictures of three or four pills, in folders of three.")] = 90,
    width: Annotated[int, typer.Option(help="Picture width in pixels, 160 to 976.")] = 976,
    height: Annotated[int, typer.Option(help="Picture height in pixels, 200 to 1280.")] = 1280,
    seed: Annotated[int, typer.Option(help="Another seed draws other drugs and other pictures.")] = 42,
    unknown_drugs: Annotated[int, typer.Option(help="Drugs that occur in the val part only.")] = 0,
    data_level: Annotated[bool, typer.Option("--data-level", help="Put a data/ folder above train/ and val/.")] = False,
    blemishes: Annotated[bool, typer.Option("--blemishes", help="Plant the real data set's faults.")] = False,
    processes: Annotated[int | None, typer.Option(help="Drawing processes; default: one a core.")] = None,
) -> None:
    """Draw a synthetic data set that looks, lies and is labelled like AI Hub 576."""
    spec = SyntheticSpec(
        num_drugs=drugs,
        singles_per_drug=singles,
        num_combos=combos,
        width=width,
        height=height,
        seed=seed,
        with_data_level=data_level,
        num_unknown_drugs=unknown_drugs,
        blemishes=blemishes,
    )
    console = Console(soft_wrap=True, highlight=False)
    if console.is_terminal:
        summary = _draw_with_bar(out, spec, processes, console)
    else:
        summary = draw_dataset(out, spec, num_processes=processes, progress=_PlainLines(console))
    _tell(summary, console)


def _draw_with_bar(out: Path, spec: SyntheticSpec, processes: int | None, console: Console) -> SyntheticSummary:
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("drawing", total=None)
        return draw_dataset(
            out,
            spec,
            num_processes=processes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


class _PlainLines:
    """Progress as a few plain lines, for logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told = 0

    def __call__(self, done: int, total: int) -> None:
        reached = done * PLAIN_LINES // total
        if reached > self.told:
            self.told = reached
            self.console.print(f"drawn {done}/{total} pictures")


def _tell(summary: SyntheticSummary, console: Console) -> None:
    for kind, paths in sorted(summary.faults.items()):
        console.print(f"planted {kind}: {len(paths)}, e.g. {paths[0]}", markup=False)
    done = "already there" if summary.is_reused else f"drawn in {summary.seconds:.1f} s"
    console.print(
        f"{summary.num_drugs} drugs, {summary.num_singles} single and {summary.num_combos} combination pictures, "
        f"{summary.num_labels} labels {done}: {summary.root}",
        markup=False,
    )
