"""What a staged post is, and how a source's row becomes one or is refused: as plain values, and as Spark columns."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from smp_features.errors import SourceError, nearest
from smp_features.lake.specs import LABELS, POSTS, USER_PROFILES, arrow_schema
from smp_features.lake.specs import Column as TableColumn
from smp_features.lake.tables import row_hash
from smp_features.sources.base import EARLIEST_S, LATEST_S, MAX_POPULARITY, SPLITS, Refusal, Row, Split, repaired

_MADE_LATER = frozenset({"known_at", "image_key", "row_hash"})
_MADE_HERE = ("title_key", "image_size", "image_modified_at", "image_status")

EXTERNAL_COUNTS = tuple(name for name in USER_PROFILES.column_names if name.startswith("external_"))
"""Counts of an external profile; the columns of `user_profiles` of these names."""

PROFILE_FIELDS = tuple(
    name
    for name in USER_PROFILES.column_names
    if name not in (*USER_PROFILES.key, "origin", "assumed", "row_hash", *EXTERNAL_COUNTS)
)
"""What a source's own record says of a user; the columns of `user_profiles` of these names."""

_LOOKED_UP = (
    TableColumn("image_file", "string", "the image file, resolved; null unless present"),
    TableColumn("image_folder", "string", "the folder that it must lie in"),
)
_COLUMNS = (
    *(column for column in POSTS.columns if column.name not in _MADE_LATER),
    *(column for column in LABELS.columns if column.name == "popularity"),
    *(column for column in USER_PROFILES.columns if column.name in PROFILE_FIELDS),
    *_LOOKED_UP,
)

POST_SCHEMA = arrow_schema(_COLUMNS)
"""A staged post: its columns of `posts`, its label, its user's profile, and where its image file is."""
REFUSED_SCHEMA = pa.schema([(name, pa.string()) for name in ("source_row", "pid", "reason", "detail", "run")])
EXTERNAL_SCHEMA = pa.schema([("alias", pa.string()), *((name, pa.int64()) for name in EXTERNAL_COUNTS)])

SOURCE_COLUMNS = tuple(name for name in POST_SCHEMA.names if name not in (*_MADE_HERE, "image_file", "image_folder"))
"""Every column that a source may state of a post."""
_KNOWN = frozenset(SOURCE_COLUMNS)

CONTENT = tuple(name for name in SOURCE_COLUMNS if name not in ("source_row", "split", "popularity"))
"""What a row says of a post, wherever the row stands; labels are compared apart."""

