"""What the built-in tables hold: columns with meaning, key, constraints. `schema.py` adds those of a configuration.

Pure descriptions; `tables.py` applies them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from smp_features.errors import UsageError

RETENTION = "interval 400 days"
"""How long old versions stay readable: registered models refer to the versions they were trained on."""

KNOWN_LATE = datetime(2200, 1, 1, tzinfo=UTC)
"""`known_at` of what has no date: later than every post, and early enough for the nanosecond times of pandas."""

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_type(sql_type: str) -> pa.DataType:
    """Return the Arrow type that holds values of a SQL type of these tables.

    >>> arrow_type("array<float>")
    ListType(list<item: float>)
    """
    if sql_type.startswith("array<"):
        return pa.list_(arrow_type(sql_type[6:-1]))
    if sql_type.startswith("map<"):
        key, _, value = sql_type[4:-1].partition(",")
        return pa.map_(arrow_type(key), arrow_type(value))
    return _ARROW_TYPES[sql_type]


def sql_type(of: pa.DataType) -> str:
    """Return the SQL type of an Arrow type: the other direction of `arrow_type`.

    Raises:
        KeyError: No column of these tables has such a type.

    >>> sql_type(pa.list_(pa.float32()))
    'array<float>'
    """
    if pa.types.is_list(of):
        return f"array<{sql_type(of.value_type)}>"
    return {known: name for name, known in _ARROW_TYPES.items()}[of]


LAYOUT = "2"
"""Raised when tables of before can no longer be read for what they are; `lake/migration.py` brings them there.

2: a fingerprint no longer depends on what a model's folder is called.
"""

LAYOUT_PROPERTY = "smp.layout"


def refuse_other_layout(found: str, where: str) -> None:
    """Refuse tables of another version's layout.

    Args:
        found: Theirs.
        where: What messages call their place.

    Raises:
        UsageError: It is not this version's; says what to do.
    """
    if found == LAYOUT:
        return
    earlier = found < LAYOUT
    raise UsageError(
        f"The tables under {where} were written by {'an earlier' if earlier else 'a later'} version of smp_features "
        f"(layout {found}, this one has {LAYOUT}).",
        "Run `smp migrate` on them once; extracted content stays." if earlier else "Use that version for them.",
    )


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: The column.
        sql_type: Spark SQL type.
        comment: Meaning, unit, shape, and what null means.
        required: Null is refused.
    """

    name: str
    sql_type: str
    comment: str
    required: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type, for files that are written and read without Spark."""
        return arrow_type(self.sql_type)


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: Without catalog or schema.
        comment: What one row is.
        columns: In order.
        key: Columns that identify a row; empty for append-only tables.
        sharded: Partitioned by `shard`, the leading hex digit of the first key column.
        constraints: Name to SQL condition; every condition must also hold for NaN: `x >= 0` accepts it.
        statistics: Columns that Delta keeps minima and maxima of; embeddings and bytes have none.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    sharded: bool = False
    constraints: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def properties(self) -> dict[str, str]:
        """Delta table properties, constraints included."""
        properties = {
            "delta.enableDeletionVectors": "false",
            "delta.isolationLevel": "Serializable",
            "delta.logRetentionDuration": RETENTION,
            "delta.deletedFileRetentionDuration": RETENTION,
            "delta.checkpointPolicy": "classic",
            LAYOUT_PROPERTY: LAYOUT,
            "delta.dataSkippingStatsColumns": ",".join(self.statistics or self.key),
        }
        if not properties["delta.dataSkippingStatsColumns"]:
            del properties["delta.dataSkippingStatsColumns"]
        return properties | {f"delta.constraints.{name}": sql for name, sql in self.constraints.items()}


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of some columns, in their order."""
    return pa.schema([pa.field(column.name, column.arrow_type) for column in columns])


def _shard() -> Column:
    return Column("shard", "string", "leading hex digit of the content key; the partition", required=True)


STATUS = Column("status", "string", "ok, or why the input cannot be used (permanent)", required=True)
ERROR = Column("error", "string", "a short message without any content; null when ok")
COMPUTED_AT = Column("computed_at", "timestamp", "when we computed it (UTC)", required=True)
EXTRACTOR = Column("extractor", "string", "fingerprint of the extractor; see `extractors`", required=True)


def _content_key(name: str, of: str) -> Column:
    return Column(name, "string", f"SHA-256 of {of}, 64 hex digits", required=True)


IMAGE_KEY = _content_key("image_key", "the image's bytes")
TEXT_KEY = _content_key("text_key", "the text's UTF-8 bytes")

_HEX = "{0} RLIKE '^[0-9a-f]{{64}}$'"
_SHARD_IS = "shard = substring({0}, 1, 1)"


