"""Reads image files in Spark tasks and stores each distinct content once."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from smp_features.images.inspector import TRANSIENT, Inspector
from smp_features.ingest.image_paths import MAX_FILE_BYTES, is_within
from smp_features.ingest.staging import StagingArea
from smp_features.lake.tables import Lakehouse
from smp_features.progress import Reporter, reporter

logger = logging.getLogger(__name__)

BATCH_BYTES = 32 << 20
"""Image bytes in one batch that a task hands on."""
PORTION_BYTES = 512 << 20
"""Image bytes staged before they are stored; a multiple of this is the disk that a run needs beside the tables."""
PORTION_FILES = 5_000
FILES_PER_TASK = 256

FACT_FILES = "image_facts"

FACT_SCHEMA = pa.schema(
    [
        ("image_file", pa.string()),
        ("read_size", pa.int64()),
        ("read_modified_at", pa.int64()),
        ("read_key", pa.string()),
        ("read_status", pa.string()),
    ]
)
"""What reading a file gave: size of what was read and its time (Unix microseconds), its key, and its status."""

_READ_SCHEMA = pa.schema(
    [
        *FACT_SCHEMA,
        ("error", pa.string()),
        ("bytes", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("frames", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Portion:
    """Consecutive staged files whose images are read and stored together.

    Attributes:
        first: Number of the first bucket.
        last: Number of the last bucket.
        files: Image files.
    """

    first: int
    last: int
    files: int


def read_images(lakehouse: Lakehouse, area: StagingArea, todo: DataFrame, files: int, size: int) -> None:
    """Read image files, store the contents that are new in `images`, and stage what was found as `FACT_FILES`.

    The bytes go from a task to staged files, and from these to the table, a bounded number at a time; what is new is
    decided on the keys alone.

    Args:
        lakehouse: The tables.
        area: Staging.
        todo: One row per file: `image_file`, `image_folder`, `image_size`; cheap to read again.
        files: Number of files.
        size: Bytes of all files together.
    """
    # Four times finer than a portion, so that joined buckets come close to its limits without passing them.
    finest = max(1, math.ceil(4 * max(size / PORTION_BYTES, files / PORTION_FILES)))
    buckets = todo.withColumn("bucket", F.pmod(F.xxhash64("image_file"), F.lit(finest)))
    sizes = buckets.groupBy("bucket").agg(F.count("*").alias("files"), F.sum("image_size").alias("bytes"))
    counted = [(int(row["bucket"]), int(row["files"]), int(row["bytes"])) for row in sizes.collect()]
    with reporter("read images", files) as bar:
        for portion in portions(sorted(counted)):
            chosen = buckets.where(F.col("bucket").between(portion.first, portion.last))
            _read_portion(lakehouse, area, chosen, portion, bar)


def portions(buckets: Sequence[tuple[int, int, int]]) -> list[Portion]:
    """Join consecutive (number, files, bytes) buckets while they stay under `PORTION_FILES` and `PORTION_BYTES`."""
    joined: list[Portion] = []
    held = 0
    for number, files, size in buckets:
        last = joined[-1] if joined else None
        if last is not None and last.files + files <= PORTION_FILES and held + size <= PORTION_BYTES:
            joined[-1] = Portion(last.first, number, last.files + files)
            held += size
        else:
            joined.append(Portion(number, number, files))
            held = size
    return joined


def _read_portion(lakehouse: Lakehouse, area: StagingArea, chosen: DataFrame, portion: Portion, bar: Reporter) -> None:
    name = f"images-{portion.first:06d}"
    slots = lakehouse.session.sparkContext.defaultParallelism
    tasks = max(slots, math.ceil(portion.files / FILES_PER_TASK))
    manifest = chosen.select("image_file", "image_folder").repartition(tasks)
    read = area.keep(name, manifest.mapInArrow(_read_files, from_arrow_schema(_READ_SCHEMA)))
    facts = [row.asDict() for row in read.select(*FACT_SCHEMA.names).collect()]
    area.add(FACT_FILES, facts, FACT_SCHEMA)
    files_of: dict[str, str] = {}
    for fact in facts:
        if fact["read_key"] is not None:
            files_of[fact["read_key"]] = min(fact["image_file"], files_of.get(fact["read_key"], fact["image_file"]))
    if files_of:
        # One file per content, chosen by name, fetched by a broadcast: the bytes stay where they are.
        wanted = lakehouse.session.createDataFrame([(file,) for file in files_of.values()], "image_file string")
        contents = read.join(F.broadcast(wanted), "image_file", "left_semi").select(
            F.col("read_key").alias("image_key"),
            "bytes",
            "width",
            "height",
            "format",
            "frames",
            F.col("read_status").alias("status"),
            "error",
        )
        lakehouse.insert_new("images", contents, shards=sorted({key[0] for key in files_of}), distinct=True)
    area.drop(name)
    bar.advance(len(facts), errors=sum(fact["read_status"] != "ok" for fact in facts))


def _read_files(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Read the files of a manifest; hand on at most `BATCH_BYTES` of them (or one file) at a time."""
    rows: list[dict[str, Any]] = []
    held = 0
    for batch in batches:
        for file, folder in zip(batch["image_file"].to_pylist(), batch["image_folder"].to_pylist(), strict=True):
            row = read_file(file, folder)
            size = len(row["bytes"] or b"")
            if rows and held + size > BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(rows, _READ_SCHEMA)
                rows, held = [], 0
            rows.append(row)
            held += size
    if rows:
        yield pa.RecordBatch.from_pylist(rows, _READ_SCHEMA)


_inspector: tuple[int, Inspector] | None = None


def held_inspector() -> Inspector:
    """Return the inspector that this process holds: a worker's tasks share it, one that was forked has its own."""
    global _inspector
    if _inspector is None or _inspector[0] != os.getpid():
        _inspector = os.getpid(), Inspector()
    return _inspector[1]


def read_file(file: str, folder: str) -> dict[str, Any]:
    """Read and inspect one image file.

    Args:
        file: The resolved path.
        folder: The folder it must lie in; both are resolved again, since links may have moved since the look-up.

    Returns:
        The columns of `images`, and `read_size`, `read_modified_at` (Unix microseconds), `read_key` and `read_status`
        of what was read. `missing`: it vanished since the look-up; `unreadable`: it may not be read; `timeout`,
        `out_of_memory`, `worker_lost`: its decoder was ended, or ended itself. These are without key, so that nothing
        is stored of them and the next run tries again.
    """
    nothing = dict.fromkeys(_READ_SCHEMA.names) | {"image_file": file}
    if not is_within(os.path.realpath(folder), os.path.realpath(file)):
        return nothing | {"read_status": "path_refused"}
    try:
        with open(file, "rb") as handle:
            found = os.fstat(handle.fileno())
            content = handle.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return nothing | {"read_status": "missing"}
    except OSError:
        return nothing | {"read_status": "unreadable"}
    nothing |= {"read_size": found.st_size, "read_modified_at": found.st_mtime_ns // 1000}
    if not content:
        return nothing | {"read_status": "empty"}
    if len(content) > MAX_FILE_BYTES:
        return nothing | {"read_status": "too_many_bytes"}
    facts = held_inspector().inspect(content)
    if facts.status in TRANSIENT:
        logger.warning("ingest: %s: %s", facts.status, file)
        return nothing | {"read_status": facts.status}
    return nothing | {
        "read_key": hashlib.sha256(content).hexdigest(),
        "read_status": facts.status,
        "bytes": content,
        "width": facts.width,
        "height": facts.height,
        "format": facts.format,
        "frames": facts.frames,
        "error": facts.error,
    }
