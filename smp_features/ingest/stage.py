"""The ingest stage: a source becomes posts, labels, user profiles, images and texts."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import ReconciliationError, StageError
from smp_features.ingest.image_intake import FACT_FILES, read_images
from smp_features.ingest.removal import refuse_removals
from smp_features.ingest.scan import EXTERNAL_FILES, POST_FILES, REFUSED_FILES, ScanResult, scan
from smp_features.ingest.scan_frames import scan_frames
from smp_features.ingest.staged import EXTERNAL_COUNTS, PROFILE_FIELDS
from smp_features.ingest.staging import StagingArea
from smp_features.lake.specs import KNOWN_LATE, POSTS, USER_PROFILES
from smp_features.lake.tables import Lakehouse, first_by_key, row_hash
from smp_features.runs import Phases, Summary
from smp_features.scratch import scratch
from smp_features.sources.base import FrameSource, RowSource, open_source

logger = logging.getLogger(__name__)

_SAME_FILE = ["split", "image_path", "image_size", "image_modified_at"]
"""What must be as in the last run for an image not to be read again."""

TABLES = ("posts", "labels", "user_profiles", "images", "texts", "quarantine")


def ingest(session: SparkSession, config: Config, *, run: str, dry_run: bool = False) -> Summary:
    """Read the source, check it whole, and make the tables hold what it says.

    The source is checked from its first to its last row, and staged, before any table is touched. Then images whose
    path, size and time of change are not those of the last run are read, each distinct content is stored once, and
    posts, labels and profiles are brought to what the source says now; rows that left the source leave these tables,
    except when `source.limit` reads a part of it, and unless so many have left it that it may not be all there. A
    second run on an unchanged source writes nothing.

    Args:
        session: A Spark session with Delta.
        config: Its `source` section says what to read, and when things count as known.
        run: The run, noted with refused rows.
        dry_run: Check everything and say what was found; nothing is written under the root.

    Returns:
        `wanted` source rows, `ok` posts, `failed` quarantined rows, `computed` posts inserted or updated; phases
        `parse`, `stat`, `stage`, `read_images` and `write`.

    Raises:
        SourceError: The source is missing, misaligned, truncated or malformed, or lacks too much of what is stored; no
            table was touched.
        StageError: A larger share of rows than `source.max_refused_share` was quarantined; only `quarantine` changed.
        ReconciliationError: Rows in are not rows out.
    """
    phases = Phases()
    with scratch("ingest") as folder:
        source = open_source(config, folder)
        if dry_run:
            found = _scan(session, source, run, phases, None)
            _check_refused(found, config)
            refuse_removals(Lakehouse(session, config), None, found, source.place, config.source)
            return _summary(found, phases, "Nothing was written (dry run).", images=found.images)
        lakehouse = Lakehouse(session, config)
        with StagingArea(lakehouse, run) as area:
            found = _scan(session, source, run, phases, area)
            if found.posts.total() and not _refuses_too_many(found, config):
                refuse_removals(lakehouse, area.read(POST_FILES), found, source.place, config.source)
            return _publish(lakehouse, area, found, config, phases)


def _scan(
    session: SparkSession, source: RowSource | FrameSource, run: str, phases: Phases, area: StagingArea | None
) -> ScanResult:
    """Check and count a source, and stage it in an area; None stages nothing."""
    if isinstance(source, FrameSource):
        return scan_frames(session, source, run, phases, area)
    return scan(source, source.scratch, run, phases, None if area is None else area.add)


def _publish(lakehouse: Lakehouse, area: StagingArea, found: ScanResult, config: Config, phases: Phases) -> Summary:
    """Bring the tables to what was staged."""
    lakehouse.create()
    before = lakehouse.versions(TABLES)
    if found.refused.total() or found.external_refused.total():
        with phases("write"):
            lakehouse.insert_new("quarantine", area.read(REFUSED_FILES))
    _check_refused(found, config)
    if not found.posts.total():
        raise StageError("ingest: no row of the source is usable.", "See `smp errors --stage ingest`.")

    staged = area.read(POST_FILES)
    with phases("read_images"):
        read = _read_changed_images(lakehouse, area, staged)
    with phases("write"):
        posts = area.keep("final_posts", _posts(lakehouse, area, staged, read))
        profiles = area.keep("final_profiles", _profiles(area, staged, found, config))
        images = reconcile(lakehouse, posts, found)
        mirror = config.source.limit is None
        _store_titles(lakehouse, staged)
        changes = lakehouse.synchronise("posts", posts, "row_hash", delete_missing=mirror)
        lakehouse.synchronise("labels", _labels(staged, config), None, delete_missing=mirror)
        lakehouse.synchronise("user_profiles", profiles, "row_hash", delete_missing=mirror)
        check_stored(lakehouse, found, mirror)
    after = lakehouse.versions(TABLES)
    written = {table: version for table, version in after.items() if version != before[table]}
    said = f"{read:,} images read; {changes['inserted']:,} posts new, {changes['updated']:,} changed"
    said += f", {changes['deleted']:,} no longer in the source and removed." if changes["deleted"] else "."
    return _summary(
        found,
        phases,
        said if written else "Nothing has changed since the last run; every row was read to tell, nothing was written.",
        images=images,
        computed=changes["inserted"] + changes["updated"],
        before=before,
        written=written,
    )


# -- images -----------------------------------------------------------------------------------------------------------


def _read_changed_images(lakehouse: Lakehouse, area: StagingArea, staged: DataFrame) -> int:
    """Read the present images that no post has with this path, size and time; return how many."""
    present = staged.where(F.col("image_status") == "present")
    unknown = present.join(_known_images(lakehouse), _SAME_FILE, "left_anti")
    todo = unknown.groupBy("image_file").agg(
        F.min("image_folder").alias("image_folder"), F.max("image_size").alias("image_size")
    )
    todo = area.keep("todo", todo)
    total = todo.agg(F.count("*").alias("files"), F.sum("image_size").alias("bytes")).collect()[0]
    if total["files"]:
        read_images(lakehouse, area, todo, total["files"], total["bytes"])
    return int(total["files"])


def _known_images(lakehouse: Lakehouse) -> DataFrame:
    """Return what the posts of the last run know of image files: `_SAME_FILE`, `known_key`, `known_status`."""
    known = lakehouse.read("posts").where(F.col("image_key").isNotNull())
    found = (F.col("image_key").alias("known_key"), F.col("image_status").alias("known_status"))
    return first_by_key(known.select(*map(F.col, _SAME_FILE), *found), _SAME_FILE)


# -- the tables -------------------------------------------------------------------------------------------------------


def _posts(lakehouse: Lakehouse, area: StagingArea, staged: DataFrame, images_read: int) -> DataFrame:
    known = staged.join(_known_images(lakehouse), _SAME_FILE, "left")
    if images_read:
        known = known.join(area.read(FACT_FILES), "image_file", "left")
        key, status = F.coalesce("read_key", "known_key"), F.coalesce("read_status", "known_status", "image_status")
        was_read = F.col("read_status").isNotNull()
        size = F.when(was_read, F.col("read_size")).otherwise(F.col("image_size"))
        modified_at = F.when(was_read, F.timestamp_micros("read_modified_at")).otherwise(F.col("image_modified_at"))
    else:
        key, status = F.col("known_key"), F.coalesce("known_status", "image_status")
        size, modified_at = F.col("image_size"), F.col("image_modified_at")
    made: dict[str, Column] = {
        "known_at": F.col("event_ts"),
        "image_key": key,
        "image_status": status,
        "image_size": size,
        "image_modified_at": modified_at,
    }
    columns = [name for name in POSTS.column_names if name != "row_hash"]
    posts = known.select(*(made.get(name, F.col(name)).alias(name) for name in columns))
    return posts.withColumn("row_hash", row_hash(columns))


def _store_titles(lakehouse: Lakehouse, staged: DataFrame) -> None:
    titles = staged.select(F.col("title_key").alias("text_key"), F.col("title").alias("text"))
    new = titles.join(lakehouse.read("texts").select("text_key"), "text_key", "left_anti")
    if not new.isEmpty():  # a MERGE that finds nothing to do costs several times this look
        lakehouse.insert_new("texts", new)


def _labels(staged: DataFrame, config: Config) -> DataFrame:
    maturity = F.make_dt_interval(F.lit(config.source.known_at.label_maturity_days))
    labelled = staged.where(F.col("popularity").isNotNull())
    return labelled.select("pid", "popularity", (F.col("event_ts") + maturity).alias("known_at"))


def _profiles(area: StagingArea, staged: DataFrame, found: ScanResult, config: Config) -> DataFrame:
    """Return one row per user and time of the source's own records, and one per user with an external profile."""
    profiles = own_profiles(staged)
    if found.external:
        crawled = config.source.known_at.user_additional
        profiles = profiles.unionByName(external_profiles(staged, area.read(EXTERNAL_FILES), crawled), True)
    columns = [name for name in USER_PROFILES.column_names if name != "row_hash"]
    for name in EXTERNAL_COUNTS:
        if name not in profiles.columns:
            profiles = profiles.withColumn(name, F.lit(None).cast("bigint"))
    return profiles.select(*columns).withColumn("row_hash", row_hash(columns))


