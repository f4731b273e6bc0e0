"""The only place that writes Delta: create, read, publish, synchronise, maintain."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TypeVar
from weakref import WeakKeyDictionary

import delta.exceptions  # noqa: F401 - without it, conflicts arrive as plain Py4JJavaError
from delta.tables import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType, _parse_datatype_string
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from smp_features.config import Config
from smp_features.errors import SmpError, StageError, UsageError, nearest
from smp_features.lake.files import Store, open_store
from smp_features.lake.lock import confirm
from smp_features.lake.schema import Configured
from smp_features.lake.specs import LAYOUT, LAYOUT_PROPERTY, TableSpec, refuse_other_layout
from smp_features.lake.specs import Column as TableColumn
from smp_features.redaction import redacted
from smp_features.runs import Summary

logger = logging.getLogger(__name__)

T = TypeVar("T")

HEX_DIGITS = tuple("0123456789abcdef")
"""All shards of a sharded table."""

_REGISTERED: WeakKeyDictionary[SparkSession, dict[str, str]] = WeakKeyDictionary()
"""What each session's catalog knows: a table's name to its folder."""

_OF_THIS_LAYOUT: set[str] = set()
"""Places whose tables were found to be in this version's layout."""

_CONFLICTS = (
    "ConcurrentAppendException",
    "ConcurrentDeleteReadException",
    "ConcurrentDeleteDeleteException",
    "ConcurrentTransactionException",
    "ConcurrentWriteException",
    "ProtocolChangedException",
)


