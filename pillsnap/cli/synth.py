"""`pillsnap synth DIR`: draw a synthetic data set in the AI Hub 576 layout."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pillsnap.data.synthetic import SyntheticSpec, SyntheticSummary, draw_dataset
from pillsnap.data.synthetic_jobs import JobCost
from pillsnap.errors import ConfigError

# How often progress is told where there is no terminal to redraw a bar on: at every tenth, and in long drawings also
# after a minute, which is when one wants to know how long it will take, and from then on every ten minutes.
PLAIN_LINES = 10
FIRST_LINE_S, LINE_EVERY_S = 60, 600


def synth(
    out: Annotated[
        Path, typer.Argument(help="Folder to draw into: new, empty, or half drawn before (drawing goes on).")
    ],
    drugs: Annotated[int, typer.Option(help="Classes of the train part.")] = 20,
    singles: Annotated[int, typer.Option(help="Single-pill pictures of each drug, at most 1,296.")] = 36,
    combos: Annotated[int, typer.Option(help="Pictures of three or four pills, in folders of three.")] = 90,
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels of a picture, 160x200 to 976x1280.")] = "976x1280",
    seed: Annotated[int, typer.Option(help="Another seed draws other drugs and other pictures.")] = 42,
    unknown_drugs: Annotated[int, typer.Option(help="Drugs that occur in the val part only.")] = 0,
    data_level: Annotated[bool, typer.Option("--data-level", help="Put a data/ folder above train/ and val/.")] = False,
    blemishes: Annotated[bool, typer.Option("--blemishes", help="Plant the real data set's faults.")] = False,
    processes: Annotated[int | None, typer.Option(help="Drawing processes; default: one a core.")] = None,
) -> None:
    """Draw a synthetic data set that looks, lies and is labelled like AI Hub 576."""
    width, height = _width_height(size)
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


def _width_height(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d{1,6})\s*[x×]\s*(\d{1,6})\s*", size, re.IGNORECASE | re.ASCII)
    if found is None:
        raise ConfigError(
            f"--size is {size!r}; wanted width and height in pixels with an x between them. Set --size 976x1280, the "
            "size of the real pictures, or a smaller one such as --size 244x320."
        )
    return int(found[1]), int(found[2])


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
    """Progress as a few plain lines, for logs, with an estimate of the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start: tuple[int, float] | None = None  # pictures that were there, and when that was
        self.tenths = 0
        self.due_s = time.monotonic() + FIRST_LINE_S

    def __call__(self, done: int, total: int) -> None:
        now_s, tenths = time.monotonic(), done * PLAIN_LINES // total
        if self.start is None:
            self.start, self.tenths = (done, now_s), tenths
            if done:
                self.console.print(f"going on after {done}/{total} pictures drawn earlier")
            return
        if tenths == self.tenths and now_s < self.due_s:
            return
        self.tenths, self.due_s = tenths, now_s + LINE_EVERY_S
        seconds_each = (now_s - self.start[1]) / max(done - self.start[0], 1)
        left = f", about {_duration((total - done) * seconds_each)} left" if done < total else ""
        self.console.print(f"drawn {done}/{total} pictures{left}")


def _duration(seconds: float) -> str:
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def _tell(summary: SyntheticSummary, console: Console) -> None:
    for kind, paths in sorted(summary.faults.items()):
        console.print(f"planted {kind}: {len(paths)}, e.g. {paths[0]}", markup=False)
    if summary.cost.num_pictures:
        console.print(_cost(summary.cost))
    done = "already there" if summary.is_reused else f"drawn in {summary.seconds:.1f} s"
    console.print(
        f"{summary.num_drugs} drugs, {summary.num_singles} single and {summary.num_combos} combination pictures, "
        f"{summary.num_labels} labels {done}: {summary.root}",
        markup=False,
    )


def _cost(cost: JobCost) -> str:
    seconds, kilobytes = cost.core_s / cost.num_pictures, cost.num_bytes / cost.num_pictures / 1e3
    return f"cost per picture: {seconds:.3f} s of a core, {kilobytes:,.0f} KB"
