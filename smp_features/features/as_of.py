"""What was known of a user when a post was made: the as-of join, and the columns no feature may come from."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from smp_features.errors import ConfigError
from smp_features.features.history import HISTORY
from smp_features.lake.specs import USER_PROFILES

_OUTCOMES = (
    "popularity", "label", "target", "outcome", "score", "rank", "ranking", "prediction", "view", "impression",
    "engagement", "fave", "favorite", "favourite", "like", "comment", "click", "repost", "retweet", "upvote",
    "download",
)  # fmt: skip

OUTCOME_WORDS = frozenset(form for word in _OUTCOMES for form in (word, f"{word}s", f"{word}count")) | {"predicted"}
"""Words of a column's name that say it was counted on the post after it was made, or computed from such a count."""

ORIGINS = ("user_data", "external")
"""Where profiles come from; see the table `user_profiles`."""


def check_time_rules(columns: Iterable[str]) -> None:
    """Refuse feature columns that only come to be known after a post was made: its views, its label, its prediction.

    Two sets of columns pass by their full names. Those of `user_profiles`, although they count views and faves: their
    rows are dated, and `with_profiles` shows a post only the ones known when it was made. And those of `HISTORY`,
    although they are made of labels: of other posts' labels, and `with_history` shows a post only the ones known when
    it was made.

    Args:
        columns: Names of feature columns.

    Raises:
        ConfigError: Some are post-outcome columns; all of them are named.
    """
    dated = {*USER_PROFILES.column_names, *HISTORY}
    refused = [name for name in columns if name not in dated and OUTCOME_WORDS & set(name.lower().split("_"))]
    if refused:
        raise ConfigError(
            f"Post-outcome columns cannot be features: {', '.join(sorted(refused))}. "
            "They are known only after the post was made, so a model trained on them would see its answer.",
            "Take them out of the feature catalogue; a count of a user's earlier posts needs a row with known_at.",
        )


def with_profiles(posts: DataFrame, profiles: DataFrame, time_rules: str) -> DataFrame:
    """Join to each post the user's latest profile with known_at <= event_ts, one of each origin.

    A profile known exactly when the post was made counts. Among profiles of one origin and instant the largest
    `row_hash` is taken, so the answer does not depend on the order of rows. Users' rows are sorted by time once for
    both origins: a user with n posts and n profiles costs n log n, where a range join makes n².

    Args:
        posts: One row per pid, with `uid` and `event_ts`.
        profiles: Rows of `user_profiles`.
        time_rules: `strict` joins both origins as of the post. `challenge` joins the latest external profile whatever
            its date, as the challenge allows when declared; the source's own record is joined as of the post still.

    Returns:
        The posts, each once, with the struct columns `user_data` and `external`, null where nothing was known.
    """
    shown = [F.when(F.col("origin") == origin, F.struct(*profiles.columns)).alias(origin) for origin in ORIGINS]
    made = posts.select("uid", F.col("event_ts").alias("_at"), F.lit(1).alias("_is_post"), F.struct("*").alias("_post"))
    known = profiles.select("uid", F.col("known_at").alias("_at"), F.lit(0).alias("_is_post"), "row_hash", *shown)
    timeline = made.unionByName(known, allowMissingColumns=True)

    in_time = Window.partitionBy("uid").orderBy("_at", "_is_post", "row_hash")
    so_far = in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    ever = in_time.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    frames = {"user_data": so_far, "external": ever if time_rules == "challenge" else so_far}
    latest = [F.last(origin, ignorenulls=True).over(frames[origin]).alias(origin) for origin in ORIGINS]
    return timeline.select("_is_post", "_post", *latest).where(F.col("_is_post") == 1).select("_post.*", *ORIGINS)