def quoted(*names: str) -> str:
    """Return a possibly dotted SQL identifier, each part in backticks with backticks inside doubled."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Return a SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Lakehouse(Configured):
    """The tables of one root (local or object store) or of one Unity Catalog schema.

    Args:
        session: A Spark session with Delta.
        config: Its `root`, `catalog` and `schema` say where the tables are.

    Example:
        >>> lakehouse = Lakehouse(spark, config)
        >>> lakehouse.read("posts").count()
        0
    """

    def __init__(self, session: SparkSession, config: Config) -> None:
        super().__init__(config)
        self.session = session

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def content_tables(self) -> tuple[str, ...]:
        """The tables that the extractors fill, each once."""
        return tuple(dict.fromkeys(extractor.table for extractor in self.extractors.values()))

    # -- where things are ---------------------------------------------------------------------------------------

    @property
    def managed(self) -> bool:
        """Tables live in a catalog, not in folders under the root."""
        return self.config.catalog is not None

    def folder(self, *parts: str) -> str:
        """Return what Spark calls a place under the root, for what it writes and reads there with its own client."""
        return self.files.at(*parts)

    @cached_property
    def files(self) -> Store:
        """All that lies under the root beside the tables.

        Raises:
            RootError: The root is neither a folder nor a known address.
        """
        return open_store(self.config.root)

    def identifier(self, table: str) -> str:
        """Return what SQL calls a table: a path identifier under a root, a three-part name in a catalog."""
        spec = self.spec(table)
        if self.config.catalog is not None:
            return quoted(self.config.catalog, self.config.schema_name, spec.name)
        return f"delta.{quoted(self.folder('tables', spec.name))}"

    def spec(self, table: str) -> TableSpec:
        """Return the specification of a table.

        Raises:
            UsageError: There is no such table.
        """
        if table not in self.specs:
            raise UsageError(f"There is no table '{table}'.", nearest(table, self.specs))
        return self.specs[table]

    # -- setting up ---------------------------------------------------------------------------------------------

    def exists(self, table: str) -> bool:
        """Whether a table was created."""
        if self.managed:
            return self.session.catalog.tableExists(self.identifier(table).replace("`", ""))
        return DeltaTable.isDeltaTable(self.session, self.folder("tables", self.spec(table).name))

    def create(self) -> tuple[str, ...]:
        """Create the tables that do not exist yet, and the columns that tables made by an older version lack.

        The one set-up step, never done lazily by concurrent jobs. A column that is added may be null, even where the
        specification requires a value: rows from before have none until they are made again.

        Returns:
            Names of the tables created.
        """
        if self.config.catalog is not None:
            schema = quoted(self.config.catalog, self.config.schema_name)
            self.session.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        missing = tuple(name for name in self.specs if not self.exists(name))
        for name, spec in self.specs.items():
            if name in missing:
                self.session.sql(create_statement(spec, self.identifier(name)))
            elif lacking := self._lacking(spec):
                added = ", ".join(f"{quoted(c.name)} {c.sql_type} COMMENT {literal(c.comment)}" for c in lacking)
                self.session.sql(f"ALTER TABLE {self.identifier(name)} ADD COLUMNS ({added})")
                logger.info("added to %s: %s", name, ", ".join(column.name for column in lacking))
        if missing:
            logger.info("created tables: %s", ", ".join(missing))
        return missing

    @property
    def layout(self) -> str:
        """The layout that the tables are in; those of before layouts were noted are in `1`."""
        # What the table was created with needs no Spark job, and a lake does not go back.
        first = None if self.managed else self.files.get_text(f"tables/extractors/_delta_log/{0:020d}.json")
        if first is not None and f'"{LAYOUT_PROPERTY}":"{LAYOUT}"' in first:
            return LAYOUT
        detail = self._delta("extractors").detail().select("properties").collect()[0]
        return str(detail["properties"].get(LAYOUT_PROPERTY, "1"))

    def check_layout(self) -> None:
        """Refuse tables whose rows this version would not find, if there are tables.

        Raises:
            UsageError: They are of another version; says what to do.
        """
        if self.where in _OF_THIS_LAYOUT or not self.exists("extractors"):
            return
        refuse_other_layout(self.layout, self.where)
        _OF_THIS_LAYOUT.add(self.where)

    def note_layout(self) -> None:
        """Note on all tables that they are in this version's layout; on `extractors`, which is asked, last."""
        for name in sorted(filter(self.exists, self.specs), key=lambda name: name == "extractors"):
            named = f"{literal(LAYOUT_PROPERTY)} = {literal(LAYOUT)}"
            self.session.sql(f"ALTER TABLE {self.identifier(name)} SET TBLPROPERTIES ({named})")

    def register(self) -> None:
        """Make the tables of a root known by name in the session's catalog, for SQL; a catalog knows them already."""
        if self.managed:
            self.session.sql(f"USE {quoted(self.config.catalog or '', self.config.schema_name)}")
            return
        schema = quoted(self.config.schema_name)
        self.session.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        known = _REGISTERED.setdefault(self.session, {})
        for name in self.specs:
            target, folder = f"{schema}.{quoted(name)}", self.folder("tables", name)
            # The catalog keeps no more of a Delta table than its place, so one that is known there stays right.
            if known.get(target) != folder and self.exists(name):
                self.session.sql(f"DROP TABLE IF EXISTS {target}")
                self.session.sql(f"CREATE TABLE {target} USING DELTA LOCATION {literal(folder)}")
                known[target] = folder
        self.session.sql(f"USE {schema}")

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, table: str, version: int | None = None, shards: Iterable[str] | None = None) -> DataFrame:
        """Read a table.

        Args:
            table: Its name.
            version: A Delta version; None is the latest.
            shards: Literal shards to read of a sharded table; None reads all.

        Raises:
            StageError: The table does not exist yet.
        """
        reader = self.session.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        try:
            if self.managed:
                frame = reader.table(self.identifier(table))
            else:
                frame = reader.load(self.folder("tables", self.spec(table).name))
        except PySparkException as error:
            if self.exists(table):
                raise
            raise StageError(f"Table {table} does not exist under {self.where}.", "Run `smp ingest` first.") from error
        if shards is not None:
            frame = frame.where(F.col("shard").isin(*shards))
        return frame

    @property
    def where(self) -> str:
        """What to call the place of the tables in messages."""
        return f"{self.config.catalog}.{self.config.schema_name}" if self.managed else self.config.root

    def schema(self, table: str, columns: Sequence[str] | None = None) -> StructType:
        """Return the Spark schema of a table by its specification, or of some of its columns."""
        spec = self.spec(table)
        chosen = spec.columns if columns is None else tuple(c for c in spec.columns if c.name in columns)
        parsed = _parse_datatype_string(", ".join(f"{quoted(c.name)} {c.sql_type}" for c in chosen))
        assert isinstance(parsed, StructType)
        return parsed

    def version(self, table: str) -> int:
        """Return the latest Delta version of a table."""
        log = self.files.local_folder("tables", self.spec(table).name, "_delta_log")
        if not self.managed and log is not None:
            # By Delta's protocol the newest commit names the version; its history would cost a Spark job each time.
            commits = [int(commit.stem) for commit in log.glob("*.json") if commit.stem.isdigit()]
            if commits:
                return max(commits)
        return int(self._delta(table).history(1).select("version").collect()[0]["version"])

    def versions(self, tables: Iterable[str]) -> dict[str, int]:
        """Return the latest Delta version of each table."""
        return {table: self.version(table) for table in tables}

    # -- writing ------------------------------------------------------------------------------------------------

    def insert_new(
        self, table: str, rows: DataFrame, shards: Sequence[str] | None = None, distinct: bool = False
    ) -> bool:
        """Insert the rows whose key the table does not hold; rows that are there already stay as they are.

        The source must be files or tables, never a plan that runs a model: MERGE reads it twice. Duplicate keys in
        the source become one row, the first by a total order of all columns.

        Args:
            table: A table with a key.
            rows: Rows with the table's columns (`shard` may be missing: it is derived from the key).
            shards: Shards that the rows lie in, written into the MERGE as literals; None means all.
            distinct: The caller has made sure that no key is there twice, so that large rows need no shuffle for it.

        Returns:
            Whether a version was written.
        """
        spec = self.spec(table)
        self._check_columns(spec)
        conformed = self._conform(spec, rows)
        source = conformed if distinct else first_by_key(conformed, spec.key)
        merge = self._delta(table).alias("t").merge(source.alias("s"), self._on(spec, shards))
        merge = merge.whenNotMatchedInsert(values=_values(spec))
        return self._writes(table, merge.execute)

    def synchronise(
        self, table: str, rows: DataFrame, hash_column: str | None, delete_missing: bool = False
    ) -> dict[str, int]:
        """Make the table hold these rows: insert the new, update the changed, and write nothing if there are none.

        Args:
            table: A table with a key.
            rows: The rows as they should be, one per key; must be cheap to read twice.
            hash_column: The column that tells a changed row; None for a table without one, whose rows are compared
                whole.
            delete_missing: Also delete rows whose key is not among `rows`.

        Returns:
            Counts: `inserted`, `updated`, `deleted`.
        """
        spec = self.spec(table)
        self._check_columns(spec)
        wanted = self._conform(spec, rows)
        told_by = row_hash(spec.column_names) if hash_column is None else F.col(hash_column)
        present = self.read(table).select(*spec.key, told_by.alias("_present"))
        compared = wanted.withColumn("_wanted", told_by).join(present, list(spec.key), "left")
        changed = compared.where(F.col("_present").isNull() | (F.col("_present") != F.col("_wanted")))
        counts = changed.agg(
            F.count(F.when(F.col("_present").isNull(), 1)).alias("inserted"), F.count("_present").alias("updated")
        ).collect()[0]
        result = {"inserted": int(counts["inserted"]), "updated": int(counts["updated"]), "deleted": 0}
        if delete_missing:
            gone = present.select(*spec.key).join(wanted.select(*spec.key), list(spec.key), "left_anti")
            result["deleted"] = gone.count()
        if result["inserted"] or result["updated"]:
            source = changed.drop("_present", "_wanted")
            merge = self._delta(table).alias("t").merge(source.alias("s"), self._on(spec))
            # A column whose extractor left the configuration says nothing of a row that is made anew.
            left: dict[str, str | Column] = {
                quoted(name): "null" for name in self._columns(table) if name not in spec.column_names
            }
            merge = merge.whenMatchedUpdate(set=_values(spec) | left).whenNotMatchedInsert(values=_values(spec))
            self._writes(table, merge.execute)
        if result["deleted"]:
            merge = self._delta(table).alias("t").merge(wanted.select(*spec.key).alias("s"), self._on(spec))
            self._writes(table, merge.whenNotMatchedBySourceDelete().execute)
        return result

    def append(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Append a few rows, given as dictionaries, to an append-only table."""
        spec = self.spec(table)
        values = [tuple(row.get(column) for column in spec.column_names) for row in rows]
        if not values:
            return
        frame = self.session.createDataFrame(values, self.schema(table)).coalesce(1)
        if self.managed:
            self._writes(table, lambda: frame.write.format("delta").mode("append").saveAsTable(self.identifier(table)))
        else:
            path = self.folder("tables", spec.name)
            self._writes(table, lambda: frame.write.format("delta").mode("append").save(path))

    def delete(self, table: str, condition: Column) -> bool:
        """Delete the rows that meet a condition, so that they are computed again; nothing to delete writes no version.

        Returns:
            Whether a version was written.
        """
        return self._writes(table, lambda: self._delta(table).delete(condition))

    def delete_rows(self, table: str, rows: DataFrame) -> bool:
        """Delete the rows with these keys.

        Args:
            table: A table with a key.
            rows: The key's columns, of a sharded table also `shard`.

        Returns:
            Whether a version was written.
        """
        if rows.isEmpty():
            return False
        merge = self._delta(table).alias("t").merge(rows.alias("s"), self._on(self.spec(table)))
        return self._writes(table, merge.whenMatchedDelete().execute)

    def update(self, table: str, condition: Column, values: Mapping[str, Column]) -> bool:
        """Change columns of the rows that meet a condition.

        Returns:
            Whether a version was written.
        """
        changed: dict[str, str | Column] = dict(values)
        return self._writes(table, lambda: self._delta(table).update(condition, changed))

    def record(self, run: str, summaries: Iterable[Summary], started: datetime, finished: datetime) -> None:
        """Append summaries to `runs`, as one version.

        Args:
            run: The run they belong to.
            summaries: Of the stage, or of each of its steps.
            started: When it began, for those that do not say.
            finished: When it ended, for those that do not say.
        """
        self.append("runs", [self._recorded(run, summary, started, finished) for summary in summaries])

    def optimize(self, table: str) -> Row | None:
        """Compact a table's small files; the content stays the same."""
        return self._retrying(lambda: self._delta(table).optimize().executeCompaction().head())

    # -- inside -------------------------------------------------------------------------------------------------

    def _recorded(self, run: str, summary: Summary, started: datetime, finished: datetime) -> dict[str, object]:
        started, finished = summary.started_at or started, summary.finished_at or finished
        elapsed = max((finished - started).total_seconds(), 1e-9)
        columns = self.spec("runs").column_names
        row = {column: getattr(summary, column) for column in columns if hasattr(summary, column)}
        return row | {
            "message": redacted(summary.message),
            "run": run,
            "started_at": started,
            "finished_at": finished,
            "rows_per_second": summary.computed / elapsed if summary.computed else None,
        }

    def _delta(self, table: str) -> DeltaTable:
        if self.managed:
            return DeltaTable.forName(self.session, self.identifier(table))
        try:
            return DeltaTable.forPath(self.session, self.folder("tables", self.spec(table).name))
        except PySparkException as error:
            raise StageError(f"Table {table} does not exist under {self.where}.", "Run `smp ingest` first.") from error

    def _on(self, spec: TableSpec, shards: Sequence[str] | None = None) -> str:
        conditions = [f"t.{quoted(column)} = s.{quoted(column)}" for column in spec.key]
        if spec.sharded:
            named = ", ".join(literal(shard) for shard in (HEX_DIGITS if shards is None else sorted(shards)))
            conditions += [f"t.shard IN ({named})", "t.shard = s.shard"]
        return " AND ".join(conditions)

    def _columns(self, table: str) -> list[str]:
        return self.read(table).columns

    def _lacking(self, spec: TableSpec) -> list[TableColumn]:
        there = set(self._columns(spec.name))
        return [column for column in spec.columns if column.name not in there]

    def _check_columns(self, spec: TableSpec) -> None:
        if lacking := self._lacking(spec):
            raise StageError(
                f"Table {spec.name} was made by an older version and has no column {lacking[0].name}.",
                "Run `smp ingest` first: it adds what is new; then the other stages.",
            )

    def _conform(self, spec: TableSpec, rows: DataFrame) -> DataFrame:
        if spec.sharded and "shard" not in rows.columns:
            rows = rows.withColumn("shard", F.substring(spec.key[0], 1, 1))
        missing = set(spec.column_names) - set(rows.columns)
        extra = set(rows.columns) - set(spec.column_names)
        if missing or extra:
            raise SmpError(
                f"Rows for table {spec.name} do not have its columns: "
                f"missing {sorted(missing) or 'none'}, unknown {sorted(extra) or 'none'}."
            )
        return rows.select(*(F.col(c.name).cast(c.sql_type).alias(c.name) for c in spec.columns))

    def _writes(self, table: str, write: Callable[[], object]) -> bool:
        before = self.version(table)
        confirm(self.files.root)
        self._retrying(write)
        return self.version(table) != before

    def _retrying(self, action: Callable[[], T]) -> T:
        for attempt in Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_attempt(8),
            wait=wait_random_exponential(multiplier=0.3, max=10),
            reraise=True,
        ):
            with attempt:
                return action()
        raise AssertionError("unreachable: the last attempt re-raises")


