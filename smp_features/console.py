"""What the command line prints, how it logs, and the one line and exit status that an error becomes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from smp_features.errors import EXIT_STAGE_FAILED, SmpError
from smp_features.interrupts import CONTINUE, NAMES, unwinding
from smp_features.redaction import Redacting, redacted
from smp_features.tabular import one_line, visible

if TYPE_CHECKING:
    from smp_features.runs import Summary

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
    """Print a line, or several, in which nothing acts on the terminal."""
    _out.print("\n".join(visible(part) for part in line.split("\n")), markup=False)


def show(summary: Summary) -> None:
    """Print what a stage did."""
    marks = {"done": "done", "nothing_to_do": "-", "failed": "FAILED"}
    say(f"{summary.stage:<20} {marks[summary.outcome]:<7} {summary.message}")
    for line in summary.details:
        say(f"{'':<28} {line}")


def show_rows(rows: list[dict[str, Any]], form: str) -> None:
    """Print rows as a `table`, `csv` or `json`; say so if numbers became null in JSON, which knows no NaN."""
    from smp_features.tabular import count_not_finite, render

    typer.echo(render(rows, form), nl=False)
    if form == "json" and (lost := count_not_finite(rows)):
        typer.echo(f"smp: {lost:,} numbers are NaN or infinite, which JSON cannot say; they are null here.", err=True)


@contextmanager
def explaining() -> Iterator[None]:
    """Turn an error into one line on standard error and the exit status that it stands for.

    Raises:
        SystemExit: 2 wrong usage, refused before anything is written; 128 and the signal's number after Ctrl-C (130)
            or SIGTERM (143); 1 anything else.
    """
    with unwinding() as received:
        try:
            yield
        except KeyboardInterrupt:
            _interrupted(received[0] if received else signal.SIGINT)
        except Exception as error:
            if received:
                _interrupted(received[0])
            _explain(error)


def _interrupted(number: int) -> NoReturn:
    _fail(SmpError(f"{NAMES[signal.Signals(number)]}.", CONTINUE), 128 + number)


def _explain(error: Exception) -> NoReturn:
    if isinstance(error, SmpError):
        _fail(error, error.exit_status)
    if "pyspark" in sys.modules:  # a command that started no Spark need not load it to fail
        from smp_features.jvm import jvm_has_ended
        from smp_features.spark_failures import JVM_GONE

        if jvm_has_ended():
            _fail(SmpError(JVM_GONE, CONTINUE), EXIT_STAGE_FAILED)
    if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
        raise error
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    hint = "What was published stays. Run again with --verbose for the whole trace."
    _fail(SmpError(f"{type(error).__name__}: {first}.", hint), EXIT_STAGE_FAILED)


def _fail(error: SmpError, status: int) -> NoReturn:
    if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
        logging.getLogger(__name__).debug("the error in full", exc_info=error)
    typer.echo(f"smp: {one_line(redacted(str(error)))}", err=True)
    raise SystemExit(status)
