"""The temporary Parquet files of one ingest run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from smp_features.errors import FilesError, RootError
from smp_features.ingest.columns import table_of
from smp_features.lake.staging import STAGING, running
from smp_features.lake.tables import Lakehouse

STAGE = "ingest"


class StagingArea:
    """Sets of Parquet files that go when the run ends, however it ends.

    Args:
        lakehouse: Its root holds them.
        run: The run; the files are under `staging/ingest/<run>`.
    """

    def __init__(self, lakehouse: Lakehouse, run: str) -> None:
        self.lakehouse = lakehouse
        self.run = run
        self._parts: dict[str, int] = {}
        self._running = ExitStack()

    def __enter__(self) -> StagingArea:
        try:
            self._running.enter_context(running(self.lakehouse.files, self.run))
        except FilesError as error:
            raise _unwritable(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        with self._running:
            self.lakehouse.files.delete_prefix(self._prefix())

    def drop(self, name: str) -> None:
        """Remove one set of files."""
        self.lakehouse.files.delete_prefix(self._prefix(name))

    def at(self, name: str) -> str:
        """Return the folder of one set of files, as Spark calls it."""
        return self.lakehouse.files.at(self._prefix(name))

    def add(self, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Add rows to a set of files, without Spark, in which they would pass through the JVM.

        Raises:
            RootError: The disk is full, or the root cannot be written.
        """
        if not rows:
            return
        content = io.BytesIO()
        # Numbers of vectors hardly repeat: looking for a dictionary and compressing them takes time and saves nothing.
        plain = [field.name for field in schema if not pa.types.is_list(field.type)]
        pq.write_table(
            table_of(rows, schema),
            content,
            compression="snappy" if len(plain) == len(schema) else "none",
            use_dictionary=plain,
            write_statistics=plain,
        )
        part = self._parts[name] = self._parts.get(name, 0) + 1
        try:
            self.lakehouse.files.put(f"{self._prefix(name)}/part-{part:06d}.parquet", content.getvalue())
        except FilesError as error:
            raise _unwritable(error) from None

    def read(self, name: str) -> DataFrame:
        """Read a set of files that rows were added to, or that a Spark job wrote."""
        return self.lakehouse.session.read.parquet(self.at(name))

    def keep(self, name: str, rows: DataFrame) -> DataFrame:
        """Write rows as a set of files and return them read back, so that what made them is not run again."""
        rows.write.parquet(self.at(name))
        return self.read(name)

    def _prefix(self, *parts: str) -> str:
        return "/".join((STAGING, STAGE, self.run, *parts))


def _unwritable(error: FilesError) -> RootError:
    return RootError(
        f"Nothing can be staged: {error.message}",
        "No table was changed. Make room or mend the permissions, then run the same command again.",
    )
