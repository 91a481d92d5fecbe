"""The `pillsnap` command: one file a verb, imported when its verb is used; `pillsnap config` never waits for torch."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Callable, Sequence

import typer
from rich.console import Console

from pillsnap.errors import PillError

OUT_OF_MEMORY_EXIT_CODE = 4
# What its user can put right without a traceback: a full, write-protected or forbidden place.
PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

# verb -> (module, the function or typer app in it, what `pillsnap --help` says)
VERBS = {
    "train": ("pillsnap.cli.train", "train", "Train both models as a configuration says."),
    "predict": ("pillsnap.cli.predict", "predict", "Name the pills in a photograph."),
    "final-test": ("pillsnap.cli.final_test", "final_test", "Judge a completed stage 4 on the test split, once."),
    "check": ("pillsnap.cli.check", "check", "Run a stage's mandatory checks and decide: go or no-go."),
    "latency": ("pillsnap.cli.latency", "latency", "Measure how long an answer takes."),
    "report": ("pillsnap.cli.report", "report", "Write an experiment's page again from its files."),
    "compare": ("pillsnap.cli.compare", "compare", "Lay two experiments side by side, as a page."),
    "data": ("pillsnap.cli.data", "app", "Look at a data set."),
    "synth": ("pillsnap.cli.synth", "synth", "Draw a synthetic data set in the AI Hub 576 layout."),
    "hard-cases": (
        "pillsnap.cli.hard_cases",
        "hard_cases",
        "Show the answers of a run worth a second look, as a page.",
    ),
    "config": ("pillsnap.cli.config", "config", "Check a configuration and print what it comes to."),
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        args: Words after `pillsnap`; None takes those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    app = _build_app([words[0]] if words and words[0] in VERBS else list(VERBS))
    sys.exit(exit_code_of(lambda: app(args=words)))


def _build_app(verbs: Sequence[str]) -> typer.Typer:
    """Return the command with the given verbs; only a single one is imported, several are there to be listed."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_identify_pills)
    for verb in verbs:
        module, name, help_text = VERBS[verb]
        if len(verbs) > 1:
            app.command(verb, help=help_text)(_identify_pills)
            continue
        target = getattr(importlib.import_module(module), name)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=verb, help=help_text)
        else:
            app.command(verb)(target)
    return app


def _identify_pills() -> None:
    """Identify pills in photographs, and train the models that do it on one consumer GPU."""


def exit_code_of(action: Callable[[], object]) -> int:
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
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except MemoryError as error:
        return _out_of_memory(console, error)
    except (RuntimeError, OSError) as error:
        if _is_out_of_memory(error):
            return _out_of_memory(console, error)
        if not isinstance(error, OSError) or error.errno not in PLACE_ERRORS:
            raise  # a bug, or something nobody thought of: its traceback says where
        # Where nothing more precise was said.
        console.print(f"[bold red]{type(error).__name__}:[/] ", end="")
        console.print(f"{error}. Check the free space and the permissions of that place.", markup=False)
        return 1
    return result if isinstance(result, int) else 0


def _is_out_of_memory(error: RuntimeError | OSError) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # All others come out of torch or what is used with it; a command that never needed it does not import it now.
    if "torch" not in sys.modules:
        return False
    from pillsnap.memory import is_out_of_memory

    return is_out_of_memory(error, is_memory_scarce=False)


def _out_of_memory(console: Console, error: BaseException) -> int:
    console.print("[bold red]out of memory:[/] ", end="")
    # torch's texts hold square brackets, which rich would take for its own.
    console.print(str(error).splitlines()[0] if str(error) else "allocation failed", markup=False)
    console.print(
        "Lower train.batch_size (and raise train.grad_accum_steps by the same factor to keep the recipe), "
        "train.detection.batch_size, model.image_size or dataloader.num_workers, then train.resume=last."
    )
    return OUT_OF_MEMORY_EXIT_CODE


if __name__ == "__main__":
    main()
