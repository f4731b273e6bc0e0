"""The scan of a source that Spark reads: the checks and counts of `scan`, by Spark jobs: the driver sees counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from smp_features.errors import SourceError
from smp_features.ingest.image_paths import LOOKUP_THREADS, ImageFile, look_up_all
from smp_features.ingest.scan import EXTERNAL_FILES, POST_FILES, REFUSED_FILES, SEEN_ALIAS, ScanResult
from smp_features.ingest.staged import EXTERNAL_SCHEMA, POST_SCHEMA, REFUSED_SCHEMA, check_columns, completed
from smp_features.ingest.staging import StagingArea
from smp_features.runs import Phases
from smp_features.sources.base import SPLITS, FrameSource, ImageRoot, Split

_CHECKED_SCHEMA = pa.schema([*POST_SCHEMA, ("reason", pa.string()), ("detail", pa.string())])


def scan_frames(
    session: SparkSession, source: FrameSource, run: str, phases: Phases, area: StagingArea | None
) -> ScanResult:
    """Check and count a source, look up its image files in Spark tasks, and stage what is good.

    Args:
        session: A Spark session.
        source: The source.
        run: The run that is noted with refusals.
        phases: Gets the seconds of `stage`.
        area: Where to stage; None stages nothing.

    Raises:
        SourceError: The source cannot be read, has a column that is not known, or no posts.
        ReconciliationError: A row was lost on the way.
    """
    frames = source.frames(session)
    check_columns(frames.posts.columns, source.place)
    for name in ("pid", "uid", "event_ts", "split"):
        if name not in frames.posts.columns:
            raise SourceError(
                f"{source.place}: posts have no column {name}.", "pid, uid, event_ts and split are needed."
            )
    roots = {split: source.image_root(split) for split in SPLITS}
    posts = frames.posts if source.settings.limit is None else _first(frames.posts, source.settings.limit)
    with phases("stage"):
        # Read from the source once: what is counted is what is staged.
        checked = _with_images(completed(posts), roots).persist(StorageLevel.DISK_ONLY)
        try:
            refused = checked.where("reason IS NOT NULL").select("split", "source_row", "pid", "reason", "detail")
            if frames.refused is not None:
                refused = refused.unionByName(frames.refused.select(*refused.columns))
            usable = checked.where("reason IS NULL").select(*POST_SCHEMA.names)
            found = _count(usable, refused, roots)
            if not found.rows.total():
                raise SourceError(f"{source.place} holds no posts: it has no rows.")
            if area is not None:
                area.keep(POST_FILES, usable)
                if found.refused:
                    area.keep(REFUSED_FILES, refused.withColumn("run", F.lit(run)).select(*REFUSED_SCHEMA.names))
        finally:
            checked.unpersist()
        if frames.external is not None:
            _count_external(frames.external, found, area)
    found.details = {split: source.details(split) for split in SPLITS if split in found.rows}
    found.quirks += source.quirks
    found.reconcile()
    return found


def _first(posts: DataFrame, limit: int) -> DataFrame:
    """Return the first posts of each split by pid, since a table has no order."""
    train, test = (posts.where(F.col("split") == split).orderBy("pid").limit(limit) for split in SPLITS)
    return train.unionByName(test)


def _with_images(posts: DataFrame, roots: Mapping[Split, ImageRoot | None]) -> DataFrame:
    if not any(roots.values()):
        return posts.withColumn("image_status", F.lit("missing"))
    return posts.mapInArrow(_looking_up(roots), from_arrow_schema(_CHECKED_SCHEMA))


def _looking_up(
    roots: Mapping[Split, ImageRoot | None],
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function of a Spark task that looks up the image files of posts."""

    def look(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(LOOKUP_THREADS) as threads:
            for batch in batches:
                yield _looked_up(batch, roots, threads)

    return look


def _looked_up(
    batch: pa.RecordBatch, roots: Mapping[Split, ImageRoot | None], threads: ThreadPoolExecutor
) -> pa.RecordBatch:
    splits, paths = batch["split"].to_pylist(), batch["image_path"].to_pylist()
    files: list[ImageFile | None] = [None] * len(paths)
    folders: list[str | None] = [None] * len(paths)
    for split, root in roots.items():
        at = [number for number, each in enumerate(splits) if each == split]
        for number, file in zip(at, look_up_all(root, [paths[number] for number in at], threads), strict=True):
            files[number] = file
            folders[number] = None if root is None else str(root.folder)
    made = {
        "image_status": [None if file is None else file.status for file in files],
        "image_file": [None if file is None else file.path for file in files],
        "image_folder": folders,
        "image_size": [None if file is None else file.size for file in files],
        "image_modified_at": [None if file is None else file.modified_at for file in files],
    }
    columns = [
        pa.array(made[field.name], field.type) if field.name in made else batch[field.name].cast(field.type)
        for field in _CHECKED_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_CHECKED_SCHEMA)


def _count(usable: DataFrame, refused: DataFrame, roots: Mapping[Split, ImageRoot | None]) -> ScanResult:
    found = ScanResult()
    named = F.count(F.when(F.length("image_path") > 0, 1)).alias("named")
    sizes = F.count("image_size").alias("found")
    for row in usable.groupBy("split", "image_status").agg(F.count("*").alias("count"), named, sizes).collect():
        root = roots[row["split"]]
        if root is not None:
            found.image_folders[row["split"]] = str(root.folder)
            found.pictures_named[row["split"]] += row["named"]
            found.pictures_found[row["split"]] += row["found"]
        found.rows[row["split"]] += row["count"]
        found.posts[row["split"]] += row["count"]
        found.images[row["image_status"]] += row["count"]
    for row in refused.groupBy("split", "reason").count().collect():
        split = row["split"] or "without a split"
        found.rows[split] += row["count"]
        found.refused_by_split[split] += row["count"]
        found.refused[row["reason"]] += row["count"]
    in_split = {split: F.count(F.when(F.col("split") == split, 1)).alias(split) for split in SPLITS}
    users = usable.groupBy("uid").agg(*in_split.values())
    counts = users.agg(
        F.count("*").alias("users"), F.sum(F.when(F.col("train") == 0, F.col("test")).otherwise(0)).alias("unseen")
    ).collect()[0]
    found.users, found.unseen_test_posts = counts["users"], counts["unseen"] or 0
    return found


def _count_external(external: DataFrame, found: ScanResult, area: StagingArea | None) -> None:
    """Count external profiles and stage one of each alias: the smallest, since a table has no order."""
    counts = [name for name in EXTERNAL_SCHEMA.names if name != "alias"]
    stated = external.where("alias IS NOT NULL").select(
        F.col("alias").cast("string"),
        *((F.col(name) if name in external.columns else F.lit(None)).cast("bigint").alias(name) for name in counts),
    )
    best = stated.groupBy("alias").agg(F.min(F.struct(*counts)).alias("counts"), F.count("*").alias("times"))
    if area is not None:
        best = area.keep(EXTERNAL_FILES, best.select("alias", "times", "counts.*"))
    total = best.agg(F.count("*").alias("aliases"), F.sum("times").alias("rows")).collect()[0]
    found.external = total["aliases"]
    found.quirks[SEEN_ALIAS] += (total["rows"] or 0) - total["aliases"]
