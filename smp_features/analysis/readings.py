"""What the report reads from the tables: counts made by Spark, and the few columns that figures need, as pandas."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from smp_features.analysis.cleaning import RULES, cleaning_flags
from smp_features.catalogue import fingerprint_column
from smp_features.features.metadata import time_columns
from smp_features.images import decode_rgb
from smp_features.lake.tables import Lakehouse
from smp_features.refusals import InputRefused

logger = logging.getLogger(__name__)

SIMILARITIES = {
    "caption_title_similarity": "caption against title",
    "image_title_similarity": "image against title",
    "image_caption_similarity": "image against caption",
}
"""The three similarities of `post_features`, and what figures call them."""

PERPLEXITY = "title_log_perplexity"


@dataclass(frozen=True)
class Extreme:
    """One post of the gallery; title and caption are untrusted.

    Attributes:
        pid: The post.
        title: As extracted, '' if empty.
        caption: As generated.
        similarity: Cosine of caption and title.
        popularity: The label; None without one.
        image_key: Of the picture; None without one.
    """

    pid: str
    title: str
    caption: str
    similarity: float
    popularity: float | None
    image_key: str | None


def post_counts(lakehouse: Lakehouse) -> pd.DataFrame:
    """Return per split: `split`, `posts`, `labels`, `users`, `with_picture`, `first` and `last` (UTC)."""
    labels = lakehouse.read("labels").select("pid", F.lit(1).alias("labelled"))
    posts = lakehouse.read("posts").select("pid", "split", "uid", "event_ts", "image_status")
    return (
        posts.join(labels, "pid", "left")
        .groupBy("split")
        .agg(
            F.count("*").alias("posts"),
            F.count("labelled").alias("labels"),
            F.countDistinct("uid").alias("users"),
            F.count(F.when(F.col("image_status") == "ok", 1)).alias("with_picture"),
            F.date_format(F.min("event_ts"), "yyyy-MM-dd").alias("first"),
            F.date_format(F.max("event_ts"), "yyyy-MM-dd").alias("last"),
        )
        .orderBy(F.desc("split"))
        .toPandas()
    )


def error_counts(lakehouse: Lakehouse) -> pd.DataFrame:
    """Count everything that is not `ok`, by where it is recorded: `table`, `extractor`, `status`, `n`.

    The picture of each post, source rows refused, permanent errors of every extractor, and transient failures.
    """
    none = F.lit("").alias("extractor")
    posts = lakehouse.read("posts").select(F.lit("posts").alias("table"), none, F.col("image_status").alias("status"))
    refused = lakehouse.read("quarantine").select(
        F.lit("quarantine").alias("table"), none, F.col("reason").alias("status")
    )
    attempts = (
        lakehouse.read("attempts")
        .where(F.col("status") != "reset")
        .select(F.lit("attempts").alias("table"), F.coalesce("extractor", F.lit("")).alias("extractor"), "status")
    )
    rows = posts.union(refused).union(attempts)
    for name in lakehouse.content_tables:
        rows = rows.union(lakehouse.read(name).select(F.lit(name).alias("table"), "extractor", "status"))
    counted = rows.where(F.col("status") != "ok").groupBy("table", "extractor", "status").agg(F.count("*").alias("n"))
    return counted.orderBy("table", "extractor", F.desc("n"), "status").toPandas()


def last_runs(lakehouse: Lakehouse) -> pd.DataFrame:
    """Return where each stage stands, in the order in which the stages last ran.

    `stage`, then of its latest run `outcome`, `wanted`, `ok`, `failed`, `left`, `given_up` and `seconds`, then of all
    its runs together `computed` and `model_loads`.
    """
    seconds = F.col("finished_at").cast("double") - F.col("started_at").cast("double")
    latest = F.struct("outcome", "wanted", "ok", "failed", "left", "given_up", seconds.alias("seconds"))
    stages = (
        lakehouse.read("runs")
        .where(F.col("stage") != "report")
        .groupBy("stage")
        .agg(
            F.max_by(latest, "started_at").alias("latest"),
            F.max("started_at").alias("at"),
            F.sum("computed").alias("computed"),
            F.sum("model_loads").alias("model_loads"),
        )
    )
    return stages.orderBy("at", "stage").select("stage", "latest.*", "computed", "model_loads").toPandas()


def extractors_in_use(lakehouse: Lakehouse) -> pd.DataFrame:
    """Return the extractors behind the rows of `post_features`: `name`, `extractor`, `description` (JSON), `posts`."""
    columns = [fingerprint_column(name) for name in lakehouse.extractors]
    used = lakehouse.read("post_features").select(F.explode(F.array(*columns)).alias("extractor"))
    counted = used.groupBy("extractor").agg(F.count("*").alias("posts"))
    described = lakehouse.read("extractors").select("extractor", "name", "description")
    return counted.join(described, "extractor", "left").orderBy("name", "extractor").toPandas()


def profile_origins(lakehouse: Lakehouse) -> pd.DataFrame:
    """Return per origin of user profiles: `origin`, `assumed`, `profiles`, `users`, `first` and `last` known_at."""
    return (
        lakehouse.read("user_profiles")
        .groupBy("origin", "assumed")
        .agg(
            F.count("*").alias("profiles"),
            F.countDistinct("uid").alias("users"),
            F.date_format(F.min("known_at"), "yyyy-MM-dd").alias("first"),
            F.date_format(F.max("known_at"), "yyyy-MM-dd").alias("last"),
        )
        .orderBy("origin", "assumed")
        .toPandas()
    )


def feature_coverage(lakehouse: Lakehouse) -> pd.DataFrame:
    """Count per split the posts that have each measure: `split`, `posts`, the measures' columns, `external`."""
    external = F.coalesce(*lakehouse.catalogue.columns_of("external"))
    return (
        lakehouse.read("post_features")
        .groupBy("split")
        .agg(
            F.count("*").alias("posts"),
            F.count("caption").alias("caption"),
            *(F.count(name).alias(name) for name in (*SIMILARITIES, PERPLEXITY)),
            F.count("user_photo_count").alias("user_photo_count"),
            F.count(external).alias("external"),
        )
        .orderBy(F.desc("split"))
        .toPandas()
    )


