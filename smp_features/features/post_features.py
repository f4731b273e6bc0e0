"""The stage that keeps `post_features` up: one row per post, recomputed only where its inputs changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.catalogue import BUILT_IN, Catalogue, Cosine, Lookup, fingerprint_column
from smp_features.config import Config
from smp_features.errors import ReconciliationError
from smp_features.features import metadata
from smp_features.features.as_of import check_time_rules, with_profiles
from smp_features.features.history import HISTORY, with_history
from smp_features.features.inconsistency import cosine_column
from smp_features.features.local_time import local_columns
from smp_features.features.lookup import joins, made_of, with_values, with_vectors
from smp_features.features.scripts import script_columns
from smp_features.lake.staging import staged
from smp_features.lake.tables import Lakehouse, canonical_json, row_hash
from smp_features.runs import Phases, Summary

logger = logging.getLogger(__name__)

VERSION = 2
"""Raised whenever this package computes a feature differently; every row is then recomputed once."""

_POST_COLUMNS = (
    *("pid", "uid", "split", "event_ts", "title", "title_key", "tags"),
    *("category", "subcategory", "concept", "media_type", "path_alias"),
    *("latitude", "longitude", "geo_accuracy", "image_key", "image_status"),
)
EXTERNAL = tuple(feature.name for feature in BUILT_IN if feature.group == "external")


@dataclass(frozen=True)
class Recipe:
    """What rows are made with: the fingerprints of the extractors, by name, and the time rules."""

    fingerprints: Mapping[str, str]
    time_rules: str

    @property
    def columns(self) -> dict[str, str]:
        """The values recorded in every row: `caption_extractor` … and `time_rules`."""
        recorded = {fingerprint_column(name): value for name, value in sorted(self.fingerprints.items())}
        return recorded | {"time_rules": self.time_rules}


def configured_recipe(lakehouse: Lakehouse) -> Recipe:
    """Return what rows are to be made with, by the configuration. Model folders are digested, no model is loaded."""
    fingerprints = {name: extractor.fingerprint for name, extractor in lakehouse.extractors.items()}
    return Recipe(fingerprints, lakehouse.config.features.time_rules)


@staged
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
    lakehouse, phases = Lakehouse(session, config), Phases()
    catalogue, joined = lakehouse.catalogue, joins(lakehouse)
    check_time_rules(feature.name for feature in catalogue.features)
    recipe = configured_recipe(lakehouse)
    versions = lakehouse.versions(inputs_of(lakehouse))
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
        wanted = posts.count()
    if computed:
        rows_folder = lakehouse.folder("staging", "post_features", run, "rows")
        with phases("compute"):
            complete = with_vectors(todo, lakehouse, joined, recipe.fingerprints, versions)
            feature_rows(lakehouse, complete, recipe).write.mode("overwrite").parquet(rows_folder)
        with phases("write"):
            rows = session.read.parquet(rows_folder)
            _check_counts(rows, computed)
            _check_posts(present.select("pid").union(rows.select("pid")).join(posts, "pid", "left_semi"), wanted)
            lakehouse.synchronise("post_features", rows, "inputs_key")
    if gone:
        with phases("write"):
            kept = lakehouse.read("post_features").select(*lakehouse.spec("post_features").column_names)
            kept = kept.join(posts, "pid", "left_semi")
            lakehouse.synchronise("post_features", kept, "inputs_key", delete_missing=True)
    with phases("count"):
        lakehouse.files.delete_prefix(f"staging/post_features/{run}")
        after = lakehouse.version("post_features")
        table = lakehouse.read("post_features", after)
        ok, details = _described(table)
    _check_held(ok, wanted)
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


def inputs_of(lakehouse: Lakehouse) -> tuple[str, ...]:
    """Return the tables that features are made from."""
    return ("posts", "labels", "user_profiles", *lakehouse.content_tables)


def resolved_inputs(lakehouse: Lakehouse, recipe: Recipe, versions: Mapping[str, int]) -> DataFrame:
    """Return everything but the vectors that a post's row is computed from, and its hash.

    Content rows are immutable under their key, so of embeddings only the presence and status are looked up: no vector
    is read here.

    Returns:
        One row per post: columns of `posts`, the group `history`, the profiles as structs `user_data` and `external`,
        the texts, numbers and categories of the configured extractors, and `inputs_key`.
    """
    posts = lakehouse.read("posts", versions["posts"]).select(*_POST_COLUMNS)
    labels = lakehouse.read("labels", versions["labels"])
    profiles = lakehouse.read("user_profiles", versions["user_profiles"])
    known = with_profiles(with_history(posts, labels), profiles, recipe.time_rules)
    joined = joins(lakehouse)
    complete = with_values(known, lakehouse, joined, recipe.fingerprints, versions)
    made = canonical_json([VERSION, made_of(lakehouse.catalogue)])
    recorded = [F.lit(value).alias(name) for name, value in recipe.columns.items()]
    identity = [_plain(column) for column in _POST_COLUMNS]
    profile_hashes = [F.col(name)["row_hash"].alias(name) for name in ("user_data", "external")]
    found = [name for join in joined for name in (join.found, *join.text_keys)]
    hashed = row_hash([F.lit(made).alias("made"), *recorded, *identity, *found, *HISTORY, *profile_hashes])
    return complete.withColumn("inputs_key", hashed)


def feature_rows(lakehouse: Lakehouse, inputs: DataFrame, recipe: Recipe) -> DataFrame:
    """Compute the rows of `post_features` from resolved inputs with vectors; nothing is joined or looked up here."""
    values: dict[str, Column] = {
        **extracted_columns(lakehouse.catalogue),
        **metadata.post_columns("user_data"),
        **script_columns(),
        **local_columns("user_data"),
        **{name: F.col("external")[name].cast("double") for name in EXTERNAL},
        **{name: F.lit(value) for name, value in recipe.columns.items()},
        "computed_at": F.current_timestamp(),
    }
    made = inputs.select(
        *(
            values.get(name, F.col(name)).alias(name)
            for name in lakehouse.spec("post_features").column_names
            if name != "features_key"
        )
    )
    hashed = [name for name in made.columns if name not in ("inputs_key", "computed_at")]
    vectors = lakehouse.catalogue.of_kind("vector")
    return made.withColumn("features_key", row_hash([_plain(name, vectors) for name in hashed]))


def extracted_columns(catalogue: Catalogue) -> dict[str, Column]:
    """Return the features of extractors, from inputs that hold what was looked up."""
    found: dict[str, Column] = {}
    for feature in catalogue.features:
        if isinstance(feature.made, Cosine):
            found[feature.name] = cosine_column(feature.made.left, feature.made.right)
        elif isinstance(feature.made, Lookup):
            found[feature.name] = F.col(feature.name).cast(feature.sql_type)
    return found


def _plain(name: str, vectors: Collection[str] = ()) -> Column:
    """Return a column in a form whose JSON is the same everywhere: times without a zone, vectors as a hash."""
    if name == "event_ts":
        return F.unix_micros(name).alias(name)
    if name in vectors:
        return F.when(F.col(name).isNotNull(), F.xxhash64(name)).alias(name)
    return F.col(name)


def _check_counts(rows: DataFrame, computed: int) -> None:
    counts = rows.agg(F.count("pid").alias("rows"), F.countDistinct("pid").alias("posts")).head()
    if counts is None or (counts["rows"], counts["posts"]) != (computed, computed):
        raise ReconciliationError(
            f"{computed} posts were to be recomputed, and their features came out as {counts}.",
            "A content table holds a key twice; nothing was written to post_features.",
        )


def _check_posts(held: DataFrame, wanted: int) -> None:
    """Check the posts that the table is about to hold, while it is as it was."""
    _check_held(held.distinct().count(), wanted)


def _check_held(rows: int, posts: int) -> None:
    if rows != posts:
        raise ReconciliationError(
            f"post_features holds {rows} rows for {posts} posts.",
            "Run `smp features` again; nothing is lost in `posts`.",
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
