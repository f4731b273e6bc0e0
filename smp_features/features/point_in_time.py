"""What was known of a user when a post was made: the as-of join, and the columns no feature may come from."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from smp_features.errors import ConfigError
from smp_features.table_specs import SPECS

OUTCOME_WORDS = frozenset(
    ("popularity", "label", "labels", "target", "outcome", "score", "rank", "prediction", "predicted", "view", "views")
) | frozenset(("fave", "faves", "favorites", "favourites", "like", "likes", "comment", "comments"))
"""Words of a column's name that say it was counted on the post after it was made, or computed from such a count."""


def check_time_rules(columns: Iterable[str]) -> None:
    """Refuse feature columns that only come to be known after a post was made: its views, its label, its prediction.

    Columns of `user_profiles` pass although they count views and faves: their rows are dated, and `as_of` shows a
    post only the ones known when it was made.

    Args:
        columns: Names of feature columns.

    Raises:
        ConfigError: Some are post-outcome columns; all of them are named.
    """
    dated = set(SPECS["user_profiles"].column_names)
    refused = [name for name in columns if name not in dated and OUTCOME_WORDS & set(name.lower().split("_"))]
    if refused:
        raise ConfigError(
            f"Post-outcome columns cannot be features: {', '.join(sorted(refused))}. "
            "They are known only after the post was made, so a model trained on them would see its answer.",
            "Take them out of the feature catalogue; a count of a user's earlier posts needs a row with known_at.",
        )


def as_of(posts: DataFrame, profiles: DataFrame, name: str) -> DataFrame:
    """Join to each post the user's latest profile with known_at <= event_ts.

    A profile known exactly when the post was made counts. Among profiles of the same instant the largest `row_hash`
    is taken, so the answer does not depend on the order of rows. One pass over users' rows sorted by time: a user
    with n posts and n profiles costs n log n, where a range join makes n².

    Args:
        posts: One row per pid, with `uid` and `event_ts`.
        profiles: Rows with `uid`, `known_at` and `row_hash`.
        name: The column that holds the profile.

    Returns:
        The posts, each once, with a struct column `name`: the profile's row, null if none was known.
    """
    before = F.struct(*profiles.columns)
    timeline = posts.select(
        "uid", F.col("event_ts").alias("_at"), F.lit(1).alias("_is_post"), F.struct("*").alias("_post")
    )
    timeline = timeline.unionByName(
        profiles.select("uid", F.col("known_at").alias("_at"), F.lit(0).alias("_is_post"), before.alias(name)),
        allowMissingColumns=True,
    )
    order = Window.partitionBy("uid").orderBy("_at", "_is_post", F.col(name)["row_hash"])
    latest = F.last(name, ignorenulls=True).over(order.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    return timeline.withColumn(name, latest).where(F.col("_is_post") == 1).select("_post.*", name)


def latest(posts: DataFrame, profiles: DataFrame, name: str) -> DataFrame:
    """Join to each post the user's latest profile, whatever its date: what the challenge's rules allow if declared.

    Args and return value are those of `as_of`.
    """
    newest = profiles.groupBy("uid").agg(
        F.max_by(F.struct(*profiles.columns), F.struct("known_at", "row_hash")).alias(name)
    )
    return posts.join(newest, "uid", "left").select(*posts.columns, name)


def with_profiles(posts: DataFrame, profiles: DataFrame, time_rules: str) -> DataFrame:
    """Join the profiles of both origins as the time rules allow.

    Args:
        posts: One row per pid, with `uid` and `event_ts`.
        profiles: Rows of `user_profiles`.
        time_rules: `strict` joins both origins as of the post; `challenge` joins external profiles whatever their
            date. The source's own user record is joined as of the post under both.

    Returns:
        The posts, each once, with the struct columns `user_data` and `external`, null where nothing was known.
    """
    own = profiles.where(F.col("origin") == "user_data")
    external = profiles.where(F.col("origin") == "external")
    joined = as_of(posts, own, "user_data")
    return latest(joined, external, "external") if time_rules == "challenge" else as_of(joined, external, "external")