def measures(lakehouse: Lakehouse) -> pd.DataFrame:
    """Return what the analysis knows of every post, labelled or not; titles stay where they are.

    Returns:
        `pid`, `split`, `popularity` (NaN without a label), the three similarities and the log-perplexity (NaN where
        missing), `uid`, `category`, `event_epoch_days` and `event_weekday`, and one bool column per rule of
        `cleaning.RULES`.
    """
    moment = time_columns()
    features = lakehouse.read("post_features").select(
        *("pid", "uid", "split", "category", *SIMILARITIES, PERPLEXITY, "title"),
        *(moment[name].alias(name) for name in ("event_epoch_days", "event_weekday")),
    )
    labels = lakehouse.read("labels").select("pid", "popularity")
    joined = features.join(labels, "pid", "left")
    kept = [field for field in joined.schema.fields if field.name != "title"]
    schema = T.StructType([*kept, *(T.StructField(name, T.BooleanType()) for name in RULES)])
    frame: pd.DataFrame = joined.mapInPandas(_with_flags, schema).toPandas()
    numbers = ("popularity", *SIMILARITIES, PERPLEXITY)
    return frame.astype({**dict.fromkeys(numbers, "float64"), **dict.fromkeys(RULES, "bool")})


def _with_flags(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
    """Put the flags of each title in its place."""
    for batch in batches:
        flags = cleaning_flags(batch["title"])
        yield pd.concat([batch.drop(columns="title").reset_index(drop=True), flags], axis=1)


def titles(lakehouse: Lakehouse, pids: Iterable[str]) -> dict[str, str]:
    """Return the titles of some posts by pid; untrusted text."""
    rows = lakehouse.read("posts").where(F.col("pid").isin(list(pids))).select("pid", "title").collect()
    return {row["pid"]: row["title"] for row in rows}


def predictions(lakehouse: Lakehouse, model: str, version: str) -> pd.DataFrame:
    """Return a model version's predictions: `pid`, `uid`, `predicted`, `seen` (the user has a labelled post)."""
    labelled = lakehouse.read("labels").select("pid")
    posts = lakehouse.read("posts").select("pid", "uid")
    known = posts.join(labelled, "pid").select("uid").distinct().withColumn("seen", F.lit(True))
    made = lakehouse.read("predictions").where((F.col("model") == model) & (F.col("model_version") == version))
    rows = made.select("pid", F.col("prediction").alias("predicted")).join(posts, "pid").join(known, "uid", "left")
    return rows.select("pid", "uid", "predicted", F.coalesce("seen", F.lit(False)).alias("seen")).toPandas()


def extremes(lakehouse: Lakehouse, count: int, consistent: bool) -> list[Extreme]:
    """Return the posts whose caption and title agree most, or least; ties by pid.

    Args:
        lakehouse: The tables.
        count: Most posts.
        consistent: The most consistent ones, else the least.
    """
    features = lakehouse.read("post_features").select("pid", "title", "caption", "caption_title_similarity")
    order = F.desc("caption_title_similarity") if consistent else F.asc("caption_title_similarity")
    chosen = features.where(F.col("caption_title_similarity").isNotNull()).orderBy(order, "pid").limit(count)
    keys = lakehouse.read("posts").select("pid", "image_key")
    labels = lakehouse.read("labels").select("pid", "popularity")
    joined: DataFrame = F.broadcast(chosen).join(keys, "pid", "left").join(labels, "pid", "left")
    return [
        Extreme(r["pid"], r["title"], r["caption"], r["caption_title_similarity"], r["popularity"], r["image_key"])
        for r in joined.orderBy(order, "pid").collect()
    ]


def pictures(lakehouse: Lakehouse, keys: Iterable[str], render: Callable[[Image.Image], str]) -> dict[str, str]:
    """Return what `render` makes of each decodable picture, by image key; only the keys' shards are read.

    Args:
        lakehouse: The tables.
        keys: Image keys, few.
        render: From an upright RGB picture to text, such as a `data:` URI.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    images = lakehouse.read("images", shards=sorted({key[0] for key in wanted}))
    rows = images.where(F.col("image_key").isin(wanted) & (F.col("status") == "ok")).select("image_key", "bytes")
    shown = {}
    for row in rows.toLocalIterator():
        try:
            shown[row["image_key"]] = render(decode_rgb(bytes(row["bytes"])))
        except InputRefused as refusal:  # decoded when it was ingested, so by other limits than today's
            logger.warning("picture %s is not shown: %s", row["image_key"], refusal.status)
    return shown
