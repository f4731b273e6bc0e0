"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

LINE_EVERY_S = 15.0
"""Seconds between two lines where there is no terminal."""


class Reporter:
    """Shows rows done and left, rows per second, expected end and errors of one piece of work.

    Args:
        name: What is being done.
        total: Rows to do.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.errors = 0
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if sys.stderr.isatty() and self.total:
            self._bar = Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} rows/s"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[errors]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, rate="-", errors="")
        return self

    def advance(self, rows: int, errors: int = 0) -> None:
        """Count rows as done, some of them with an error."""
        self.done += rows
        self.errors += errors
        now = time.monotonic()
        rate = self.done / max(now - self._started, 1e-9)
        if self._bar is not None and self._task is not None:
            shown = f"{self.errors} errors" if self.errors else ""
            self._bar.update(self._task, completed=self.done, rate=f"{rate:,.1f}", errors=shown)
        elif now - self._last_line >= LINE_EVERY_S and self.done < self.total:
            self._last_line = now
            left = self.total - self.done
            expected = f"{rate:.1f} rows/s, about {left / rate:.0f} s to go" if self.done else "starting"
            logger.info(
                "%s: %d of %d done, %d left, %s, %d errors",
                self.name,
                self.done,
                self.total,
                left,
                expected,
                self.errors,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def reporter(name: str, total: int) -> Reporter:
    """Return a context manager whose `advance(rows, errors)` reports progress."""
    return Reporter(name, total)
