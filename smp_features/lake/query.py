"""Reading the tables by SQL, and printing rows."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table

from smp_features.config import Config
from smp_features.errors import UsageError
from smp_features.jvm import parsed
from smp_features.lake.tables import Lakehouse

_READING_COMMANDS = ("Show", "Describe", "Explain")
_WIDEST_VALUE = 60


def ask(session: SparkSession, config: Config, query: str) -> list[dict[str, Any]]:
    """Answer a query over the tables of a root or schema.

    Args:
        session: A Spark session with Delta.
        config: Where the tables are.
        query: One SELECT (or SHOW, DESCRIBE, EXPLAIN) statement.

    Returns:
        Rows as dictionaries, in order.

    Raises:
        UsageError: The query is not valid, would write, or names an unknown table or column.

    Example:
        >>> ask(spark, config, "SELECT COUNT(*) AS posts FROM posts")
        [{'posts': 0}]
    """
    refuse_writing(session, query)
    _existing(session, config).register()
    try:
        return [row.asDict(recursive=True) for row in session.sql(query).collect()]
    except PySparkException as error:
        raise UsageError(f"The query failed: {_reason(error)}", "`smp tables` lists the tables.") from None


def refuse_writing(session: SparkSession, query: str) -> None:
    """Refuse a statement that is not plain reading.

    Raises:
        UsageError: The statement does not parse, or would change something.
    """
    try:
        nodes = list(parsed(session, query))
    except Exception as error:
        raise UsageError(f"The query is not valid SQL: {_reason(error)}") from None
    if any(acts and not name.startswith(_READING_COMMANDS) for name, acts in nodes):
        raise UsageError("Only reading is allowed: SELECT, SHOW, DESCRIBE or EXPLAIN.")


def describe_tables(session: SparkSession, config: Config) -> list[dict[str, Any]]:
    """Return one row per table: name, rows, version, and what a row is."""
    lakehouse = _existing(session, config)
    return [
        {
            "table": name,
            "rows": lakehouse.read(name).count(),
            "version": lakehouse.version(name),
            "one row is": spec.comment,
        }
        for name, spec in lakehouse.specs.items()
        if lakehouse.exists(name)
    ]


def render(rows: list[dict[str, Any]], form: str) -> str:
    """Return rows as text.

    Args:
        rows: Rows with equal keys.
        form: `table` for people, `csv`, or `json` (one array).
    """
    if form == "json":
        return json.dumps(rows, default=str, ensure_ascii=False) + "\n"
    if not rows:
        return "" if form == "csv" else "(no rows)\n"
    buffer = io.StringIO()
    if form == "csv":
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
        return buffer.getvalue()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        numeric = all(isinstance(row[key], int | float) or row[key] is None for row in rows)
        table.add_column(key, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_short(value) for value in row.values()))
    console = Console(file=buffer, width=max(Console().width, 160), markup=False, highlight=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _existing(session: SparkSession, config: Config) -> Lakehouse:
    lakehouse = Lakehouse(session, config)
    if not any(lakehouse.exists(name) for name in lakehouse.specs):
        hint = "Name the root by --root, or make the tables by `smp run`."
        raise UsageError(f"There are no tables under {lakehouse.where}.", hint)
    return lakehouse


def _plain(value: Any) -> Any:
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value


def _short(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(_plain(value)).replace("\n", " ")
    return text if len(text) <= _WIDEST_VALUE else text[: _WIDEST_VALUE - 1] + "…"


def _reason(error: BaseException) -> str:
    describe = getattr(error, "desc", None) or str(error)
    lines = [line for line in str(describe).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
