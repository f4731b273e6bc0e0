"""The temporary Parquet files of one ingest run, on a local root or on an object store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema

from smp_features.errors import RootError
from smp_features.lake.tables import Lakehouse
from smp_features.runs import is_local

logger = logging.getLogger(__name__)

STAGE = "ingest"


class StagingArea:
    """A folder of Parquet files that goes when the run ends, however it ends.

    Args:
        lakehouse: Its root holds the folder.
        run: The run; the folder is `staging/ingest/<run>`.

    Raises:
        RootError: The folder cannot be created.
    """

    def __init__(self, lakehouse: Lakehouse, run: str) -> None:
        self.lakehouse = lakehouse
        self.run = run
        self._local = is_local(lakehouse.config.root)
        self._parts: dict[str, int] = {}
        if self._local:
            try:
                Path(lakehouse.folder("staging", STAGE)).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(lakehouse.config.root, error) from None
            self._sweep()

    def __enter__(self) -> StagingArea:
        return self

    def __exit__(self, *_: object) -> None:
        self.lakehouse.discard("staging", STAGE, self.run)
        if self._local:
            for folder in (self.lakehouse.folder("staging", STAGE), self.lakehouse.folder("staging")):
                with suppress(OSError):  # it holds another stage's files
                    Path(folder).rmdir()

    def drop(self, name: str) -> None:
        """Remove one set of files."""
        self.lakehouse.discard("staging", STAGE, self.run, name)

    def at(self, name: str) -> str:
        """Return the folder of one set of files."""
        return self.lakehouse.folder("staging", STAGE, self.run, name)

    def add(self, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Add rows to a set of files; on a local root without Spark, whose rows would pass through the JVM.

        Raises:
            RootError: The disk is full, or the folder cannot be written.
        """
        if not rows:
            return
        table = pa.Table.from_pydict(
            {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema
        )
        if not self._local:
            self._add_with_spark(name, table)
            return
        part = self._parts[name] = self._parts.get(name, 0) + 1
        try:
            Path(self.at(name)).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, f"{self.at(name)}/part-{part:06d}.parquet", compression="snappy")
        except OSError as error:
            raise _unwritable(self.lakehouse.config.root, error) from None

    def read(self, name: str) -> DataFrame:
        """Read a set of files that rows were added to, or that a Spark job wrote."""
        return self.lakehouse.session.read.parquet(self.at(name))

    def keep(self, name: str, rows: DataFrame) -> DataFrame:
        """Write rows as a set of files and return them read back, so that what made them is not run again."""
        rows.write.parquet(self.at(name))
        return self.read(name)

    def _add_with_spark(self, name: str, table: pa.Table) -> None:
        values = [tuple(row.values()) for row in table.to_pylist()]
        frame = self.lakehouse.session.createDataFrame(values, from_arrow_schema(table.schema))
        frame.coalesce(1).write.mode("append").parquet(self.at(name))

    def _sweep(self) -> None:
        """Remove what killed runs left on a local root, whose lock says that none of them is alive."""
        for leftover in Path(self.lakehouse.folder("staging", STAGE)).iterdir():
            logger.info("removing unfinished staging %s", leftover.name)
            self.lakehouse.discard("staging", STAGE, leftover.name)


def _unwritable(root: str, error: OSError) -> RootError:
    return RootError(
        f"Nothing can be staged under {root}: {error.strerror or type(error).__name__}.",
        "No table was changed. Make room or mend the permissions, then run the same command again.",
    )