def sharded_table(name: str, comment: str, key: tuple[str, ...], *columns: Column, **constraints: str) -> TableSpec:
    """Return the specification of a table of contents, partitioned by the first digit of its content key."""
    rules = {"key_is_sha256": _HEX.format(key[0]), "shard_of_key": _SHARD_IS.format(key[0]), **constraints}
    return TableSpec(name, comment, (_shard(), *columns), key, True, rules)


POSTS = TableSpec(
    "posts",
    "one row per post, as the source last stated it",
    (
        Column("pid", "string", "the post", required=True),
        Column("split", "string", "train (labelled) or test, as the source divides them", required=True),
        Column("uid", "string", "the user", required=True),
        Column("event_ts", "timestamp", "when it was posted (UTC)", required=True),
        Column("known_at", "timestamp", "when the post's own content could be known: event_ts", required=True),
        Column("title", "string", "the title as extracted, '' if empty", required=True),
        Column("title_key", "string", "SHA-256 of the title; joins `texts`", required=True),
        Column("tags", "string", "space-separated tags, '' if none", required=True),
        Column("category", "string", "top-level category; null if missing"),
        Column("subcategory", "string", "sub-category; null if missing"),
        Column("concept", "string", "concept; null if missing"),
        Column("media_type", "string", "photo or video; null if missing"),
        Column("path_alias", "string", "the user's path alias; null if none"),
        Column("is_public", "boolean", "as stated; null if missing"),
        Column("media_status", "string", "as stated; null if missing"),
        Column("latitude", "double", "degrees north; null without a place"),
        Column("longitude", "double", "degrees east; null without a place"),
        Column("geo_accuracy", "int", "1 world .. 16 street; null without a place"),
        Column("image_path", "string", "as the source states it, relative to the image root; null if none"),
        Column("image_size", "bigint", "bytes of the file when it was read; null if it was missing"),
        Column("image_modified_at", "timestamp", "modification time of the file when it was read; null if missing"),
        Column("image_key", "string", "SHA-256 of the image's bytes; null if there were none"),
        Column(
            "image_status",
            "string",
            "ok, missing, the status in `images`, or unreadable, timeout, out_of_memory, worker_lost: tried again",
            required=True,
        ),
        Column("source_row", "string", "split and line number in the source, for finding it again", required=True),
        Column("row_hash", "string", "hash of all columns above; decides whether a post changed", required=True),
    ),
    ("pid",),
    constraints={
        "pid_not_empty": "length(pid) > 0",
        "uid_not_empty": "length(uid) > 0",
        "latitude_in_range": "latitude IS NULL OR (latitude BETWEEN -90 AND 90 AND NOT isnan(latitude))",
        "longitude_in_range": "longitude IS NULL OR (longitude BETWEEN -180 AND 180 AND NOT isnan(longitude))",
    },
    statistics=("pid", "uid", "event_ts"),
)

LABELS = TableSpec(
    "labels",
    "one popularity label per labelled post",
    (
        Column("pid", "string", "the post", required=True),
        Column("popularity", "double", "log2(views + 1), as the source states it", required=True),
        Column("known_at", "timestamp", "when it could be known: event_ts + a configured maturity", required=True),
    ),
    ("pid",),
    constraints={"popularity_is_finite": "popularity >= 0 AND popularity < 64 AND NOT isnan(popularity)"},
)

_EXTERNAL_COUNTS = (
    ("external_views", "total views, including those of the posts being predicted"),
    ("external_tags", "tags"),
    ("external_geotagged", "geotagged photos"),
    ("external_faves", "faves"),
    ("external_in_group", "photos in groups"),
    ("external_photos", "photos"),
    ("external_followers", "followers"),
    ("external_followings", "followings"),
)

USER_PROFILES = TableSpec(
    "user_profiles",
    "what was known of a user at a time; a user's record and an external crawl are separate rows",
    (
        Column("uid", "string", "the user", required=True),
        Column("known_at", "timestamp", "when it could be known, by the configured rule of its origin", required=True),
        Column("origin", "string", "user_data (the source's own) or external (user_additional.txt)", required=True),
        Column("assumed", "boolean", "known_at is a configured assumption, not a stated date", required=True),
        Column("photo_count", "bigint", "photos of the user; null if unknown"),
        Column("photo_first_at", "timestamp", "the user's first upload; null if unknown"),
        Column("photo_first_taken", "string", "date of the first photo taken, as stated; null if unknown"),
        Column("is_pro", "boolean", "pays for an account; null if unknown"),
        Column("can_buy_pro", "boolean", "as stated; null if unknown"),
        Column("timezone_offset_minutes", "int", "offset from UTC; null if unknown or given as an opaque code"),
        Column("timezone_name", "string", "zone name, or the opaque code of schema A; null if unknown"),
        Column("description", "string", "profile text; null where the source gives a vector or nothing"),
        Column("description_vector", "array<float>", "(399,) schema A's vector; null where the source gives text"),
        Column("location", "string", "stated location; null where the source gives a vector or nothing"),
        Column("location_vector", "array<float>", "(400,) schema A's vector; null where the source gives text"),
        *(Column(name, "bigint", f"{text} at the crawl; null for origin user_data") for name, text in _EXTERNAL_COUNTS),
        Column("row_hash", "string", "hash of all columns above", required=True),
    ),
    ("uid", "known_at", "origin"),
    constraints={"origin_is_known": "origin IN ('user_data', 'external')"},
)