def own_profiles(staged: DataFrame) -> DataFrame:
    """Return the users' own records, one per user and time: known when the post was made.

    Where posts of the same second disagree, the record that says most wins, then the smallest values: with the
    smaller photo count, the earlier state.

    Args:
        staged: Posts with `uid`, `event_ts` and the columns of `PROFILE_FIELDS`.
    """
    unknown = sum((F.col(name).isNull().cast("int") for name in PROFILE_FIELDS), F.lit(0))
    ordered = F.struct(unknown.alias("unknown"), *PROFILE_FIELDS)
    best = staged.groupBy("uid", F.col("event_ts").alias("known_at")).agg(F.min(ordered).alias("profile"))
    return best.select(
        "uid",
        "known_at",
        F.lit("user_data").alias("origin"),
        F.lit(True).alias("assumed"),
        *(F.col("profile")[name].alias(name) for name in PROFILE_FIELDS),
    )


def external_profiles(staged: DataFrame, external: DataFrame, crawled: date | None) -> DataFrame:
    """Return external profiles by user, known from the crawl on, or at `KNOWN_LATE` if that has no date.

    An alias that several users have is nobody's, since it cannot be told whose counts they are. Of a user's several
    aliases the one of the latest post counts.

    Args:
        staged: Posts with `uid`, `event_ts` and `path_alias`.
        external: Profiles with `alias`, one each, and `EXTERNAL_COUNTS`.
        crawled: The date of the crawl; null if it is not known.
    """
    used = staged.where(F.col("path_alias").isNotNull()).groupBy("path_alias", "uid").agg(F.max("event_ts").alias("at"))
    owners = used.groupBy("path_alias").agg(F.min("uid").alias("uid"), F.max("at").alias("at"), F.count("*").alias("n"))
    owned = owners.where(F.col("n") == 1).join(external, F.col("path_alias") == F.col("alias"))
    latest = owned.groupBy("uid").agg(F.max(F.struct("at", "alias", *EXTERNAL_COUNTS)).alias("profile"))
    known_at = KNOWN_LATE if crawled is None else datetime.combine(crawled, time(), UTC)
    return latest.select(
        "uid",
        F.lit(known_at).cast("timestamp").alias("known_at"),
        F.lit("external").alias("origin"),
        F.lit(crawled is None).alias("assumed"),
        *(F.col("profile")[name].alias(name) for name in EXTERNAL_COUNTS),
    )