_DETAILS = {
    "no_pid": "The row states no pid.",
    "no_uid": "The row states no uid.",
    "bad_time": "event_ts is no time between 1970-01-02 and 2100.",
    "bad_label": f"The label is not a number from 0 to {MAX_POPULARITY:g}.",
    "bad_split": f"The split is none of {', '.join(SPLITS)}.",
    "duplicate_pid": "An identical row came before.",
    "conflicting_pid": "An earlier row says something else of this pid; the first one is kept.",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_columns(names: Any, place: str) -> None:
    """Refuse columns that no table has, which are misspelt or would be lost.

    Raises:
        SourceError: One is none of `SOURCE_COLUMNS`.
    """
    for name in names:
        if name not in _KNOWN:
            raise SourceError(f"{place}: posts have a column '{name}' that is not known.", nearest(name, _KNOWN))


def complete(row: Row, split: Split, number: int) -> Row | Refusal:
    """Return a source's row as a staged post, all but what the look-up of its image adds, or why it is none.

    In texts lone surrogates, and in pids and uids NUL too, become U+FFFD: no file or table could hold them.

    Args:
        row: With columns of `SOURCE_COLUMNS`.
        split: The split it is of.
        number: Its number in the split, from 1.
    """
    row = _repaired(row)
    source_row = row.get("source_row") or f"{split}:{number}"
    pid, uid = _id(row.get("pid")), _id(row.get("uid"))
    event = _microseconds(row.get("event_ts"))
    label = row.get("popularity") if split == "train" else None
    if not pid:
        reason = "no_pid"
    elif not uid:
        reason = "no_uid"
    elif event is None or not EARLIEST_S * 1_000_000 <= event < LATEST_S * 1_000_000:
        reason = "bad_time"
    elif split == "train" and not _is_label(label):
        reason = "bad_label"
    else:
        title = str(row.get("title") or "")
        return row | {
            "pid": pid,
            "split": split,
            "uid": uid,
            "event_ts": event,
            "title": title,
            "title_key": text_key(title),
            "tags": row.get("tags") or "",
            "source_row": source_row,
            "popularity": label,
        }
    return refusal(source_row, pid or None, reason)


def text_key(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(repaired(text).encode()).hexdigest()


def refusal(source_row: str, pid: str | None, reason: str) -> Refusal:
    """Return a refusal with the words that belong to its reason."""
    return Refusal(source_row, pid, reason, _DETAILS[reason])


def _repaired(row: Row) -> Row:
    texts = {name: repaired(value) for name, value in row.items() if isinstance(value, str) and not value.isascii()}
    return row | texts if texts else row


def _id(value: object) -> str:
    return "" if value is None else repaired(str(value)).replace("\0", "\ufffd")


def _microseconds(value: object) -> int | None:
    if isinstance(value, datetime):
        return None if value.tzinfo is None else (value - _EPOCH) // timedelta(microseconds=1)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_label(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < MAX_POPULARITY  # type: ignore[arg-type, operator]


def completed(posts: DataFrame) -> DataFrame:
    """Return the rows of a frame as staged posts, all but what the look-up of their images adds, and their refusals.

    The rules are those of `complete`. Of the rows of one pid the first by split (train before test), `source_row` and
    content is kept.

    Args:
        posts: With `split` and columns of `SOURCE_COLUMNS`.

    Returns:
        Every row, with the columns of `POST_SCHEMA`, and `reason`, null for a post, and `detail`.
    """
    types = dict(posts.dtypes)
    given = {column.name: _given(column, types) for column in _COLUMNS}
    given["source_row"] = F.coalesce(given["source_row"], F.concat_ws(":", given["split"], given["pid"]))
    given["title"] = F.coalesce(given["title"], F.lit(""))
    given["tags"] = F.coalesce(given["tags"], F.lit(""))
    given["popularity"] = F.when(given["split"] == "train", given["popularity"])
    stated = posts.select(*(given[name].alias(name) for name in POST_SCHEMA.names))
    stated = stated.withColumn("title_key", F.sha2(F.encode("title", "UTF-8"), 256))
    checked = stated.withColumn("_wrong", _wrong()).withColumn("_content", row_hash(CONTENT))
    # A refused row takes no place; each has a group of its own, since thousands may lack a pid.
    usable = F.col("_wrong").isNull()
    group = F.when(usable, F.col("pid")).otherwise(F.col("_content"))
    order = (F.col("split") != "train", F.col("source_row"), F.col("_content"), F.col("popularity"))
    same_pid = Window.partitionBy(usable, group).orderBy(*order)
    repeated = usable & (F.row_number().over(same_pid) > 1)
    kept_label = F.first("popularity").over(same_pid)
    same_label = F.col("popularity").isNull() | kept_label.isNull() | (F.col("popularity") == kept_label)
    same = (F.col("_content") == F.first("_content").over(same_pid)) & same_label
    reason = F.when(repeated, F.when(same, "duplicate_pid").otherwise("conflicting_pid")).otherwise(F.col("_wrong"))
    details = F.create_map(*(F.lit(each) for pair in _DETAILS.items() for each in pair))
    ranked = checked.withColumn("reason", reason)
    return ranked.select(*POST_SCHEMA.names, "reason", details[F.col("reason")].alias("detail"))


def _given(column: TableColumn, types: dict[str, str]) -> Column:
    """Return a column of a source with its type, null where the source has none of the name."""
    if column.name not in types:
        return F.lit(None).cast(column.sql_type)
    if column.sql_type == "timestamp" and types[column.name] == "bigint":
        return F.timestamp_micros(column.name)
    return F.col(column.name).cast(column.sql_type)


def _wrong() -> Column:
    """Return why a row is no post; null if it is one."""
    earliest, latest = (F.timestamp_seconds(F.lit(seconds)) for seconds in (EARLIEST_S, LATEST_S))
    in_time = F.col("event_ts").isNotNull() & (F.col("event_ts") >= earliest) & (F.col("event_ts") < latest)
    label = F.col("popularity")
    labelled = label.isNotNull() & ~F.isnan(label) & (label >= 0) & (label < MAX_POPULARITY)
    return (
        F.when(F.coalesce(F.length("pid"), F.lit(0)) == 0, "no_pid")
        .when(F.coalesce(F.length("uid"), F.lit(0)) == 0, "no_uid")
        .when(~in_time, "bad_time")
        .when(F.col("split").isNull() | ~F.col("split").isin(*SPLITS), "bad_split")
        .when((F.col("split") == "train") & ~labelled, "bad_label")
    )
