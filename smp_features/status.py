"""Where things stand: rows per stage, and typed errors with example keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from smp_features.config import Config
from smp_features.errors import UsageError, nearest
from smp_features.extraction import statuses
from smp_features.extraction.plan import make_plans, read_versions, scope_of
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor
from smp_features.lake.tables import Lakehouse

EXAMPLES = 3
"""Example keys shown per kind of error."""

COUNTS = ("wanted", "ok", "failed", "left", "given_up")
"""Counts of a stage's rows; see `runs.Summary`."""


def status_of(session: SparkSession, config: Config) -> list[dict[str, Any]]:
    """Return where every stage stands, in the order they run.

    Counts of the extractors are taken from the tables as they are now; those of the other stages are what their last
    run counted, and null before there was one.

    Returns:
        Rows of `stage`, `wanted`, `ok`, `failed`, `left`, `given_up` (rows; see `runs.Summary`), `last_outcome`,
        `last_finished_at` (UTC), `last_run` and `message`, the last three null before the first run.

    Raises:
        StageError: There are no tables yet.
        ModelError: A configured model does not exist, so that its rows cannot be told.

    Example:
        >>> [row["wanted"] for row in status_of(spark, config) if row["stage"] == "extract/perplexity"]
        [0]
    """
    lakehouse = Lakehouse(session, config)
    lakehouse.check_layout()
    last = _last_runs(lakehouse)
    counts = _count(lakehouse, config)
    # The stages as their summaries name them; one that this version does not know comes last.
    order = ("ingest", *counts, "features", "training-set", "train", "score", "report")
    known = {stage: place for place, stage in enumerate(order)}
    rows = []
    for stage in sorted({*order, *last} - {"extract"}, key=lambda stage: (known.get(stage, len(known)), stage)):
        run = last.get(stage, {})
        fields = {name: counts.get(stage, run).get(name) for name in COUNTS}
        latest = {f"last_{name}": run.get(name) for name in ("outcome", "finished_at", "run")}
        rows.append({"stage": stage, **fields, **latest, "message": run.get("message")})
    return rows


def errors_of(session: SparkSession, config: Config, stage: str | None = None) -> list[dict[str, Any]]:
    """Return every kind of error with its number of rows and a few keys; never any content.

    Args:
        session: A Spark session with Delta.
        config: Decides which extractors' rows are meant.
        stage: `ingest`, or an extractor with or without `extract/`; None means all.

    Returns:
        Rows of `stage`, `kind` (`permanent`, `transient`, `refused` source rows, or `image` of posts), `status`,
        `rows`, `message` (an example) and `keys` (up to 3, comma-separated).

    Raises:
        UsageError: There is no such stage.
        StageError: There are no tables yet.
    """
    lakehouse = Lakehouse(session, config)
    lakehouse.check_layout()
    extractors = build_extractors(config.models)
    wanted = _stage_named(stage, extractors)
    found: list[DataFrame] = []
    if wanted in (None, "ingest"):
        found += _ingest_errors(lakehouse)
    for extractor in extractors.values():
        if wanted in (None, extractor.name):
            found += _extraction_errors(lakehouse, extractor)
    union = found[0]
    for frame in found[1:]:
        union = union.unionByName(frame)
    # Two steps, so that the example keys are bounded before they are collected.
    rank = F.row_number().over(Window.partitionBy("stage", "kind", "status").orderBy("key"))
    counted = (
        union.withColumn("_rank", rank)
        .groupBy("stage", "kind", "status")
        .agg(
            F.count("*").alias("rows"),
            F.min("message").alias("message"),
            F.array_join(F.array_sort(F.collect_list(F.when(F.col("_rank") <= EXAMPLES, F.col("key")))), ", ").alias(
                "keys"
            ),
        )
    )
    order = {"ingest": -1, **{extractor.stage: place for place, extractor in enumerate(extractors.values())}}
    rows = [row.asDict() for row in counted.collect()]
    return sorted(rows, key=lambda row: (order[row["stage"]], row["kind"], -row["rows"], row["status"]))