# -- accounting -------------------------------------------------------------------------------------------------------


def _refuses_too_many(found: ScanResult, config: Config) -> bool:
    return max(found.refused_share, found.external_refused_share) > config.source.max_refused_share


def _check_refused(found: ScanResult, config: Config) -> None:
    if not _refuses_too_many(found, config):
        return
    allowed = config.source.max_refused_share
    refused, rows, what = found.refused, found.rows.total(), "source rows"
    if found.refused_share <= allowed:
        refused, what = found.external_refused, "external profiles"
        rows = found.external + refused.total()
    raise StageError(
        f"ingest: {refused.total():,} of {rows:,} {what} are refused ({_listed(refused)}), more than "
        f"source.max_refused_share = {allowed:g} allows.",
        "Posts, labels and profiles are as before; mend the source, or allow more.",
    )


def reconcile(lakehouse: Lakehouse, posts: DataFrame, found: ScanResult) -> dict[str, int]:
    """Check that the posts of the source, each once, are those that tables are about to be brought to.

    Args:
        lakehouse: The tables, as they were.
        posts: What `posts` will be brought to.
        found: What the source holds.

    Returns:
        Posts by image status.

    Raises:
        ReconciliationError: The counts are apart; no table of posts, labels or profiles was touched.
    """
    by_status = posts.groupBy("image_status").agg(F.count("*").alias("rows")).collect()
    counted = {row["image_status"]: int(row["rows"]) for row in by_status}
    joined, wanted = sum(counted.values()), found.posts.total()
    if joined != wanted or posts.select("pid").distinct().count() != wanted:
        raise _apart(wanted, joined, lakehouse.read("posts").count())
    return counted


