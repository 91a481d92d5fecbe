"""Processes to be killed: forks of this one, which has loaded the libraries that a new start takes ten seconds for."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pillsnap.cli.train import main
from tests.faults.instants import Instant, file_operations
from tests.run.tiny import REPOSITORY, tiny_words

KILLED = -int(signal.SIGKILL)
DEMO = str(REPOSITORY / "configs" / "demo.yaml")
# Every 0.3 s of a training that takes one second; else only validations would save, and few kills would hit a save.
OFTEN = "train.checkpoint_minutes=0.005"
SPLIT_BYTES = 1 << 18
COUNTED = "file operations: "


@dataclass
class Child:
    """A process under way, the leader of its own group (loader workers belong to it)."""

    pid: int
    output: Path
    """What it writes to standard output and standard error."""

    def kill(self) -> None:
        """Kill it and its workers as `kill -9` does; fine when it has ended already."""
        os.kill(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # killed so early that it led no group yet
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; returns the exit code, or minus the number of the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def wait_for_text(self, text: str, timeout_s: float = 60) -> None:
        """Wait until `text` is in its output.

        Raises:
            TimeoutError: It did not come.
        """
        deadline = time.monotonic() + timeout_s
        while text not in self.text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} did not come within {timeout_s} s in:\n{self.text()}")
            time.sleep(0.002)

    def text(self) -> str:
        """Return its output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def fork(action: Callable[[], int], output: Path) -> Child:
    """Run `action` in a process of its own; what it returns is the exit code, 70 when it raises."""
    output.write_bytes(b"")
    pid = os.fork()
    if pid:
        return Child(pid, output)
    code = 70
    try:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
        code = action()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - nothing may run on as a second copy of the test process
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def train_in_fork(
    exp_dir: Path, data_root: Path, overrides: Sequence[str] = (), *, instant: Instant | None = None
) -> Child:
    """Run `python -m src.train` on the tiny configuration in a fork.

    Args:
        exp_dir: The experiment; the output goes to `<exp_dir>.out` beside it.
        data_root: The data set, drawn already.
        overrides: More words of the command line.
        instant: The file operation below the checkpoints before which the process kills itself.
    """
    words = ["--cfg", DEMO, *tiny_words(exp_dir, data_root, OFTEN, *overrides)]

    def run() -> int:
        # CUDA cannot be used in a fork once the parent has, and resuming is exact to the bit on a CPU only.
        torch.cuda.is_available = lambda: False
        with file_operations(exp_dir / "checkpoints", instant, min_split_bytes=SPLIT_BYTES) as operations:
            code = main(words)
        sys.stdout.write(f"{COUNTED}{len(operations.labels)}\n")
        return code

    return fork(run, exp_dir.with_name(f"{exp_dir.name}.out"))
