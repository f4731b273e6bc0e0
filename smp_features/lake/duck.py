"""Delta tables of a folder as DuckDB views that cannot write and cannot read anything else.

`deltalake` reads a table's log and names its files. DuckDB has no access to the machine's files: it opens what it reads
through `_ReadOnly`, which knows those files alone, by names made here, and opens none for writing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem

from smp_features.errors import StageError, UsageError

try:
    import duckdb
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, DeltaProtocolError
except ImportError as error:
    raise UsageError(
        f"Reading a root without Spark needs the packages deltalake and duckdb: {error}.",
        "pip install deltalake duckdb, or ask Spark by `--engine spark`.",
    ) from None

_SCHEME = "table"

_READ_RIGHTLY = frozenset({"timestampNtz", "vacuumProtocolCheck"})
"""Features of Delta's reader protocol that ask nothing of who reads files as they are."""

_WITH_SPARK = "Ask Spark, which reads it: `--engine spark`."

_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "integer": "INTEGER",
    "short": "SMALLINT",
    "byte": "TINYINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp_ntz": "TIMESTAMP",
}
"""Delta's types and DuckDB's; times are UTC without a zone, as Spark prints them in a session of UTC."""

_SPARK_NAMES = {"long": "bigint", "integer": "int", "short": "smallint", "byte": "tinyint"}

_SETTINGS = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "TimeZone": "UTC",
    "ieee_floating_point_ops": False,  # a division by zero is null, as in Spark
}


class DuckTables:
    """The tables under a folder.

    Args:
        root: The folder, as `parse_root` spells it.

    Attributes:
        failures: What a query that is wrong raises.
    """

    failures = (duckdb.Error,)

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._tables: dict[str, DeltaTable] = {}
        self._files = _ReadOnly()
        self._views: set[str] = set()
        self._connection = _connect(self._files)

    def exists(self, table: str) -> bool:
        """Whether there is a Delta table of this name."""
        log = self.root / "tables" / table / "_delta_log"
        try:
            return any(name.endswith((".json", ".parquet")) for name in os.listdir(log))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StageError(f"{log} cannot be read: {error.strerror}.", "Mend its permissions.") from None

    def version(self, table: str) -> int:
        """Return the latest version of a table."""
        return int(self._opened(table).version())

    def property_of(self, table: str, name: str) -> str | None:
        """Return a table property, or None where it is not set or there is no such table."""
        return self._opened(table).metadata().configuration.get(name) if self.exists(table) else None

    def columns(self, table: str) -> list[tuple[str, str, str | None]]:
        """Return name, Spark's type and comment of every column of a table."""
        return [
            (field["name"], _spark_type(field["type"]), field["metadata"].get("comment"))
            for field in _fields(self._opened(table))
        ]

    def rows(self, sql: str, tables: Iterable[str]) -> list[dict[str, Any]]:
        """Run a query and return its rows; two columns of one name get distinct ones.

        Args:
            sql: In DuckDB's SQL.
            tables: The tables it names.

        Raises:
            StageError: A table cannot be read.
            duckdb.Error: The query is wrong.
        """
        from smp_features.lake.readers import distinct_names

        for table in tables:
            self._view(table)
        try:
            result = self._connection.execute(sql)
            names = distinct_names(column[0] for column in result.description)
            return [dict(zip(names, map(_without_zone, row), strict=True)) for row in result.fetchall()]
        except duckdb.Error:
            self._refuse_gone()
            raise

    def _refuse_gone(self) -> None:
        if self._files.gone is not None:
            table, path = self._files.gone
            raise StageError(
                f"Table {table} names a file that is not there: {path}.",
                "Put it back, or restore the table to a version that has its files.",
            ) from None

    def _opened(self, table: str) -> DeltaTable:
        if table not in self._tables:
            place = self.root / "tables" / table
            try:
                self._tables[table] = _checked(table, DeltaTable(str(place)))
            except DeltaProtocolError as error:
                raise StageError(
                    f"Table {table} is not read without Spark: {_first_line(error)}.", _WITH_SPARK
                ) from None
            except (DeltaError, OSError, ValueError) as error:
                raise StageError(
                    f"Table {table} under {self.root} cannot be read: {_first_line(error)}.",
                    "Its log may be damaged; `smp status --engine spark` tells what Spark makes of it.",
                ) from None
        return self._tables[table]

    def _view(self, table: str) -> None:
        if table in self._views:
            return
        opened = self._opened(table)
        fields = {field["name"]: _duck_type(table, field["type"]) for field in _fields(opened)}
        typed = ", ".join(f"NULL::{kind} AS {_quoted(name)}" for name, kind in fields.items())
        # Columns are matched by name: a file of before a column was added has none, which is null.
        parts = [f"SELECT {typed} WHERE false"]
        for values, files in _files_by_partition(self.root / "tables" / table, opened).items():
            names = [self._files.add(table, path) for path in files]
            listed = ", ".join(f"'{name}'" for name in names)
            literals = "".join(
                f"{_partition_literal(value, fields[name])} AS {_quoted(name)}, " for name, value in values
            )
            reading = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
            parts.append(f"SELECT {literals}* FROM {reading}")
        columns = ", ".join(f"{_quoted(name)}::{kind} AS {_quoted(name)}" for name, kind in fields.items())
        try:
            self._connection.execute(
                f"CREATE VIEW {_quoted(table)} AS SELECT {columns} FROM ({' UNION ALL BY NAME '.join(parts)})"
            )
        except duckdb.Error as error:
            self._refuse_gone()
            raise StageError(f"Table {table} cannot be read by DuckDB: {_first_line(error)}.", _WITH_SPARK) from None
        self._views.add(table)


