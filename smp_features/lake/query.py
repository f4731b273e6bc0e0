"""Users' questions about the tables: SQL that only reads, and which tables there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from smp_features.config import Config
from smp_features.errors import UsageError, nearest
from smp_features.lake.readers import WITH_SPARK, Reader, RootReader, SessionReader, open_reader
from smp_features.tabular import one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_UNKNOWN_COLUMN = re.compile(
    r'(?:Referenced column|column) "([^"]+)" not found|does not have a column named "([^"]+)"'
    r"|with name `?([^`]+?)`? cannot be resolved"
)


def ask(session: SparkSession | None, config: Config, query: str) -> list[dict[str, Any]]:
    """Answer a query over the tables of a root or schema.

    Args:
        session: Asks Spark; None asks DuckDB, which reads a root that is a folder, without a JVM.
        config: Where the tables are.
        query: One SELECT in Spark's SQL, or SHOW TABLES, or DESCRIBE of a table; Spark also answers EXPLAIN.

    Returns:
        Rows as dictionaries, in order; of two columns with one name the second is called `<name>_1`. Times are UTC.

    Raises:
        UsageError: The query is not valid, would write or read anything but the tables, names an unknown table or
            column, or is one that DuckDB is not known to answer as Spark does; the message says which engine it was.

    Example:
        >>> ask(spark, config, "SELECT COUNT(*) AS posts FROM posts")
        [{'posts': 0}]
    """
    reader = open_reader(config, session)
    assert isinstance(reader, RootReader | SessionReader)
    return _ask_root(reader, query) if isinstance(reader, RootReader) else _ask_session(reader, query)


def describe_tables(session: SparkSession | None, config: Config) -> list[dict[str, Any]]:
    """Return one row per table: name, rows, version, and what a row is.

    Args:
        session: Asks Spark; None asks DuckDB.
        config: Where the tables are.
    """
    reader = open_reader(config, session)
    return [
        {
            "table": name,
            "rows": reader.rows(f"SELECT COUNT(*) AS counted FROM {name}", [name])[0]["counted"],
            "version": reader.version(name),
            "one row is": reader.specs[name].comment,
        }
        for name in reader.tables
    ]


def _ask_root(reader: RootReader, query: str) -> list[dict[str, Any]]:
    tables = reader.tables
    from smp_features.lake.dialect import understand

    def kinds(table: str) -> dict[str, str]:
        return {column.name: column.kind for column in reader.columns(table)}

    question = understand(query, tables, reader.config.schema_name, kinds)
    if question.lists:
        return [{"namespace": reader.config.schema_name, "tableName": name, "isTemporary": False} for name in tables]
    if question.describes is not None:
        columns = reader.columns(reader.table_named(question.describes))
        return [{"col_name": each.name, "data_type": each.kind, "comment": each.comment} for each in columns]
    try:
        return reader.rows(question.sql, question.tables)
    except reader.duck.failures as error:
        raise _explained(reader, str(error), question.tables) from None


def _ask_session(reader: SessionReader, query: str) -> list[dict[str, Any]]:
    from smp_features.jvm import SPARK_FAILURES
    from smp_features.lake.plans import refuse_all_but_reading

    tables = reader.tables
    asked = refuse_all_but_reading(reader.session, query, tables, reader.config)
    try:
        return reader.collected(query)
    except SPARK_FAILURES as error:
        raise _explained(reader, getattr(error, "desc", None) or str(error), asked) from None


def _explained(reader: Reader, said: str, tables: tuple[str, ...]) -> UsageError:
    """Return an engine's complaint in one line that names the engine, and the nearest column for an unknown one."""
    unknown = _UNKNOWN_COLUMN.search(said)
    if unknown is not None:
        name = next(part for part in unknown.groups() if part is not None).split("`.`")[-1]
        known = {column.name for table in tables for column in reader.columns(table)}
        if name not in known:
            where = " or ".join(tables) or "the query"
            return UsageError(f"There is no column '{name}' in {where}.", nearest(name, known) if known else None)
    lines = [line for line in said.splitlines() if line.strip()]
    reason = one_line(lines[0] if lines else "no reason given")[:300].rstrip(".")
    hint = WITH_SPARK if isinstance(reader, RootReader) else "`smp tables` lists the tables."
    return UsageError(f"The query failed in {reader.engine}: {reason}.", hint)
