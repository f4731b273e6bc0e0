"""Errors that say what failed, where, what was expected, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_STAGE_FAILED = 1
EXIT_USAGE = 2


class SmpError(Exception):
    """A failure that is explained to the user in one line, without a stack trace.

    Args:
        message: What failed, naming the table, file and line, or key, and what was expected there.
        hint: What to do next, a command where there is one.

    Attributes:
        exit_status: What the command line exits with: 1, a stage failed.
    """

    exit_status = EXIT_STAGE_FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class UsageError(SmpError):
    """Wrong usage, configuration or input; refused before anything is written (exit status 2)."""

    exit_status = EXIT_USAGE


class ConfigError(UsageError):
    """A configuration file, key or value that cannot be used."""


class SourceError(UsageError):
    """Source files that are missing, misaligned, truncated or malformed; names the file and line."""


class ModelError(UsageError):
    """A model that cannot be loaded: missing, wrong architecture, wrong digest, pickled weights."""


class DeviceError(SmpError):
    """A GPU was promised by the configuration or the scheduler and is not there."""


class RootError(UsageError):
    """A lakehouse root that cannot be written or read."""


class RootLockedError(SmpError):
    """Another process is writing to the same local root."""


class StageError(SmpError):
    """A stage ran and failed; what was computed stays, and the message says what is safe to run next."""


class FilesError(StageError):
    """An object under the root could not be read, written, listed or removed."""


class ReconciliationError(StageError):
    """Rows wanted do not equal rows accounted for."""


class SnapshotError(StageError):
    """The rows read for training are not the rows of the snapshot."""


class FingerprintError(StageError):
    """A model was handed features made by other extractors than the ones it was trained on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or all of them when none is close.

    Args:
        name: The unknown word.
        known: The words that would have been accepted.

    Example:
        >>> nearest("captoin", ["caption", "clip"])
        "Did you mean 'caption'?"
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return "Known: " + ", ".join(options) + "."