def is_conflict(error: BaseException) -> bool:
    """Whether a write lost a race against another commit and may be tried again."""
    return type(error).__name__ in _CONFLICTS or any(name in str(error)[:2000] for name in _CONFLICTS)


def first_by_key(rows: DataFrame, key: Sequence[str]) -> DataFrame:
    """Keep one row per key: the smallest by a total order of all columns but `computed_at`, so always the same one."""
    order = [column for column in rows.columns if column not in (*key, "computed_at")]
    whole = F.struct(*order, *[c for c in rows.columns if c == "computed_at"])
    kept = rows.groupBy(*key).agg(F.min(whole).alias("_row"))
    return kept.select(*(c if c in key else F.col("_row")[c].alias(c) for c in rows.columns))


def create_statement(spec: TableSpec, identifier: str) -> str:
    """Return the CREATE TABLE statement of a specification, constraints included."""
    columns = ",\n  ".join(
        f"{quoted(c.name)} {c.sql_type}{' NOT NULL' if c.required else ''} COMMENT {literal(c.comment)}"
        for c in spec.columns
    )
    properties = ",\n  ".join(f"{literal(k)} = {literal(v)}" for k, v in spec.properties.items())
    partition = "PARTITIONED BY (shard)\n" if spec.sharded else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {identifier} (\n  {columns}\n) USING DELTA\n"
        f"{partition}COMMENT {literal(spec.comment)}\nTBLPROPERTIES (\n  {properties}\n)"
    )


def _values(spec: TableSpec) -> dict[str, str | Column]:
    """Return what a MERGE puts into each column of a specification; columns of the table beside them are not named."""
    return {quoted(name): f"s.{quoted(name)}" for name in spec.column_names}


def row_hash(columns: Sequence[Column | str]) -> Column:
    """Return a SHA-256 over columns that tells null from empty and does not depend on column types' printing."""
    return F.sha2(F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}), 256)


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
