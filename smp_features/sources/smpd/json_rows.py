"""Streams the rows of a JSON file, whether it is a list of records or an object of columns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from smp_features.errors import SourceError
from smp_features.sources.base import repaired
from smp_features.sources.smpd.json_text import JsonText
from smp_features.sources.smpd.spilled import SPILL_ROWS, SpilledColumn

Container = Literal["records", "columns"]
Record = dict[str, object]


class _OutOfOrderError(Exception):
    """A column numbers its rows in another order than 0, 1, 2 …"""


class JsonRows:
    """The rows of one file, in order, with lower-case field names.

    A list of records is read as it comes. An object of columns (`{"Uid": {"0": …}, …}`) holds row 0 at its start and
    at its end, so its columns are spilled to files and read back side by side. Where a column does not number its rows
    in order, that is a SQLite file, which sorts them.

    Args:
        path: The file.
        spill: A file to create, if it is needed; others beside it have its name and a number.
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
            for number, record in enumerate(text.elements(), 1):
                if isinstance(record, dict):
                    yield {key.lower(): value for key, value in record.items()}
                elif number == 1:
                    raise SourceError(f"{text.place()}: element {number} of the list is not a record. {_NEITHER}.")
                else:
                    yield {}  # one bad row among good ones is refused as a row, by who asks it for its ids
            text.end()

    def _columns(self) -> Iterator[Record]:
        try:
            columns = self._spill_in_order()
        except _OutOfOrderError:
            columns = None
        try:
            yield from self._sorted_columns() if columns is None else _side_by_side(columns)
        finally:
            for path in self._spill.parent.glob(f"{self._spill.name}*"):
                path.unlink(missing_ok=True)

    def _spill_in_order(self) -> dict[str, SpilledColumn]:
        """Write each column to a file of its own.

        Raises:
            _OutOfOrderError: Rows are not numbered 0, 1, 2 … in a column.
        """
        columns: dict[str, SpilledColumn] = {}
        with self.path.open("rb") as file:
            text = JsonText(self.path, file)
            for name in text.members():
                column = self._new_column(text, name, columns)
                with SpilledColumn(self._spill.with_name(f"{self._spill.name}.{len(columns)}"), self._limit) as spilled:
                    for key, value in text.cells():
                        if key != str(spilled.rows):
                            raise _OutOfOrderError
                        spilled.add(value)
                columns[column] = spilled
            text.end()
        self._check_counts({column: spilled.rows for column, spilled in columns.items()})
        return columns

    def _sorted_columns(self) -> Iterator[Record]:
        connection = sqlite3.connect(self._spill, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            yield from self._merge(connection, self._spill_columns(connection))
        finally:
            connection.close()

    def _new_column(self, text: JsonText, name: str, columns: Mapping[str, object]) -> str:
        """Return a column's name in small letters, with the cursor on its rows."""
        if text.peek() != "{":
            raise SourceError(f"{text.place()}: column '{name[:40]}' is not an object of rows. {_NEITHER}.", _BOTH)
        column = name.lower()
        if column in columns:
            raise SourceError(f"{text.place()}: column '{name[:40]}' is there twice.")
        return column

    def _check_counts(self, counts: Mapping[str, int]) -> None:
        if not counts:
            raise SourceError(f"{self.path}: an object without columns. {_NEITHER}.", _BOTH)
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{column} {rows:,}" for column, rows in counts.items())
            raise SourceError(f"{self.path}: columns have different numbers of rows: {listed}.")

    def _spill_columns(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Write each column to its own table `c0`, `c1` …; return the row count of each column."""
        counts: dict[str, int] = {}
        with self.path.open("rb") as file:
            text = JsonText(self.path, file)
            for name in text.members():
                column = self._new_column(text, name, counts)
                table = f"c{len(counts)}"
                connection.execute(f"CREATE TABLE {table} (row INTEGER PRIMARY KEY, value)")
                counts[column] = self._spill_column(connection, table, text, name)
            text.end()
        self._check_counts(counts)
        return counts

    def _spill_column(self, connection: sqlite3.Connection, table: str, text: JsonText, name: str) -> int:
        statement = f"INSERT INTO {table} VALUES (?, ?)"
        waiting: list[tuple[int, object]] = []
        count = 0
        limit = self._limit
        try:
            for key, value in text.cells():
                if not key.isdecimal():
                    raise SourceError(
                        f"{text.place()}: column '{name[:40]}' must map row numbers to values. {_NEITHER}.", _BOTH
                    )
                count += 1
                row = int(key)
                if limit is None or row < limit:
                    plain = isinstance(value, str) and value.isascii()
                    waiting.append((row, value if plain else _storable(value)))
                if len(waiting) >= SPILL_ROWS:
                    connection.executemany(statement, waiting)
                    waiting.clear()
            connection.executemany(statement, waiting)
        except sqlite3.IntegrityError:
            raise SourceError(f"{text.place()}: column '{name[:40]}' has a row number twice.") from None
        return count

    def _merge(self, connection: sqlite3.Connection, counts: dict[str, int]) -> Iterator[Record]:
        """Read the columns side by side, once it is known that their rows are numbered from 0 without a gap."""
        names = list(counts)
        cursors = []
        for number, name in enumerate(names):
            table = f"c{number}"
            kept, last = connection.execute(f"SELECT count(*), max(row) FROM {table}").fetchone()
            if kept and last != kept - 1:
                missing = f"SELECT min(row) + 1 FROM {table} WHERE row + 1 NOT IN (SELECT row FROM {table})"
                first = connection.execute(f"SELECT min(row) FROM {table}").fetchone()[0]
                gap = 0 if first else connection.execute(missing).fetchone()[0]
                raise SourceError(f"{self.path}: column '{name[:40]}' has no row number {gap}.")
            odd = connection.execute(f"SELECT count(*) FROM {table} WHERE typeof(value) = 'blob'").fetchone()[0]
            values = (value for (value,) in connection.execute(f"SELECT value FROM {table} ORDER BY row"))
            cursors.append(map(_restored, values) if odd else values)
        for cells in zip(*cursors, strict=False):
            yield dict(zip(names, cells, strict=True))


def _side_by_side(columns: Mapping[str, SpilledColumn]) -> Iterator[Record]:
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(columns, cells, strict=True))


def _storable(value: object) -> object:
    """Return a value as SQLite can keep it: text without lone surrogates, and as JSON what it would make another of."""
    if isinstance(value, str):
        return repaired(value)
    if isinstance(value, bool | list | dict) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        return json.dumps(value).encode()
    return value


def _restored(value: object) -> object:
    return json.loads(value) if isinstance(value, bytes) else value


_NEITHER = "The file is neither a list of records nor an object of columns"
_BOTH = 'Expected [{"Uid": …, "Pid": …}, …] or {"Uid": {"0": …}, "Pid": {"0": …}, …}.'
