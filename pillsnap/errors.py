"""The exceptions PillSnap raises for a user to read, and the exit code each one ends a command with.

    PillError                   1   anything below; a command prints its message without a traceback
    ├── ConfigError             2   the configuration or the command line cannot be used
    ├── ModelError              2   a model cannot be built or its pretrained weights cannot be had
    ├── CheckpointError         2   a checkpoint is missing, damaged or belongs to another run
    ├── CheckpointWriteError    1   a checkpoint could not be written (disk full, no permission)
    ├── DataError               3   the data set is missing, empty or cannot be used for the task
    │   ├── BrokenImageError    3   one picture cannot be decoded (training skips and counts it)
    │   └── TooMuchDamageError  3   more files are damaged than the run may put up with; a checkpoint was written first
    ├── NonFiniteLossError      1   the loss became NaN or infinite
    ├── OutOfMemoryFloorError   4   memory ran out and nothing smaller is left to try; a checkpoint was written first
    ├── GateError               5   a gate says no: too little was reached, or the test split was used before
    └── InterruptedRunError   130   Ctrl-C or SIGTERM; a checkpoint was written first

A message says four things: what failed, what was found, what was wanted, what to do.
"""

from __future__ import annotations


class PillError(Exception):
    """Base of every error that is meant for the user; `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(PillError):
    """The configuration, or a combination of its keys, cannot be used."""

    exit_code = 2


class ModelError(PillError):
    """A model cannot be built as configured, or its pretrained weights cannot be reached."""

    exit_code = 2


class CheckpointError(PillError):
    """A checkpoint is missing, damaged, or was written by a run with another model or class map."""

    exit_code = 2


class CheckpointWriteError(PillError):
    """A checkpoint could not be written; the last good one is untouched."""


class DataError(PillError):
    """The data set is missing, empty, unreadable or unusable for the task asked for."""

    exit_code = 3


class BrokenImageError(DataError):
    """One picture cannot be decoded; `kind` says in a fixed word why.

    `missing_file`, `unreadable_file` (no permission, a disk that fails), `empty_image` (no or hardly any bytes),
    `not_an_image`, `too_large`, or `truncated_image`: it ends early or is damaged inside.
    """

    def __init__(self, message: str, kind: str = "truncated_image") -> None:
        """Say what is wrong with the picture."""
        super().__init__(message)
        self.kind = kind


class TooMuchDamageError(DataError):
    """More files of the data set are damaged than `data.max_corruption` allows; while training, the state was saved."""


class NonFiniteLossError(PillError):
    """The training loss became NaN or infinite."""


class OutOfMemoryFloorError(PillError):
    """Memory ran out and recovery is exhausted; while training, the state was saved first."""

    exit_code = 4


class GateError(PillError):
    """All went in order, but a gate says no: no success, no go for a stage, or a test split that was used before."""

    exit_code = 5


class InterruptedRunError(PillError):
    """The run was asked to stop (Ctrl-C, SIGTERM); its state was saved first."""

    exit_code = 130
