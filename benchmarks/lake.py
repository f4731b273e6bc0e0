"""A lakehouse filled straight from contents, without an ingest, and the stage `extract` timed on it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from benchmarks.contents import REPOSITORY
from smp_features.config import Config
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary
from smp_features.session import get_session
from smp_features.stages import run_stage

CONTENTS = {"image": "images", "text": "texts"}


class Lake:
    """A lakehouse of posts that each refer to one picture, one title, or both.

    Args:
        root: Its folder.
        models: The `models` section of the configuration, such as `stand_in.stand_ins`; None leaves the demo models.
        extraction: The `extraction` section.
        spark: The `spark` section.
    """

    def __init__(
        self,
        root: Path,
        models: Mapping[str, Any] | None = None,
        extraction: Mapping[str, Any] | None = None,
        spark: Mapping[str, Any] | None = None,
    ) -> None:
        # Spark's workers import the stand-ins from here.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        sections = {"models": models, "extraction": extraction, "spark": spark}
        given = {name: json.loads(json.dumps(section)) for name, section in sections.items() if section}
        self.config = Config.model_validate({"root": str(root), **given})
        self.session = get_session(self.config)
        self.lakehouse = Lakehouse(self.session, self.config)
        self.lakehouse.create()

    def add(self, pictures: Path | None = None, titles: Path | None = None) -> None:
        """Add a post per picture and title, side by side; a post without a title has the empty one.

        Args:
            pictures: A Parquet file of `key` and `content` (bytes).
            titles: A Parquet file of `key` and `content` (text), with as many rows.
        """
        posts = None
        for kind, path in (("image", pictures), ("text", titles)):
            if path is None:
                continue
            rows = self.session.read.parquet(str(path))
            self._add_contents(kind, rows)
            named = {"image": ("number", "image_key"), "text": ("number", "title_key", "title")}[kind]
            part = rows.select("number", "key", *(["content"] if kind == "text" else [])).toDF(*named)
            posts = part if posts is None else posts.join(part, "number")
        if posts is None:
            return
        if titles is None:
            posts = posts.withColumn("title", F.lit("")).withColumn("title_key", F.sha2(F.lit(""), 256))
        posts = (
            posts.withColumn("pid", F.col("number").cast("string"))
            .withColumn("uid", F.lit("user"))
            .withColumn("split", F.lit("train"))
            .withColumn("event_ts", F.current_timestamp())
            .withColumn("known_at", F.current_timestamp())
            .withColumn("tags", F.lit(""))
            .withColumn("image_status", F.lit("missing" if pictures is None else "ok"))
            .withColumn("source_row", F.lit("made"))
            .withColumn("row_hash", F.col("pid"))
            .drop("number")
        )
        self.lakehouse.insert_new("posts", self._filled("posts", posts), distinct=True)

    def extract(self, *names: str) -> tuple[list[Summary], float]:
        """Run the stage; return its summaries and its wall-clock seconds, from the call to the recorded run."""
        started = time.perf_counter()
        summaries = run_stage(self.session, self.config, "extract", names=names or None)
        return summaries, time.perf_counter() - started

    def versions(self, tables: Sequence[str]) -> dict[str, int]:
        """Return the Delta version of tables."""
        return self.lakehouse.versions(tables)

    def close(self) -> None:
        """End the Spark session."""
        self.session.stop()

    def _add_contents(self, kind: str, rows: DataFrame) -> None:
        value = {"image": "bytes", "text": "text"}[kind]
        contents = rows.select(F.col("key").alias(f"{kind}_key"), F.col("content").alias(value))
        if kind == "image":
            contents = contents.withColumn("status", F.lit("ok"))
        self.lakehouse.insert_new(CONTENTS[kind], self._filled(CONTENTS[kind], contents), distinct=True)

    def _filled(self, table: str, rows: DataFrame) -> DataFrame:
        for column in self.lakehouse.spec(table).columns:
            if column.name not in (*rows.columns, "shard"):
                rows = rows.withColumn(column.name, F.lit(None).cast(column.sql_type))
        return rows