def check_stored(lakehouse: Lakehouse, found: ScanResult, mirror: bool) -> None:
    """Check that the table holds the posts of the source.

    Args:
        lakehouse: The tables.
        found: What the source holds.
        mirror: The table holds these posts and no others.

    Raises:
        ReconciliationError: The counts are apart.
    """
    wanted, stored = found.posts.total(), lakehouse.read("posts").count()
    if stored != wanted if mirror else stored < wanted:
        raise _apart(wanted, wanted, stored)


def _apart(wanted: int, joined: int, stored: int) -> ReconciliationError:
    return ReconciliationError(
        f"ingest: {wanted:,} usable source rows, {joined:,} joined with their images, {stored:,} in table posts.",
        "Run `smp ingest` again; if the counts stay apart, please report them.",
    )


def _summary(
    found: ScanResult,
    phases: Phases,
    said: str,
    images: dict[str, int],
    computed: int = 0,
    before: dict[str, int] | None = None,
    written: dict[str, int] | None = None,
) -> Summary:
    ok, refused, wanted = found.posts.total(), found.refused.total(), found.rows.total()
    details = [
        f"{split}: {rows:,} rows, {found.posts[split]:,} posts, {found.refused_by_split[split]:,} quarantined"
        + (f"; {found.details[split]}" if found.details.get(split) else "")
        for split, rows in found.rows.items()
    ]
    users = f"{found.users:,} users"
    if found.posts["test"]:
        share = found.unseen_test_posts / found.posts["test"]
        users += f"; {share:.1%} of the test posts are by users without a train post"
    details.append(users)
    details.append(f"images: {_listed(images)}")
    if found.external or found.external_refused:
        refused_lines = f"; quarantined: {_listed(found.external_refused)}" if found.external_refused else ""
        details.append(f"external profiles: {found.external:,}{refused_lines}")
    if +found.quirks:
        details.append(f"met on the way: {_listed(+found.quirks)}")
    if refused:
        details.append(f"quarantined: {_listed(found.refused)}")
    return Summary(
        stage="ingest",
        outcome="nothing_to_do" if written == {} else "done",
        wanted=wanted,
        ok=ok,
        failed=refused,
        computed=computed,
        seconds=phases.seconds,
        versions_read=before or {},
        versions_written=written or {},
        message=f"{wanted:,} source rows: {ok:,} posts, {refused:,} quarantined. {said}",
        details=tuple(details),
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
