"""The `pillsnap` command: one file a verb, loaded when its verb is used, so that `pillsnap config` never waits for torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from pillsnap.errors import PillError

OUT_OF_MEMORY_EXIT_CODE = 4

# verb -> (module, the function or typer app in it, what `pillsnap --help` says)
VERBS = {
    "train": ("pillsnap.cli.train", "train", "Train both models as a configuration says."),
    "predict": ("pillsnap.cli.predict", "predict", "Name the pills in a photograph."),
    "data": ("pillsnap.cli.data", "app", "Look at a data set."),
    "synth": ("pillsnap.cli.synth", "synth", "Draw a synthetic data set in the AI Hub 576 layout."),
    "config": ("pillsnap.cli.config", "config", "Check a configuration and print what it comes to."),
}


class _Verbs(TyperGroup):
    """Finds verbs by name and imports them only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, name, help_text = VERBS[cmd_name]
        if "--help" in sys.argv[1:2] or len(sys.argv) < 2:
            return click.Command(cmd_name, help=help_text)
        return _command(cmd_name, getattr(importlib.import_module(module), name))


def _command(name: str, target: Any) -> click.Command:
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(target)
        command = typer.main.get_command(app)
    command.name = name
    return command


app = typer.Typer(
    cls=_Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Identify pills."
)


@app.callback()
def _root() -> None:
    """Identify pills in photographs, and train the models that do it on one consumer GPU."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        args: Words after `pillsnap`; None takes those of the process.
    """
    command = typer.main.get_command(app)
    sys.exit(exit_code_of(lambda: command(args=None if args is None else list(args), standalone_mode=False)))


def exit_code_of(action: Any) -> int:
    """Run `action` and return the exit code its outcome has; an error's message goes to standard error.

    Args:
        action: Called without arguments; an integer it returns is the exit code, anything else counts as 0.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        result = action()
    except PillError as error:
        console.print(f"[bold red]{type(error).__name__}:[/] ", end="")
        console.print(str(error), markup=False)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        console.print("interrupted")
        return 130
    except MemoryError as error:
        return _out_of_memory(console, error)
    except RuntimeError as error:
        # Matched by name, so that a command which never needs torch does not import it to catch its errors.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        return _out_of_memory(console, error)
    return result if isinstance(result, int) else 0


def _out_of_memory(console: Console, error: BaseException) -> int:
    console.print(f"[bold red]out of memory:[/] {str(error).splitlines()[0] if str(error) else 'allocation failed'}")
    console.print(
        "Lower train.batch_size (and raise train.grad_accum_steps by the same factor to keep the recipe), "
        "train.detection.batch_size, model.image_size or dataloader.num_workers, then train.resume=last."
    )
    return OUT_OF_MEMORY_EXIT_CODE


if __name__ == "__main__":
    main()
