"""What answers a question about the tables: DuckDB over a root's files, or a Spark session.

A root in a folder needs no JVM: `deltalake` says which files a table has, and DuckDB reads them through a file system
that knows these files alone and opens nothing for writing. A catalog, and a root in an object store, are read through
the Spark session. SQL that both run alike is asked by `rows`; users' SQL is checked and translated by `query.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from smp_features.config import Config
from smp_features.errors import StageError, UsageError, nearest
from smp_features.lake.files import is_local, parse_root
from smp_features.lake.schema import Configured
from smp_features.lake.specs import LAYOUT_PROPERTY, refuse_other_layout

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from smp_features.lake.duck import DuckTables

Engine = Literal["auto", "duckdb", "spark"]

WITH_SPARK = "Ask Spark by `--engine spark`."


@dataclass(frozen=True)
class ReadColumn:
    """A column as a table has it.

    Attributes:
        name: The column.
        kind: Its SQL type, as Spark writes it.
        comment: What it means; null if the table does not say.
    """

    name: str
    kind: str
    comment: str | None


class Reader(Configured, ABC):
    """The tables of a root or a schema, to be read.

    Attributes:
        engine: What answers, as messages call it.
        where: What messages call the place of the tables.
    """

    engine: str
    where: str

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """The tables that there are, in the order of their specifications.

        Raises:
            UsageError: There are none, or they are of another version's layout.
        """
        found = tuple(name for name in self.specs if self._exists(name))
        if not found:
            hint = "Name the root by --root, or make the tables by `smp run`."
            raise UsageError(f"There are no tables under {self.where}.", hint)
        self._check_layout()
        return found

    def require(self, tables: Iterable[str]) -> None:
        """Refuse tables that are not there.

        Raises:
            StageError: A table of the configuration does not exist.
            UsageError: As `tables`.
        """
        for table in tables:
            if table not in self.tables:
                raise StageError(f"Table {table} does not exist under {self.where}.", "Run `smp ingest` first.")

    def table_named(self, name: str) -> str:
        """Return the table that a name in a query means, whatever its case.

        Raises:
            UsageError: There is no such table; the nearest is named.
        """
        if name.lower() not in self.tables:
            hint = f"{nearest(name.lower(), self.tables)} `smp tables` lists them."
            raise UsageError(f"There is no table '{name}' under {self.where}.", hint)
        return name.lower()

    @abstractmethod
    def rows(self, sql: str, tables: Iterable[str]) -> list[dict[str, Any]]:
        """Run SQL of this package's own, which every engine understands alike; times come back in UTC without a zone.

        Args:
            sql: A query over plain table names.
            tables: The tables it names.

        Raises:
            StageError: A table is not there, or cannot be read.
        """

    @abstractmethod
    def columns(self, table: str) -> list[ReadColumn]:
        """Return the columns of a table, in order."""

    @abstractmethod
    def version(self, table: str) -> int:
        """Return the latest Delta version of a table."""

    @abstractmethod
    def _exists(self, table: str) -> bool: ...

    @abstractmethod
    def _check_layout(self) -> None: ...


class RootReader(Reader):
    """The tables of a root in a folder, read by DuckDB; no JVM is started and nothing can be written."""

    engine = "DuckDB"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.catalog is not None or not is_local(config.root):
            raise UsageError("DuckDB reads tables under a root that is a folder.", WITH_SPARK)
        self.where = config.root

    @cached_property
    def duck(self) -> DuckTables:
        """The engine.

        Raises:
            UsageError: It is not installed.
        """
        from smp_features.lake.duck import DuckTables

        return DuckTables(parse_root(self.config.root))

    def rows(self, sql: str, tables: Iterable[str]) -> list[dict[str, Any]]:
        """Run SQL in DuckDB."""
        named = tuple(tables)
        self.require(named)
        return self.duck.rows(sql, named)

    def columns(self, table: str) -> list[ReadColumn]:
        """Return the columns by the table's Delta log."""
        return [ReadColumn(*column) for column in self.duck.columns(self.table_named(table))]

    def version(self, table: str) -> int:
        """Return the version by the table's Delta log."""
        return self.duck.version(table)

    def _exists(self, table: str) -> bool:
        return self.duck.exists(table)

    def _check_layout(self) -> None:
        refuse_other_layout(self.duck.property_of("extractors", LAYOUT_PROPERTY) or "1", self.where)


class SessionReader(Reader):
    """The tables of a catalog, or of a root, read through a Spark session."""

    engine = "Spark"

    def __init__(self, session: SparkSession, config: Config) -> None:
        from smp_features.lake.tables import Lakehouse

        super().__init__(config)
        self.session = session
        self.lakehouse = Lakehouse(session, config)
        self.where = self.lakehouse.where

    def rows(self, sql: str, tables: Iterable[str]) -> list[dict[str, Any]]:
        """Run SQL in Spark."""
        self.require(tables)
        return self.collected(sql)

    def collected(self, sql: str) -> list[dict[str, Any]]:
        """Run a query that was found harmless."""
        self.lakehouse.register()
        frame = self.session.sql(sql)
        names = distinct_names(frame.columns)
        return [
            {name: _in_utc(value) for name, value in zip(names, _plain(row), strict=True)} for row in frame.collect()
        ]

    def columns(self, table: str) -> list[ReadColumn]:
        """Return the columns by Spark's schema of the table."""
        fields = self.lakehouse.read(self.table_named(table)).schema.fields
        return [ReadColumn(each.name, each.dataType.simpleString(), each.metadata.get("comment")) for each in fields]

    def version(self, table: str) -> int:
        """Return the version by Delta."""
        return self.lakehouse.version(table)

    def _exists(self, table: str) -> bool:
        return self.lakehouse.exists(table)

    def _check_layout(self) -> None:
        self.lakehouse.check_layout()


def open_reader(config: Config, session: SparkSession | None = None) -> Reader:
    """Return what reads the tables of a configuration.

    Args:
        config: Its `root`, `catalog` and `schema` say where the tables are.
        session: Reads through this Spark session; None reads a root's folder without one.

    Raises:
        UsageError: Without a session, the tables are in a catalog or an object store.
    """
    return RootReader(config) if session is None else SessionReader(session, config)


def session_for(config: Config, engine: Engine, start: Callable[[Config], SparkSession]) -> SparkSession | None:
    """Return the Spark session that a question needs, or None where the root is a folder, which DuckDB reads.

    Args:
        config: Where the tables are.
        engine: What is to answer; `auto` asks Spark for a catalog and for an object store.
        start: Starts or returns the session.
    """
    needed = config.catalog is not None or not is_local(config.root)
    return start(config) if engine == "spark" or (engine == "auto" and needed) else None


def distinct_names(names: Iterable[str]) -> list[str]:
    """Return column names made distinct, so that no column of a result is lost.

    >>> distinct_names(["pid", "n", "pid"])
    ['pid', 'n', 'pid_1']
    """
    given = list(names)
    made: list[str] = []
    for name in given:
        number, chosen = 0, name
        while chosen in made or (number and chosen in given):
            number += 1
            chosen = f"{name}_{number}"
        made.append(chosen)
    return made


def _plain(row: Any) -> list[Any]:
    """Return a row's values, structs in them as dictionaries; by place, since two columns may have one name."""

    def plain(value: Any) -> Any:
        if hasattr(value, "asDict"):
            return value.asDict(recursive=True)
        return [plain(each) for each in value] if isinstance(value, list) else value

    return [plain(value) for value in row]


def _in_utc(value: Any) -> Any:
    """Return a time, which Spark hands out by this machine's clock, by UTC."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
