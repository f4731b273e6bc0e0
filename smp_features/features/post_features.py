"""The stage that keeps `post_features` up: one row per post, recomputed only where its inputs changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.catalogue import FEATURES
from smp_features.config import Config
from smp_features.errors import ReconciliationError
from smp_features.extractors import build_extractors
from smp_features.features import metadata
from smp_features.features.as_of import check_time_rules, with_profiles
from smp_features.features.history import HISTORY, with_history
from smp_features.features.inconsistency import SIMILARITIES, cosine_column
from smp_features.features.local_time import local_columns
from smp_features.features.scripts import script_columns
from smp_features.lake.specs import SPECS
from smp_features.lake.tables import Lakehouse, row_hash
from smp_features.runs import Phases, Summary

logger = logging.getLogger(__name__)

VERSION = 2
"""Raised whenever this package computes a feature differently; every row is then recomputed once."""

CONTENT_TABLES = ("captions", "image_embeddings", "text_embeddings", "perplexities")
INPUTS = ("posts", "labels", "user_profiles", *CONTENT_TABLES)

_POST_COLUMNS = (
    *("pid", "uid", "split", "event_ts", "title", "title_key", "tags"),
    *("category", "subcategory", "concept", "media_type", "path_alias"),
    *("latitude", "longitude", "geo_accuracy", "image_key", "image_status"),
)
_FOUND = ("caption_status", "caption_key", "image_found", "title_found", "caption_found", "perplexity_found")
_EXTERNAL = tuple(feature.name for feature in FEATURES if feature.group == "external")
_VECTORS = tuple(feature.name for feature in FEATURES if feature.kind == "vector")


@dataclass(frozen=True)
class Recipe:
    """What rows are made with: the fingerprints of the four extractors, by name, and the time rules."""

    fingerprints: Mapping[str, str]
    time_rules: str

    @property
    def columns(self) -> dict[str, str]:
        """The values recorded in every row: `caption_extractor` … and `time_rules`."""
        recorded = {f"{name}_extractor": fingerprint for name, fingerprint in sorted(self.fingerprints.items())}
        return recorded | {"time_rules": self.time_rules}


def configured_recipe(config: Config) -> Recipe:
    """Return what rows are to be made with, by the configuration. Model folders are digested, no model is loaded."""
    fingerprints = {name: extractor.fingerprint for name, extractor in build_extractors(config.models).items()}
    return Recipe(fingerprints, config.features.time_rules)


def features(session: SparkSession, config: Config, *, run: str) -> Summary:
    """Make `post_features` hold one row per post for the configured extractors and time rules.

    A post whose content is not extracted yet gets a row with nulls, and is recomputed when the content arrives. What
    a row is computed from is hashed into `inputs_key`; rows with the same `inputs_key` are left alone, so a run after
    one changed title computes one row, and a run after no change writes no version.

    Args:
        session: A Spark session with Delta.
        config: Its `models` and `features` decide the rows.
        run: The run's id, for its staging folder.

    Returns:
        wanted: posts; ok: rows; computed: rows made by this run.

    Raises:
        ConfigError: A feature is a post-outcome column.
        ModelError: A configured model is not there.
        ReconciliationError: Rows were lost or doubled.
    """
    check_time_rules(feature.name for feature in FEATURES)
    recipe = configured_recipe(config)
    lakehouse, phases = Lakehouse(session, config), Phases()
    versions = lakehouse.versions(INPUTS)
    before = lakehouse.version("post_features")

    with phases("plan"):
        inputs = resolved_inputs(lakehouse, recipe, versions)
        present = lakehouse.read("post_features", before).select("pid", "inputs_key")
        todo_folder = lakehouse.folder("staging", "post_features", run, "todo")
        inputs.join(present, ["pid", "inputs_key"], "left_anti").write.mode("overwrite").parquet(todo_folder)
        todo = session.read.parquet(todo_folder)
        computed = todo.count()
        posts = lakehouse.read("posts", versions["posts"]).select("pid")
        gone = present.join(posts, "pid", "left_anti").count()
    if computed:
        rows_folder = lakehouse.folder("staging", "post_features", run, "rows")
        with phases("compute"):
            feature_rows(with_vectors(lakehouse, todo, recipe, versions), recipe).write.mode("overwrite").parquet(
                rows_folder
            )
        with phases("write"):
            rows = session.read.parquet(rows_folder)
            _check_counts(rows, computed)
            lakehouse.synchronise("post_features", rows, "inputs_key")
    if gone:
        with phases("write"):
            kept = lakehouse.read("post_features").join(posts, "pid", "left_semi")
            lakehouse.synchronise("post_features", kept, "inputs_key", delete_missing=True)
    with phases("count"):
        lakehouse.discard("staging", "post_features", run)
        after = lakehouse.version("post_features")
        table = lakehouse.read("post_features", after)
        wanted, ok, details = posts.count(), *_described(table)
    if wanted != ok:
        raise ReconciliationError(
            f"post_features holds {ok} rows for {wanted} posts.",
            "Run `smp features` again; nothing is lost in `posts`.",
        )
    changed = after != before
    message = (
        f"post_features: {ok} rows, {computed} computed, {gone} removed"
        if changed
        else f"post_features: {ok} rows, all up to date"
    )
    logger.info(message)
    return Summary(
        "features",
        outcome="done" if changed else "nothing_to_do",
        wanted=wanted,
        ok=ok,
        computed=computed,
        seconds=phases.seconds,
        versions_read=versions,
        versions_written={"post_features": after} if changed else {},
        message=message,
        details=details,
    )


def resolved_inputs(lakehouse: Lakehouse, recipe: Recipe, versions: Mapping[str, int]) -> DataFrame:
    """Return everything but the vectors that a post's row is computed from, and its hash.

    Content rows are immutable under their key, so of embeddings only the presence and status are looked up: no vector
    is read here.

    Returns:
        One row per post: columns of `posts`, the group `history`, the profiles as structs `user_data` and `external`,
        caption and perplexity of the configured extractors, and `inputs_key`.
    """
    made_with = recipe.fingerprints

    def content(table: str, extractor: str, **columns: str) -> DataFrame:
        rows = lakehouse.read(table, versions[table]).where(F.col("extractor") == made_with[extractor])
        return rows.select(*(F.col(column).alias(name) for name, column in columns.items()))

    posts = lakehouse.read("posts", versions["posts"]).select(*_POST_COLUMNS)
    labels = lakehouse.read("labels", versions["labels"])
    profiles = lakehouse.read("user_profiles", versions["user_profiles"])
    captions = content(
        "captions", "caption", image_key="image_key", caption="caption", caption_key="text_key", caption_status="status"
    )
    images = content("image_embeddings", "clip_image", image_key="image_key", image_found="status")
    titles = content("text_embeddings", "clip_text", title_key="text_key", title_found="status")
    caption_texts = content("text_embeddings", "clip_text", caption_key="text_key", caption_found="status")
    perplexities = content(
        "perplexities",
        "perplexity",
        title_key="text_key",
        title_log_perplexity="log_perplexity",
        title_token_count="token_count",
        perplexity_found="status",
    )
    joined = with_profiles(with_history(posts, labels), profiles, recipe.time_rules)
    for rows, key in (
        (captions, "image_key"),
        (images, "image_key"),
        (titles, "title_key"),
        (caption_texts, "caption_key"),
        (perplexities, "title_key"),
    ):
        joined = joined.join(rows, key, "left")
    recorded = [F.lit(value).alias(name) for name, value in recipe.columns.items()]
    identity = [_plain(column) for column in _POST_COLUMNS]
    profile_hashes = [F.col(name)["row_hash"].alias(name) for name in ("user_data", "external")]
    hashed = row_hash([F.lit(VERSION).alias("version"), *recorded, *identity, *_FOUND, *HISTORY, *profile_hashes])
    return joined.withColumn("inputs_key", hashed)


def with_vectors(lakehouse: Lakehouse, inputs: DataFrame, recipe: Recipe, versions: Mapping[str, int]) -> DataFrame:
    """Join the embeddings of picture, caption and title; null where there is none."""

    def vectors(table: str, extractor: str, key: str, joined_by: str, name: str) -> DataFrame:
        rows = lakehouse.read(table, versions[table]).where(F.col("extractor") == recipe.fingerprints[extractor])
        return rows.select(F.col(key).alias(joined_by), F.col("embedding").alias(name))

    images = vectors("image_embeddings", "clip_image", "image_key", "image_key", "image_embedding")
    captions = vectors("text_embeddings", "clip_text", "text_key", "caption_key", "caption_embedding")
    titles = vectors("text_embeddings", "clip_text", "text_key", "title_key", "title_embedding")
    joined = inputs.join(images, "image_key", "left").join(captions, "caption_key", "left")
    return joined.join(titles, "title_key", "left")


def feature_rows(inputs: DataFrame, recipe: Recipe) -> DataFrame:
    """Compute the rows of `post_features` from resolved inputs with vectors; nothing is joined or looked up here."""
    values: dict[str, Column] = {
        **{name: cosine_column(left, right) for name, (left, right) in SIMILARITIES.items()},
        "title_log_perplexity": F.col("title_log_perplexity"),
        "title_token_count": F.col("title_token_count").cast("double"),
        **metadata.title_columns(),
        **script_columns(),
        **metadata.tag_columns(),
        **metadata.time_columns(),
        **local_columns("user_data"),
        **metadata.place_columns(),
        **metadata.user_columns("user_data"),
        "user_has_alias": F.col("path_alias").isNotNull().cast("double"),
        **{name: F.col("external")[name].cast("double") for name in _EXTERNAL},
        **{name: F.lit(value) for name, value in recipe.columns.items()},
        "computed_at": F.current_timestamp(),
    }
    made = inputs.select(
        *(
            values.get(name, F.col(name)).alias(name)
            for name in SPECS["post_features"].column_names
            if name != "features_key"
        )
    )
    hashed = [name for name in made.columns if name not in ("inputs_key", "computed_at")]
    return made.withColumn("features_key", row_hash([_plain(name) for name in hashed]))


def _plain(name: str) -> Column:
    """Return a column in a form whose JSON is the same everywhere: times without a zone, vectors as a hash."""
    if name == "event_ts":
        return F.unix_micros(name).alias(name)
    if name in _VECTORS:
        return F.when(F.col(name).isNotNull(), F.xxhash64(name)).alias(name)
    return F.col(name)


def _check_counts(rows: DataFrame, computed: int) -> None:
    counts = rows.agg(F.count("pid").alias("rows"), F.countDistinct("pid").alias("posts")).head()
    if counts is None or (counts["rows"], counts["posts"]) != (computed, computed):
        raise ReconciliationError(
            f"{computed} posts were to be recomputed, and their features came out as {counts}.",
            "A content table holds a key twice; nothing was written to post_features.",
        )


def _described(table: DataFrame) -> tuple[int, tuple[str, ...]]:
    counted = table.groupBy("image_status").agg(
        F.count("pid").alias("rows"),
        F.count("caption_title_similarity").alias("compared"),
        F.count("title_log_perplexity").alias("scored"),
    )
    groups = sorted(counted.collect(), key=lambda row: (-row["rows"], row["image_status"]))
    total = sum(row["rows"] for row in groups)
    if not total:
        return 0, ()
    compared, scored = (sum(row[name] for row in groups) for name in ("compared", "scored"))
    return total, (
        "pictures: " + ", ".join(f"{row['image_status']} {row['rows']}" for row in groups),
        f"with caption–title similarity: {compared} of {total} ({compared / total:.1%})",
        f"with title perplexity: {scored} of {total} ({scored / total:.1%})",
    )
