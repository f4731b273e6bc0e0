"""What a user's earlier posts tell at a post: how many, how long ago, and the labels known by then.

Dated, not an outcome. A post sees another one of its user if that was made strictly earlier, so posts of one instant do
not see each other, and it sees that one's label from the label's `known_at` on. Its own label it never sees.

Training blanks these columns for the held-out users of the split `identity` (`training/nested.py`): there they stand
for users never met before, whose history nobody has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

HISTORY = (
    "history_post_count",
    "history_days_since_last",
    "history_known_label_count",
    "history_known_label_mean",
    "history_known_label_last",
)
"""The columns of the group `history`; each is a function of rows dated at or before the post."""

MICROS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Posted:
    """One post of a user.

    Attributes:
        pid: The post.
        event_ts: When it was made.
        popularity: Its label; None without one.
        known_at: When the label could be known; None without one.
    """

    pid: str
    event_ts: datetime
    popularity: float | None = None
    known_at: datetime | None = None


def user_history(post: Posted, posts: Iterable[Posted]) -> dict[str, float | None]:
    """Return the columns of the group `history` of a post.

    Args:
        post: The post.
        posts: Its user's posts of any split, in any order; it may be among them.

    Returns:
        The values as the feature table describes them: counts are 0 without earlier posts or known labels, all others
        None. The last label is the one of the latest post by time, the largest pid among those of one instant.

    Example:
        >>> from datetime import UTC
        >>> first = Posted("1", datetime(2016, 5, 1, tzinfo=UTC), 4.5, known_at=datetime(2016, 5, 2, tzinfo=UTC))
        >>> late = Posted("2", datetime(2016, 5, 3, tzinfo=UTC), 9.0, known_at=datetime(2016, 6, 1, tzinfo=UTC))
        >>> history = user_history(Posted("3", datetime(2016, 5, 5, tzinfo=UTC)), [first, late])
        >>> history["history_post_count"], history["history_known_label_mean"]  # the late label was not known yet
        (2.0, 4.5)
    """
    earlier = [other for other in posts if other.event_ts < post.event_ts]
    known = sorted(
        (other.event_ts, other.pid, other.popularity)
        for other in earlier
        if other.popularity is not None and other.known_at is not None and other.known_at <= post.event_ts
    )
    since = post.event_ts - max(other.event_ts for other in earlier) if earlier else None
    return {
        "history_post_count": float(len(earlier)),
        "history_days_since_last": None if since is None else since / timedelta(days=1),
        "history_known_label_count": float(len(known)),
        "history_known_label_mean": math.fsum(label for *_, label in known) / len(known) if known else None,
        "history_known_label_last": known[-1][2] if known else None,
    }


def with_history(posts: DataFrame, labels: DataFrame) -> DataFrame:
    """Add `user_history` to each post.

    A user's posts and labels are sorted by time once: n of them cost n log n, where a join by range makes n². A label
    takes its place when it could be known and its post could be seen, whichever is later; labels of one place stand in
    an order of their own, so the mean is the same to the last bit in every run.

    Args:
        posts: One row per pid, with `uid` and `event_ts`.
        labels: Rows of `labels`; those of other posts count for nobody.

    Returns:
        The posts, each once, with the double columns of `HISTORY`.
    """
    posted = F.unix_micros("event_ts")
    dated = labels.join(posts.select("pid", "uid", posted.alias("_posted")), "pid")
    known = dated.select(
        "uid",
        F.greatest(F.unix_micros("known_at"), F.col("_posted") + 1).alias("_at"),
        F.lit(0).alias("_is_post"),
        F.struct("_posted", "pid", "popularity").alias("_label"),
    )
    made = posts.select("uid", posted.alias("_at"), F.lit(1).alias("_is_post"), F.struct("*").alias("_post"))
    timeline = made.unionByName(known, allowMissingColumns=True)

    of_user = Window.partitionBy("uid")
    earlier = of_user.orderBy("_at").rangeBetween(Window.unboundedPreceding, -1)
    so_far = of_user.orderBy("_at", "_is_post", "_label").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    post_at = F.when(F.col("_is_post") == 1, F.col("_at"))
    values = {
        "history_post_count": F.count(post_at).over(earlier).cast("double"),
        "history_days_since_last": (F.col("_at") - F.max(post_at).over(earlier)) / MICROS_PER_DAY,
        "history_known_label_count": F.count("_label").over(so_far).cast("double"),
        "history_known_label_mean": F.avg(F.col("_label")["popularity"]).over(so_far),
        "history_known_label_last": F.max("_label").over(so_far)["popularity"],
    }
    rows = timeline.select("_is_post", "_post", *(values[name].alias(name) for name in HISTORY))
    return rows.where(F.col("_is_post") == 1).select("_post.*", *HISTORY)
