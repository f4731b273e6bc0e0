"""One chunk as Spark jobs: compute its keys, run suspects alone, and leave a complete stage."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from smp_features import errors
from smp_features.errors import ReconciliationError, SmpError, StageError
from smp_features.extraction import statuses
from smp_features.extraction.chunks import Chunk
from smp_features.extraction.plan import Scope
from smp_features.extraction.staging import Marker, chunk_folder, mark, spec_version, staged_schema
from smp_features.extraction.watchdog import RECORD_BYTES, loads_beside
from smp_features.extraction.worker import Task
from smp_features.jvm import SPARK_FAILURES
from smp_features.lake.tables import Lakehouse
from smp_features.session import workers_append_to_root

logger = logging.getLogger(__name__)

POOL = "smp-extract"
"""Scheduler pool of jobs that run a model. Under fair scheduling any other job gets the next free slot before them."""

MAX_SUBMISSIONS = 5
"""Times a chunk's job is submitted when its workers keep dying. Each death costs one of a task's tries, and tells its
successor what to leave out, so a job fails only when a task meets more deadly inputs than Spark allows it failures."""

_RECORDS_PER_ROW = 4
"""Notes of one input: preparing began and ended, computing began and ended."""


@dataclass(frozen=True)
class Job:
    """What all chunks of one extractor in one run share.

    Attributes:
        scope: The extractor, and the versions it reads.
        task: What workers get; its notes folders are set per job.
        keys: Keys to compute, as one column `key`.
        run: The run.
        slots: Tasks at a time.
    """

    scope: Scope
    task: Task
    keys: DataFrame
    run: str
    slots: int


@dataclass(frozen=True)
class Staged:
    """A chunk that is computed and waits to be published.

    Attributes:
        marker: Of its stage.
        distinct: No key is in it twice.
        rows: Keys that came out, one way or another.
        errors: Of these, the ones without features.
        loads: Models loaded.
        seconds: By phase, summed over tasks.
    """

    marker: Marker
    distinct: bool
    rows: int
    errors: int
    loads: int
    seconds: dict[str, float]


@dataclass
class _Stock:
    keys: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    suspects: list[str] = field(default_factory=list)
    transient: list[tuple[str, str]] = field(default_factory=list)
    attempts: set[int] = field(default_factory=set)
    loads: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class _WorkersLost(Exception):  # noqa: N818 - an event
    """Workers died more often than Spark forgives one task."""


def compute_chunk(lakehouse: Lakehouse, job: Job, chunk: Chunk) -> Staged:
    """Compute a chunk and stage it, complete with its marker.

    Raises:
        StageError: The job failed; the message names the cause.
        ReconciliationError: Keys came out that were not asked for, or some did not come out.
        ModelError: The model did not load in a worker.
        DeviceError: A worker had no GPU.
    """
    extractor = job.scope.extractor
    folder = chunk_folder(lakehouse, extractor.name, job.run, chunk.name)
    keys = _within(job.keys, chunk)
    contents = _contents(lakehouse, job, chunk, keys, chunk.tasks)
    parts = [_submit(lakehouse, job, chunk, folder, "all", contents, solo=False)]
    stock = _take_stock(lakehouse, job.scope, folder, parts[0])
    if stock.suspects:
        logger.warning("%s: running %d suspects of a lost worker alone", extractor.name, len(stock.suspects))
        suspects = lakehouse.session.createDataFrame([(key,) for key in stock.suspects], "key string")
        spread = max(job.slots, len(stock.suspects))
        alone = _contents(lakehouse, job, chunk, suspects, spread)
        parts.append(_submit(lakehouse, job, chunk, folder, "solo", alone, solo=True))
        stock = _add(stock, _take_stock(lakehouse, job.scope, folder, parts[1]))
    stock.loads += loads_beside(_notes_folder(lakehouse, folder), stock.attempts)
    rows = sum(stock.keys.values())
    if rows != chunk.rows:
        raise ReconciliationError(
            f"{extractor.name}: {rows} of the {chunk.rows} keys of chunk {chunk.name} came out.",
            f"Nothing of it was published. Check that {extractor.contents} holds them: run `smp ingest`, then again.",
        )
    marker = Marker(
        name=extractor.name,
        extractor=job.scope.fingerprint,
        run=job.run,
        chunk=chunk.name,
        parts=tuple(parts),
        rows=rows - len(stock.transient),
        transient=tuple(stock.transient),
        shards=chunk.shards,
        spec=spec_version(lakehouse, extractor),
    )
    mark(lakehouse, marker)
    wrong = sum(count for status, count in stock.keys.items() if extractor.is_error(status))
    return Staged(marker, not stock.repeated, rows, wrong, stock.loads, stock.seconds)


def rows_in_progress(lakehouse: Lakehouse, job: Job, chunk: Chunk) -> int:
    """Estimate the rows of a chunk that are computed already, from the size of its workers' notes, finished or not."""
    folder = Path(_notes_folder(lakehouse, chunk_folder(lakehouse, job.scope.extractor.name, job.run, chunk.name)))
    size = sum(path.stat().st_size for path in folder.glob("all-*/*") if path.exists())
    return min(chunk.rows, size // (RECORD_BYTES * _RECORDS_PER_ROW))


def _within(keys: DataFrame, chunk: Chunk) -> DataFrame:
    keys = keys.where(F.col("key") >= chunk.low) if chunk.low else keys
    return keys.where(F.col("key") < chunk.high) if chunk.high is not None else keys


def _contents(lakehouse: Lakehouse, job: Job, chunk: Chunk, keys: DataFrame, tasks: int) -> DataFrame:
    """Return key and content of some keys of a chunk, spread over tasks by key.

    The keys are broadcast and the chunk's shards scanned, so that a content is fetched once and moved once. Tasks by
    file would move nothing, but a chunk may lie in one file, and all slots but one would stand idle.
    """
    extractor = job.scope.extractor
    return (
        lakehouse.read(extractor.contents, job.scope.versions[extractor.contents], chunk.shards)
        .select(extractor.key, extractor.value)
        .join(F.broadcast(keys.withColumnRenamed("key", extractor.key)), extractor.key, "left_semi")
        .repartition(tasks, extractor.key)
    )


def _submit(
    lakehouse: Lakehouse,
    job: Job,
    chunk: Chunk,
    folder: str,
    name: str,
    contents: DataFrame,
    *,
    solo: bool,
) -> str:
    """Run one job over contents, again while its workers die over inputs; return the name of its part."""
    earlier: list[str] = []
    for submission in range(MAX_SUBMISSIONS):
        part = f"{name}-{submission}"
        notes = f"{_notes_folder(lakehouse, folder)}/{part}"
        task = replace(job.task, notes=notes, earlier_notes=tuple(earlier), solo=solo)
        rows = contents.mapInArrow(task.__call__, staged_schema(lakehouse, job.scope.extractor))
        try:
            with _in_pool(lakehouse, POOL):
                _write(rows, f"{folder}/{part}")
        except _WorkersLost as lost:
            logger.warning("%s: chunk %s: %s; submitting it again", job.scope.extractor.name, chunk.name, lost)
            earlier.append(notes)
            continue
        return part
    raise StageError(
        f"{job.scope.extractor.name}: workers died in {MAX_SUBMISSIONS} submissions of chunk {chunk.name}.",
        "Earlier chunks are published. Look for memory limits and driver faults, then run the same command again.",
    )


def sees_notes(lakehouse: Lakehouse) -> bool:
    """Return whether workers leave their notes beside their rows, where the driver reads and removes them.

    Notes are small appends, which object stores and Databricks volumes do not take: there each machine keeps its own.
    """
    return lakehouse.files.local_folder() is not None and workers_append_to_root()


def _notes_folder(lakehouse: Lakehouse, chunk: str) -> str:
    if sees_notes(lakehouse):
        return f"{chunk}/notes"
    return f"{tempfile.gettempdir()}/smp_features_notes/{chunk.rsplit('staging/', 1)[-1]}"


@contextmanager
def _in_pool(lakehouse: Lakehouse, name: str) -> Iterator[None]:
    """Run this thread's jobs in a scheduler pool while inside."""
    context = lakehouse.session.sparkContext
    context.setLocalProperty("spark.scheduler.pool", name)
    try:
        yield
    finally:
        context.setLocalProperty("spark.scheduler.pool", None)  # type: ignore[arg-type] # takes it back


def _write(rows: DataFrame, folder: str) -> None:
    try:
        rows.write.parquet(folder)
    except SPARK_FAILURES as error:
        text = str(error)
        typed = re.search(r"smp_features\.errors\.(\w+): (.+)", text)
        if typed is not None:
            kind = getattr(errors, typed.group(1), StageError)
            raise (kind if issubclass(kind, SmpError) else StageError)(typed.group(2).strip()) from error
        if re.search(r"Python worker exited unexpectedly|ExecutorLostFailure|Connection reset", text):
            raise _WorkersLost("its workers were lost") from error
        raise


def _take_stock(lakehouse: Lakehouse, scope: Scope, folder: str, part: str) -> _Stock:
    key = scope.extractor.key
    rows = lakehouse.session.read.schema(staged_schema(lakehouse, scope.extractor)).parquet(f"{folder}/{part}")
    by_name = F.col("status").isin(statuses.SUSPECT, *statuses.TRANSIENT)
    measured = F.col("status") == statuses.MEASURED
    by_key = rows.groupBy(key).agg(
        F.min("status").alias("status"),
        F.count("*").alias("rows"),
        F.collect_list(F.when(measured, F.col("error"))).alias("measured"),
    )
    counted = by_key.groupBy("status").agg(
        F.count("*").alias("keys"),
        F.sum("rows").alias("rows"),
        F.collect_list(F.when(by_name, F.col(key))).alias("named"),
        F.flatten(F.collect_list("measured")).alias("measured"),
    )
    stock = _Stock()
    for row in counted.collect():
        status = row["status"]
        if status == statuses.MEASURED:
            for text in row["measured"]:
                task = json.loads(text)
                stock.attempts.add(task["attempt"])
                stock.loads += task["loads"]
                for phase, seconds in task["seconds"].items():
                    stock.seconds[phase] = stock.seconds.get(phase, 0.0) + seconds
        elif status == statuses.SUSPECT:
            stock.suspects = sorted(row["named"])
        else:
            stock.keys[status] = row["keys"]
            stock.repeated += row["rows"] - row["keys"]
            stock.transient += [(name, status) for name in sorted(row["named"])]
    return stock


def _add(one: _Stock, other: _Stock) -> _Stock:
    counts, seconds = dict(one.keys), dict(one.seconds)
    for status, count in other.keys.items():
        counts[status] = counts.get(status, 0) + count
    for phase, spent in other.seconds.items():
        seconds[phase] = seconds.get(phase, 0.0) + spent
    return _Stock(
        keys=counts,
        repeated=one.repeated + other.repeated,
        suspects=other.suspects,
        transient=one.transient + other.transient,
        attempts=one.attempts | other.attempts,
        loads=one.loads + other.loads,
        seconds=seconds,
    )
