"""`pillsnap predict IMAGE --mode single|combo|auto --exp DIR`: names the pills on a photograph and draws them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pillsnap.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from pillsnap.data.images import RgbImage
    from pillsnap.inference.answers import Answer, Pill

SUFFIX = ".pillsnap.png"
MIN_RUNNER_UP = 0.005  # shown as a whole per cent, less would read 0 %


class Mode(StrEnum):
    """How a photograph is read."""

    SINGLE = "single"
    COMBO = "combo"
    AUTO = "auto"


def predict(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photograph, in any format Pillow reads.")],
    mode: Annotated[
        Mode,
        typer.Option(help="single: one pill. combo: any number, each is found first. auto: the picture decides."),
    ] = Mode.SINGLE,
    exp: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Experiment with the models. [default: that of config.yaml]")
    ] = None,
    conf: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score of a detected box. [default: the experiment's]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Picture to write. [default: <stem>.pillsnap.png, here]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Name the pills on a photograph, print them, and save the photograph with their frames."""
    # Imported here, not above: `pillsnap --help` must not wait for PyTorch.
    from rich.console import Console

    from pillsnap.data.images import decode_rgb
    from pillsnap.inference.hard_cases import note_answer
    from pillsnap.inference.pipeline import Pipeline, default_exp_dir

    exp_dir = exp or default_exp_dir()
    target = out or _default_target(image, exp_dir)
    if target.resolve() == image.resolve():
        raise ConfigError(f"--out {target} is the photograph itself, which is never changed. Name another file.")
    pipeline = Pipeline.from_experiment(exp_dir)
    pixels = decode_rgb(image)
    answer = pipeline.predict(pixels, mode.value, conf)
    _save_picture(pixels, answer, target)
    note_answer(exp_dir, image, pixels, answer, mode.value)
    if as_json:
        typer.echo(json.dumps({**answer, "picture": str(target)}, ensure_ascii=False, indent=2))
        return
    console = Console()
    if answer["pills"]:
        console.print(answer_table(answer))
    else:
        typer.echo(f"No pill found in {image}. Try a lower --conf, or --mode single for a close-up of one pill.")
    if any(pill["is_unknown"] is None for pill in answer["pills"]):
        typer.echo(f"{exp_dir} has no calibration, so no pill is called unknown: every one gets the name of a drug.")
    typer.echo(f"picture: {target}")


def answer_table(answer: Answer) -> Table:
    """Return one row a pill: its drug, how sure that is, where it lies, and what else it could be.

    A pill that is refused is called unknown, and what it looks like stands where the runners-up do.
    """
    from rich.markup import escape
    from rich.table import Table

    chosen = "" if answer["gating_score"] is None else " (chosen by auto)"
    title = f"{answer['mode_used']}{chosen}, {answer['elapsed_ms']['total']:.0f} ms"
    table = Table(title=title, title_justify="left")
    for column in ("#", "drug", "confidence", "box (x, y, x, y)", "runners-up"):
        table.add_column(column, overflow="fold")
    for number, pill in enumerate(answer["pills"], start=1):
        box = pill["box_xyxy"]
        table.add_row(
            str(number),
            escape("\n".join(filter(None, (pill["code"], pill["name"])))),
            "refused" if pill["is_unknown"] else f"{pill['confidence']:.1%}",
            "whole picture" if box is None else ", ".join(f"{value:.0f}" for value in box),
            escape("\n".join(_others(pill))),
        )
    return table


def _others(pill: Pill) -> list[str]:
    """Return the other drugs it could be; of a refused pill, which drugs it looks like."""
    first = 0 if pill["is_unknown"] else 1
    found = [one for one in pill["top5"][first:] if one["confidence"] >= MIN_RUNNER_UP]
    texts = [f"{one['code']} {one['confidence']:.0%}" for one in found]
    return [f"looks like {texts[0]}", *texts[1:]] if pill["is_unknown"] and texts else texts


def _default_target(image: Path, exp_dir: Path) -> Path:
    """Return where the drawn picture goes: here, unless the photograph lies here (folders of data stay as they are)."""
    here = Path.cwd()
    folder = exp_dir / "predictions" if image.resolve().parent == here.resolve() else here
    return folder / f"{image.stem}{SUFFIX}"


def _save_picture(image: RgbImage, answer: Answer, target: Path) -> None:
    from PIL import Image

    from pillsnap.inference.draw import draw_answer

    drawn = Image.fromarray(draw_answer(image, answer))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(target)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the picture cannot be written to {target}: {error}. Give a writable .png or .jpg file with --out."
        ) from error