IMAGES = sharded_table(
    "images",
    "each distinct image once",
    ("image_key",),
    IMAGE_KEY,
    Column("bytes", "binary", "the original file's bytes, usable or not", required=True),
    Column("width", "int", "pixels; null if no header was read"),
    Column("height", "int", "pixels; null if no header was read"),
    Column("format", "string", "JPEG, PNG …; null if unknown"),
    Column("frames", "int", "frames in the file, of which the first is used; null if they could not be counted"),
    Column(
        "status",
        "string",
        "ok, or why it cannot be used: empty, not_an_image, truncated, too_many_pixels, bad_aspect_ratio, "
        "too_many_scans, decode_error (permanent)",
        required=True,
    ),
    ERROR,
)

TEXTS = sharded_table(
    "texts",
    "each distinct text once: titles at ingest, captions as they are made",
    ("text_key",),
    TEXT_KEY,
    Column("text", "string", "the text as extracted", required=True),
)

ATTEMPTS = TableSpec(
    "attempts",
    "append-only: transient failures, and the resets that forget them",
    (
        Column("stage", "string", "extractor name, such as caption", required=True),
        Column("key", "string", "content key; null in a reset of the whole stage"),
        Column("extractor", "string", "fingerprint; null in a reset of the whole stage"),
        Column("status", "string", "timeout, out_of_memory, worker_lost …, or reset", required=True),
        Column("run", "string", "the run that noted it", required=True),
        Column("at", "timestamp", "when (UTC)", required=True),
    ),
    statistics=("stage", "key"),
)

EXTRACTORS = TableSpec(
    "extractors",
    "the description behind each fingerprint",
    (
        Column("extractor", "string", "fingerprint", required=True),
        Column("name", "string", "of the extractor, such as caption or clip_image", required=True),
        Column("description", "string", "everything that decides the output, as JSON", required=True),
        Column("first_used_at", "timestamp", "when it was first used here (UTC)", required=True),
    ),
    ("extractor",),
)

PREDICTIONS = TableSpec(
    "predictions",
    "one prediction per unlabelled post and model version",
    (
        Column("pid", "string", "the post", required=True),
        Column("model", "string", "registered model's name", required=True),
        Column("model_version", "string", "registered version", required=True),
        Column("prediction", "double", "popularity, log2(views + 1)", required=True),
        Column("features_key", "string", "of the row of `post_features` it was made from", required=True),
        Column("scored_at", "timestamp", "when (UTC)", required=True),
    ),
    ("pid", "model", "model_version"),
    constraints={"prediction_is_finite": "NOT isnan(prediction)"},
)

QUARANTINE = TableSpec(
    "quarantine",
    "source rows that were refused, and why",
    (
        Column("source_row", "string", "split and line number in the source", required=True),
        Column("pid", "string", "as stated; null or empty if that is the reason"),
        Column("reason", "string", "duplicate_pid, conflicting_pid, no_pid, no_uid, bad_time …", required=True),
        Column("detail", "string", "a short message without any content"),
        Column("run", "string", "the run that first refused it", required=True),
    ),
    ("source_row", "reason"),
)

RUNS = TableSpec(
    "runs",
    "append-only: what every stage did in every run",
    (
        Column("run", "string", "the run; the stages of one command share it", required=True),
        Column("stage", "string", "ingest, extract/caption, features …", required=True),
        Column("started_at", "timestamp", "UTC", required=True),
        Column("finished_at", "timestamp", "UTC", required=True),
        Column("outcome", "string", "done, nothing_to_do or failed", required=True),
        Column("wanted", "bigint", "rows that should exist", required=True),
        Column("ok", "bigint", "rows usable", required=True),
        Column("failed", "bigint", "rows with a permanent error", required=True),
        Column("left", "bigint", "rows still to do", required=True),
        Column("given_up", "bigint", "rows tried as often as allowed", required=True),
        Column("computed", "bigint", "rows computed by this run", required=True),
        Column("model_loads", "bigint", "models loaded in workers", required=True),
        Column("rows_per_second", "double", "computed rows per second of the stage; null if none"),
        Column("seconds", "map<string,double>", "seconds by phase", required=True),
        Column("versions_read", "map<string,bigint>", "table to version at the start", required=True),
        Column(
            "versions_written",
            "map<string,bigint>",
            "table to version written; changed tables only",
            required=True,
        ),
        Column("message", "string", "what was said at the end", required=True),
    ),
    statistics=("run", "stage", "started_at"),
)