def _count(lakehouse: Lakehouse, config: Config) -> dict[str, dict[str, Any]]:
    extractors = {name: extractor.pinned() for name, extractor in build_extractors(config.models).items()}
    versions = read_versions(lakehouse, extractors.values(), extractors)
    counts: dict[str, dict[str, Any]] = {}
    attempts = config.extraction.max_attempts
    scopes = [scope_of(extractor, extractors, versions, attempts) for extractor in extractors.values()]
    for plan in make_plans(lakehouse, scopes, listing=False).values():
        ledger = plan.ledger
        values = (ledger.wanted, ledger.ok, ledger.failed, ledger.to_do, ledger.given_up)
        counts[plan.scope.extractor.stage] = dict(zip(COUNTS, values, strict=True))
    return counts


def _last_runs(lakehouse: Lakehouse) -> dict[str, dict[str, Any]]:
    newest = F.row_number().over(Window.partitionBy("stage").orderBy(F.desc("started_at"), F.desc("finished_at")))
    rows = lakehouse.read("runs").withColumn("_newest", newest).where("_newest = 1").collect()
    return {row["stage"]: row.asDict() for row in rows}


def _stage_named(stage: str | None, extractors: Iterable[str]) -> str | None:
    if stage is None:
        return None
    name = stage.removeprefix("extract/")
    if name != "ingest" and name not in extractors:
        raise UsageError(f"There are no typed errors of a stage '{stage}'.", nearest(name, ["ingest", *extractors]))
    return name


def _ingest_errors(lakehouse: Lakehouse) -> list[DataFrame]:
    refused = lakehouse.read("quarantine").select(
        F.lit("ingest").alias("stage"),
        F.lit("refused").alias("kind"),
        F.col("reason").alias("status"),
        F.col("source_row").alias("key"),
        F.col("detail").alias("message"),
    )
    # Counted by post, since a missing file has no image; the message is the image's where there is one.
    images = lakehouse.read("images").where(F.col("status") != statuses.OK).select("image_key", "error")
    pictures = (
        lakehouse.read("posts")
        .where(F.col("image_status") != statuses.OK)
        .join(images, "image_key", "left")
        .select(
            F.lit("ingest").alias("stage"),
            F.lit("image").alias("kind"),
            F.col("image_status").alias("status"),
            F.col("pid").alias("key"),
            F.col("error").alias("message"),
        )
    )
    return [refused, pictures]


def _extraction_errors(lakehouse: Lakehouse, extractor: Extractor) -> list[DataFrame]:
    fingerprint = extractor.fingerprint
    permanent = (
        lakehouse.read(extractor.table)
        .where((F.col("extractor") == fingerprint) & (F.col("status") != statuses.OK))
        .select(
            F.lit(extractor.stage).alias("stage"),
            F.lit("permanent").alias("kind"),
            "status",
            F.col(extractor.key).alias("key"),
            F.col("error").alias("message"),
        )
    )
    done = (
        lakehouse.read(extractor.table)
        .where(F.col("extractor") == fingerprint)
        .select(F.col(extractor.key).alias("key"))
    )
    # A failure that a later try made good is no error any more.
    transient = (
        lakehouse.read("attempts")
        .where((F.col("stage") == extractor.name) & (F.col("extractor") == fingerprint))
        .where(F.col("status") != statuses.RESET)
        .join(done, "key", "left_anti")
        .groupBy("key", "status")
        .agg(F.count("*").alias("tries"))
        .select(
            F.lit(extractor.stage).alias("stage"),
            F.lit("transient").alias("kind"),
            "status",
            "key",
            F.concat(F.lit("tried "), F.col("tries").cast("string"), F.lit(" times")).alias("message"),
        )
    )
    return [permanent, transient]
