"""Streams the rows of a JSON file, whether it is a list of records or an object of columns."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from smp_features.errors import SourceError
from smp_features.sources.smpd.json_text import JsonText

Container = Literal["records", "columns"]
Record = dict[str, object]

SPILL_ROWS = 10_000
"""Values of one column held in memory before they are spilled."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonRows:
    """The rows of one file, in order, with lower-case field names.

    A list of records is read as it comes. An object of columns (`{"Uid": {"0": …}, …}`) holds row 0 at its start and
    at its end, so its columns are spilled to a SQLite file and read back side by side, by row number.

    Args:
        path: The file.
        spill: A SQLite file to create, if it is needed.
        limit: Keep only this many rows of an object of columns; None keeps all.

    Attributes:
        container: Which of the two the file is; known from construction.

    Raises:
        SourceError: The file is missing, or neither container.
    """

    def __init__(self, path: Path, spill: Path, limit: int | None = None) -> None:
        self.path = path
        self._spill = spill
        self._limit = limit
        with path.open("rb") as file:
            text = JsonText(path, file)
            first = text.peek()
            if first not in ("[", "{"):
                raise SourceError(f"{text.place()}: {'the file is empty' if not first else _NEITHER}.", _BOTH)
            self.container: Container = "records" if first == "[" else "columns"

    def __iter__(self) -> Iterator[Record]:
        """Yield the rows.

        Raises:
            SourceError: Malformed, truncated, or a value that does not belong in the container; with file and line.
        """
        return self._records() if self.container == "records" else self._columns()

    def _records(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            text = JsonText(self.path, file)
            for number, _ in enumerate(text.elements(), 1):
                record = text.value()
                if not isinstance(record, dict):
                    raise SourceError(f"{text.place()}: element {number} of the list is not a record. {_NEITHER}.")
                yield {key.lower(): value for key, value in record.items()}
            text.end()

    def _columns(self) -> Iterator[Record]:
        connection = sqlite3.connect(self._spill)
        try:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            yield from self._merge(connection, self._spill_columns(connection))
        finally:
            connection.close()
            self._spill.unlink(missing_ok=True)

    def _spill_columns(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Write each column to its own table `c0`, `c1` …; return the row count of each column."""
        counts: dict[str, int] = {}
        with self.path.open("rb") as file:
            text = JsonText(self.path, file)
            for name in text.members():
                if text.peek() != "{":
                    raise SourceError(
                        f"{text.place()}: column '{name[:40]}' is not an object of rows. {_NEITHER}.", _BOTH
                    )
                column = name.lower()
                if column in counts:
                    raise SourceError(f"{text.place()}: column '{name[:40]}' is there twice.")
                table = f"c{len(counts)}"
                connection.execute(f"CREATE TABLE {table} (row INTEGER PRIMARY KEY, value)")
                counts[column] = self._spill_column(connection, table, text, name)
            text.end()
        if not counts:
            raise SourceError(f"{self.path}: an object without columns. {_NEITHER}.", _BOTH)
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{column} {rows:,}" for column, rows in counts.items())
            raise SourceError(f"{self.path}: columns have different numbers of rows: {listed}.")
        return counts

    def _spill_column(self, connection: sqlite3.Connection, table: str, text: JsonText, name: str) -> int:
        statement = f"INSERT INTO {table} VALUES (?, ?)"
        waiting: list[tuple[int, object]] = []
        count = 0
        try:
            for key in text.members():
                value = text.value()
                if not key.isdecimal() or isinstance(value, dict | list):
                    raise SourceError(
                        f"{text.place()}: column '{name[:40]}' must map row numbers to single values. {_NEITHER}.",
                        _BOTH,
                    )
                count += 1
                if self._limit is None or int(key) < self._limit:
                    waiting.append((int(key), _storable(value)))
                if len(waiting) >= SPILL_ROWS:
                    connection.executemany(statement, waiting)
                    waiting.clear()
            connection.executemany(statement, waiting)
        except sqlite3.IntegrityError:
            raise SourceError(f"{text.place()}: column '{name[:40]}' has a row number twice.") from None
        return count

    def _merge(self, connection: sqlite3.Connection, counts: dict[str, int]) -> Iterator[Record]:
        names = list(counts)
        cursors = [connection.execute(f"SELECT row, value FROM c{i} ORDER BY row") for i in range(len(names))]
        for expected, cells in enumerate(zip_longest(*cursors, fillvalue=(None, None))):
            for name, (row, _) in zip(names, cells, strict=True):
                if row != expected:
                    raise SourceError(f"{self.path}: column '{name[:40]}' has no row number {expected}.")
            yield dict(zip(names, (value for _, value in cells), strict=True))


def _storable(value: object) -> object:
    """Return a value as SQLite can keep it: text without lone surrogates, integers of 64 bits."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


_NEITHER = "The file is neither a list of records nor an object of columns"
_BOTH = 'Expected [{"Uid": …, "Pid": …}, …] or {"Uid": {"0": …}, "Pid": {"0": …}, …}.'
