"""`pillsnap data check DIR`: what a data set holds, and everything that is wrong; `data index`: as CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pillsnap.cli.data_stage import leaks, select
from pillsnap.data.check import CheckReport, check_dataset
from pillsnap.errors import DataError
from pillsnap.jsonfile import save_json

NUM_EXAMPLES = 3

app = typer.Typer(no_args_is_help=True)
app.command()(select)
app.command()(leaks)


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the data set.")],
    reader: Annotated[str, typer.Option(help="auto, aihub576, yolo or folders.")] = "auto",
    decode: Annotated[bool, typer.Option(help="Decode every picture, to find truncated ones.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
) -> None:
    """Show what a data set holds and everything that is wrong with it; exit code 3 when it cannot be used."""
    console = Console()
    # A bar on a terminal only: decoding a million pictures takes hours, but a log file has no use for it.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=None)
        report = check_dataset(
            directory, reader, decode=decode, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if json_file:
        save_json(json_file, report.to_dict())
    show(report, console)
    if not (report.is_usable_for_classification or report.is_usable_for_detection):
        raise DataError(
            f"{directory} cannot train anything: it has {len(report.pills_per_class)} class(es) and no boxes. Two "
            "classes are wanted for the classifier, or labelled boxes for the detector. Add pictures of another drug."
        )


@app.command()
def index(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the data set.")],
    csv_file: Annotated[Path, typer.Option("--csv", metavar="FILE", help="Where to write the manifest.")],
    rejected: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write every problem, as CSV.")] = None,
    reader: Annotated[str, typer.Option(help="auto, aihub576, yolo, folders or manifest.")] = "auto",
    manifest: Annotated[Path | None, typer.Option(metavar="FILE", help="A manifest of the pictures to take.")] = None,
) -> None:
    """Write a data set's pictures as a CSV manifest, and every rejected file with its reason."""
    from pillsnap.data.index import load_index
    from pillsnap.data.manifest_csv import write_manifest, write_rejected

    scan = load_index(directory, reader, manifest=manifest)
    write_manifest(scan.records, csv_file)
    if rejected:
        write_rejected(scan.problems, rejected)
    Console(soft_wrap=True).print(f"{len(scan.records):,} pictures, {len(scan.problems):,} problems", highlight=False)


def show(report: CheckReport, console: Console) -> None:
    """Print a report as tables."""
    console.print(_contents(report))
    console.print()
    if report.problems:
        console.print(_problems(report))
    else:
        console.print("No problems found.")
    if not report.is_decoded:
        console.print("Pictures were not decoded (--no-decode): truncated ones are not found.")


def _contents(report: CheckReport) -> Table:
    table = Table(title=f"Data set {escape(report.root)}", title_justify="left", show_header=False)
    per_class = report.per_class()
    sizes = [f"{size} ({count:,})" for size, count in list(report.sizes.items())[:NUM_EXAMPLES]]
    more = len(report.sizes) - len(sizes)
    rows = {
        "reader": report.reader,
        "single pictures": f"{report.num_pictures['single']:,}",
        "combo pictures": f"{report.num_pictures['combo']:,}",
        "parts": ", ".join(f"{part or 'none'} {count:,}" for part, count in report.num_parts.items()),
        "classes": f"{len(report.pills_per_class):,}",
        "pills per class": f"min {per_class['min']:,}, median {per_class['median']:g}, max {per_class['max']:,}",
        "boxes": f"{report.num_boxes:,}",
        "groups": f"{report.num_groups:,}",
        "sizes": ", ".join(sizes) + (f" and {more:,} more" if more else ""),
        "classification": "yes" if report.is_usable_for_classification else "no (fewer than two classes)",
        "detection": "yes" if report.is_usable_for_detection else "no (no boxes)",
    }
    lonely = [code for code, count in report.pills_per_class.items() if count == 1]
    if lonely:
        shown = ", ".join(lonely[:NUM_EXAMPLES]) + (", ..." if len(lonely) > NUM_EXAMPLES else "")
        rows["classes of one pill"] = f"{len(lonely):,}, which can be trained but not validated: {shown}"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _problems(report: CheckReport) -> Table:
    table = Table(title=f"{len(report.problems):,} problems", title_justify="left")
    table.add_column("kind")
    table.add_column("files", justify="right")
    table.add_column("examples", overflow="fold")
    for kind, problems in report.problems_by_kind().items():
        examples = [f"{problem.path}: {problem.detail}" for problem in problems[:NUM_EXAMPLES]]
        table.add_row(kind, f"{len(problems):,}", escape("\n".join(examples)))
    return table