class _ReadOnly(AbstractFileSystem):  # type: ignore[misc]
    """Files by made-up names, to be read: what DuckDB sees of this machine."""

    protocol = _SCHEME
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._paths: dict[str, tuple[str, str]] = {}
        self.gone: tuple[str, str] | None = None

    def add(self, table: str, path: str) -> str:
        """Return the name by which DuckDB may read a file of a table."""
        name = f"{_SCHEME}://{len(self._paths)}.parquet"
        self._paths[name] = (table, path)
        return name

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """Open a known file for reading."""
        if mode != "rb":
            raise PermissionError("tables are only read here")
        return open(self._path(path), "rb")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a known file."""
        status = os.stat(self._path(path))
        return {"name": path, "size": status.st_size, "type": "file", "mtime": status.st_mtime}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a name was made here."""
        return self._name(path) in self._paths

    def isfile(self, path: str) -> bool:
        """Whether a name was made here."""
        return self.exists(path)

    def isdir(self, path: str) -> bool:
        """There are no folders."""
        return False

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return a known name as it is."""
        return [path] if self.exists(path) else []

    def modified(self, path: str) -> datetime:
        """Return when a known file was written."""
        return datetime.fromtimestamp(os.stat(self._path(path)).st_mtime, UTC)

    def _path(self, path: str) -> str:
        try:
            table, found = self._paths[self._name(path)]
        except KeyError:
            raise PermissionError("only the files of tables are read here") from None
        if not os.path.exists(found):
            self.gone = (table, found)
            raise FileNotFoundError(found)
        return found

    @staticmethod
    def _name(path: str) -> str:
        return path if path.startswith(f"{_SCHEME}://") else f"{_SCHEME}://{path}"


def _connect(files: _ReadOnly) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.register_filesystem(files)
    for name, value in _SETTINGS.items():
        connection.execute(f"SET {name} = {json.dumps(value) if isinstance(value, bool) else repr(value)}")
    connection.execute(f"SET allowed_directories = ['{_SCHEME}://']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _checked(table: str, opened: DeltaTable) -> DeltaTable:
    """Return a table that is read rightly by reading its files as they are.

    Raises:
        StageError: It has deletion vectors, column mapping, or another feature that this reader does not know.
    """
    protocol, configured = opened.protocol(), opened.metadata().configuration
    unknown = sorted(set(protocol.reader_features or ()) - _READ_RIGHTLY)
    if configured.get("delta.columnMapping.mode", "none") != "none":
        unknown = sorted({*unknown, "columnMapping"})
    if unknown or protocol.min_reader_version > 3:
        features = ", ".join(unknown) or f"reader version {protocol.min_reader_version}"
        raise StageError(f"Table {table} has features that only Spark reads rightly: {features}.", _WITH_SPARK)
    return opened


def _files_by_partition(place: Path, opened: DeltaTable) -> dict[tuple[tuple[str, Any], ...], list[str]]:
    """Return the files of a table by the values of its partition columns, as the log states both."""
    actions = opened.get_add_actions(flatten=True)
    by = opened.metadata().partition_columns
    columns = {name: actions.column(f"partition.{name}").to_pylist() for name in by} if actions.num_rows else {}
    found: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for row, stated in enumerate(actions.column("path").to_pylist()):
        values = tuple((name, columns[name][row]) for name in by)
        found.setdefault(values, []).append(_path_of(place, stated))
    return found


def _path_of(place: Path, stated: str) -> str:
    """Return the path of a file that a log names by a URI, relative to the table or absolute."""
    uri = urlsplit(stated)
    if uri.scheme not in ("", "file"):
        raise StageError(f"Table {place.name} has files in another store: {uri.scheme}://….", _WITH_SPARK)
    return str(place / unquote(uri.path))


def _fields(opened: DeltaTable) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = json.loads(opened.schema().to_json())["fields"]
    return fields


def _duck_type(table: str, kind: Any) -> str:
    if isinstance(kind, str) and kind.startswith("decimal"):
        return kind.upper()
    if isinstance(kind, str) and kind in _TYPES:
        return _TYPES[kind]
    if isinstance(kind, Mapping) and kind["type"] == "array":
        return f"{_duck_type(table, kind['elementType'])}[]"
    if isinstance(kind, Mapping) and kind["type"] == "map":
        return f"MAP({_duck_type(table, kind['keyType'])}, {_duck_type(table, kind['valueType'])})"
    if isinstance(kind, Mapping) and kind["type"] == "struct":
        inner = (f"{_quoted(each['name'])} {_duck_type(table, each['type'])}" for each in kind["fields"])
        return f"STRUCT({', '.join(inner)})"
    raise StageError(f"Table {table} has a column of type {kind}, which only Spark reads.", _WITH_SPARK)


def _spark_type(kind: Any) -> str:
    if isinstance(kind, str):
        return _SPARK_NAMES.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{_spark_type(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{_spark_type(kind['keyType'])},{_spark_type(kind['valueType'])}>"
    return "struct<" + ",".join(f"{each['name']}:{_spark_type(each['type'])}" for each in kind["fields"]) + ">"


def _partition_literal(value: Any, kind: str) -> str:
    return f"NULL::{kind}" if value is None else "'" + str(value).replace("'", "''") + f"'::{kind}"


def _without_zone(value: Any) -> Any:
    """Return a time by UTC without a zone, as those of tables are; DuckDB gives one to what a query makes."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:200].rstrip(".")
