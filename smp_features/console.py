"""What the command line prints, how it logs, and the one line and exit status that an error becomes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from smp_features.errors import EXIT_STAGE_FAILED, SmpError, UsageError
from smp_features.redaction import Redacting, redacted

if TYPE_CHECKING:
    from smp_features.runs import Summary

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number."""

_out = Console(highlight=False, soft_wrap=True)


def start_logging(verbose: bool) -> None:
    """Log to standard error: tidy on a terminal, with times elsewhere; `verbose` adds details."""
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        form = "%(message)s"
    else:
        handler = logging.StreamHandler()
        form = "%(asctime)s %(name)s %(message)s"
    handler.addFilter(Redacting())
    logging.basicConfig(level=logging.WARNING, format=form, datefmt="%H:%M:%S", handlers=[handler], force=True)
    logging.getLogger("smp_features").setLevel(logging.DEBUG if verbose else logging.INFO)


def say(line: str) -> None:
    """Print one line, whatever it holds, as it is."""
    _out.print(line, markup=False)


def show(summary: Summary) -> None:
    """Print what a stage did."""
    marks = {"done": "done", "nothing_to_do": "-", "failed": "FAILED"}
    say(f"{summary.stage:<20} {marks[summary.outcome]:<7} {summary.message}")
    for line in summary.details:
        say(f"{'':<28} {line}")


def show_rows(rows: list[dict[str, Any]], form: str) -> None:
    """Print rows as a `table`, `csv` or `json`."""
    from smp_features.lake.query import render

    typer.echo(render(rows, form), nl=False)


@contextmanager
def explaining() -> Iterator[None]:
    """Turn an error into one line on standard error and the exit status that it stands for.

    Raises:
        SystemExit: 2 wrong usage, refused before anything is written; 130 interrupted; 1 anything else.
    """
    try:
        yield
    except SmpError as error:
        _fail(error, error.exit_status)
    except KeyboardInterrupt:
        _fail(UsageError("Interrupted.", "What was published stays; run the same command to continue."), INTERRUPTED)
    except Exception as error:
        if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        hint = "What was published stays. Run again with --verbose for the whole trace."
        _fail(SmpError(f"{type(error).__name__}: {first}.", hint), EXIT_STAGE_FAILED)


def _fail(error: SmpError, status: int) -> NoReturn:
    if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
        logging.getLogger(__name__).debug("the error in full", exc_info=error)
    typer.echo(f"smp: {redacted(str(error))}", err=True)
    raise SystemExit(status)
