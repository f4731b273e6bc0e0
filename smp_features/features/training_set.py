"""The stage that materialises `training_set`: features as known at the post, joined with labels, users in folds.

Vectors. A booster and a tensor have no null, so a missing vector is zeros of its column's dimension, and a column
`has_<vector>` says 1 or 0. The dimension is the one of the column's other rows; a column without any vector at all
holds arrays of one zero. `model/vectors.py` applies the same rule in plain numpy.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import ReconciliationError, StageError
from smp_features.features.as_of import check_time_rules
from smp_features.features.post_features import Recipe, configured_recipe
from smp_features.lake.tables import Lakehouse, row_hash
from smp_features.runs import Phases, Summary
from smp_features.splits import GATE_FOLD, fold_column

logger = logging.getLogger(__name__)

INPUTS = ("post_features", "labels")


def training_set(session: SparkSession, config: Config, *, run: str) -> Summary:
    """Make `training_set` hold one row per labelled post with features; nothing is written when nothing changed.

    Features and labels are read at one pinned version each, recorded in the summary.

    Args:
        session: A Spark session with Delta.
        config: `training.folds`, `training.seed` and `registry.gate.share` decide the folds, `models` and `features`
            which rows are acceptable.
        run: The run's id; nothing here is staged under it.

    Returns:
        wanted: labelled posts; ok: rows; left: labelled posts without a row of features; computed: rows written.

    Raises:
        StageError: No labelled post has features; features were made by other extractors or time rules than
            configured; a label was known before its post was made; vectors of one column differ in length.
        ReconciliationError: Two posts have one row id, or rows were lost.
    """
    lakehouse, phases = Lakehouse(session, config), Phases()
    check_time_rules(feature.name for feature in lakehouse.catalogue.features)
    vectors = lakehouse.catalogue.of_kind("vector")
    recipe = configured_recipe(lakehouse)
    versions = lakehouse.versions(INPUTS)
    before = lakehouse.version("training_set")
    with phases("check"):
        labels = lakehouse.read("labels", versions["labels"])
        joined = joined_rows(lakehouse.read("post_features", versions["post_features"]), labels)
        wanted = labels.count()
        facts = _checked(joined, recipe, vectors)
    with phases("write"):
        rows = training_rows(lakehouse, joined, {name: facts[f"longest_{name}"] or 1 for name in vectors})
        counts = lakehouse.synchronise("training_set", rows, "row_hash", delete_missing=True)
    with phases("count"):
        after = lakehouse.version("training_set")
        ok, details = _described(lakehouse.read("training_set", after))
    if ok != facts["rows"]:
        raise ReconciliationError(
            f"training_set holds {ok} rows where {facts['rows']} were made.", "Run `smp training-set` again."
        )
    changed, left = after != before, wanted - ok
    written = counts["inserted"] + counts["updated"]
    message = f"training_set: {ok} rows, " + (
        f"{written} written, {counts['deleted']} removed" if changed else "all up to date"
    )
    if left:
        message += f"; {left} labelled posts have no features yet, run `smp features`"
    logger.info(message)
    return Summary(
        "training-set",
        outcome="done" if changed else "nothing_to_do",
        wanted=wanted,
        ok=ok,
        left=left,
        computed=written,
        seconds=phases.seconds,
        versions_read=versions,
        versions_written={"training_set": after} if changed else {},
        message=message,
        details=details,
    )


def joined_rows(features: DataFrame, labels: DataFrame) -> DataFrame:
    """Join features with labels: only posts that have both, each once.

    Returns:
        The columns of `post_features`, `popularity`, `label_known_at` and `row_id`.
    """
    known = labels.select("pid", "popularity", F.col("known_at").alias("label_known_at"))
    return features.join(known, "pid").withColumn("row_id", F.xxhash64("pid"))


def training_rows(lakehouse: Lakehouse, joined: DataFrame, dimensions: dict[str, int]) -> DataFrame:
    """Return the rows of `training_set`.

    Args:
        lakehouse: Its configuration decides columns, folds and gate.
        joined: What `joined_rows` returns.
        dimensions: Of each vector column.
    """
    training, gate = lakehouse.config.training, lakehouse.config.registry.gate
    zeros = {name: F.array_repeat(F.lit(0.0).cast("float"), width) for name, width in dimensions.items()}
    values: dict[str, Column] = {
        "fold": fold_column("uid", training.folds, training.seed, gate.share),
        **{name: F.coalesce(name, zero) for name, zero in zeros.items()},
        **{f"has_{name}": F.col(name).isNotNull().cast("double") for name in zeros},
    }
    made = joined.select(
        *(
            values.get(name, F.col(name)).alias(name)
            for name in lakehouse.spec("training_set").column_names
            if name != "row_hash"
        )
    )
    known_at = F.unix_micros("label_known_at").alias("label_known_at")
    lengths = [F.lit(width).alias(name) for name, width in dimensions.items()]
    return made.withColumn("row_hash", row_hash(["features_key", "popularity", known_at, "fold", *lengths]))


def _checked(joined: DataFrame, recipe: Recipe, vectors: Sequence[str]) -> Row:
    foreign = [
        F.count(F.when(F.col(name) != F.lit(value), 1)).alias(f"foreign_{name}")
        for name, value in recipe.columns.items()
    ]
    lengths = [
        how(F.when(F.col(name).isNotNull(), F.size(name))).alias(f"{said}_{name}")
        for name in vectors
        for how, said in ((F.min, "shortest"), (F.max, "longest"))
    ]
    facts = joined.agg(
        F.count("pid").alias("rows"),
        F.countDistinct("row_id").alias("row_ids"),
        F.count(F.when(F.col("label_known_at") < F.col("event_ts"), 1)).alias("early_labels"),
        *foreign,
        *lengths,
    ).head()
    assert facts is not None, "an aggregate without groups has one row"
    if not facts["rows"]:
        raise StageError("No labelled post has features, so there is nothing to train on.", "Run `smp features` first.")
    if facts["row_ids"] != facts["rows"]:
        raise ReconciliationError(
            f"{facts['rows']} labelled posts have {facts['row_ids']} distinct row ids.",
            "Either a pid is there twice or two pids share a 64-bit hash; rename one of those posts in the source.",
        )
    other = {name: facts[f"foreign_{name}"] for name in recipe.columns if facts[f"foreign_{name}"]}
    if other:
        named = ", ".join(f"{name} ({count} rows)" for name, count in other.items())
        raise StageError(f"post_features was made with another {named} than configured.", "Run `smp features` first.")
    if facts["early_labels"]:
        raise StageError(
            f"{facts['early_labels']} labels are older than their post: labels.known_at < post_features.event_ts.",
            "Check source.known_at.label_maturity_days, then run `smp ingest`.",
        )
    for name in vectors:
        if facts[f"shortest_{name}"] != facts[f"longest_{name}"]:
            raise StageError(
                f"post_features.{name} holds vectors of {facts[f'shortest_{name}']} and of "
                f"{facts[f'longest_{name}']} numbers under one extractor.",
                "The content table was written by something else; delete those rows, then run `smp extract`.",
            )
    return facts


def _described(table: DataFrame) -> tuple[int, tuple[str, ...]]:
    counted = table.groupBy("fold").agg(F.count("pid").alias("rows"), F.countDistinct("uid").alias("users")).collect()
    folds = [
        f"fold {row['fold']}: {row['rows']} rows of {row['users']} users"
        for row in sorted(counted, key=lambda row: row["fold"])
        if row["fold"] != GATE_FOLD
    ]
    gate = [f"gate, never trained on: {row['rows']} rows of {row['users']} users" for row in counted if row["fold"] < 0]
    return sum(row["rows"] for row in counted), tuple(folds + gate)
