"""A few chunks of one extractor computed at once, each published as it comes back."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from pyspark import inheritable_thread_target
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import DeviceError, SmpError
from smp_features.extraction.chunk_jobs import Job, Staged, compute_chunk, rows_in_progress, sees_notes
from smp_features.extraction.chunks import Chunk, Cutter
from smp_features.extraction.plan import Ledger, Scope
from smp_features.extraction.staging import publish
from smp_features.extraction.worker import Task
from smp_features.extractors.base import Extractor
from smp_features.lake.tables import Lakehouse
from smp_features.progress import reporter
from smp_features.runs import Phases
from smp_features.session import slots_of, slots_of_machine
from smp_features.spark_failures import explained

ARROW_ROWS = {"image": 32, "text": 2048}
"""Contents per Arrow batch. Spark's own default would put gigabytes of pictures into one. Of texts many are wanted:
micro-batches of like lengths are filled from one, and out of 256 titles CLIP took 1.4 times as long, on padding."""

FIRST_ROWS = {"image": 32, "text": 256}
"""Rows per slot of the first chunks, unless configured or an earlier run says that more are a chunk's minutes."""

MOST_FIRST_ROWS = 16
"""Times as many at most: an earlier run may have been on a faster machine."""

_BUSY = ("idle", "compute", "write")
"""Phases of a worker that grow with its rows: loading models and what surrounds a job do not."""

POLL_S = 2.0
"""Seconds between two looks at the progress of chunks in flight."""

_ARROW_ROWS_KEY = "spark.sql.execution.arrow.maxRecordsPerBatch"


@dataclass
class Progress:
    """What was done for one extractor in this run.

    Attributes:
        rows: Keys that came out of workers, one way or another.
        refused: Keys that got their row without a worker.
        loads: Models loaded in workers.
        computing_s: Seconds from the first chunk's start to the last one's end.
        phases: Seconds by phase; those of workers are summed over them.
    """

    rows: int = 0
    refused: int = 0
    loads: int = 0
    computing_s: float = 0.0
    phases: Phases = field(default_factory=Phases)

    def add(self, staged: Staged) -> None:
        """Count a chunk."""
        self.rows += staged.rows
        self.loads += staged.loads
        for phase, seconds in staged.seconds.items():
            self.phases.add(phase, seconds)

    def speed(self, slots: int) -> float:
        """Return rows per second of busy workers.

        Args:
            slots: Tasks at a time.
        """
        return self.rows * slots / _busy(self.phases.seconds)


def compute_missing(
    lakehouse: Lakehouse,
    config: Config,
    scope: Scope,
    ledger: Ledger,
    keys: DataFrame,
    run: str,
    progress: Progress,
) -> None:
    """Compute the keys left in chunks, and publish each chunk as it comes back.

    When a chunk fails, those in flight are still awaited and published before the failure is raised.

    Args:
        lakehouse: The tables.
        config: Its `extraction` section says how the work is spread.
        scope: The extractor, and what is asked of it.
        ledger: The counts of what is left.
        keys: The keys left, as one column `key`.
        run: The run.
        progress: Counts what was done.

    Raises:
        SmpError: As `compute_chunk` and `publish` do.
    """
    extraction, session, extractor = config.extraction, lakehouse.session, scope.extractor
    slots = slots_of(session, extraction.slots)
    task = Task(
        extractor=extractor,
        fingerprint=scope.fingerprint,
        key=extractor.key,
        device=extraction.device,
        slots=slots_of_machine(session, slots),
        deadline_s=extraction.deadline_s,
        notes="",
        keep_notes=sees_notes(lakehouse),
    )
    job = Job(scope, task, keys, run, slots)
    first_rows = extraction.first_chunk_rows or _first_rows(
        lakehouse, extractor, ceil(ledger.to_compute / slots), extraction.chunk_minutes
    )
    cutter = Cutter(ledger.left, first_rows, extraction.chunk_minutes, slots)
    computing: dict[Future[Staged], Chunk] = {}
    publishing: set[Future[None]] = set()
    failure: SmpError | None = None
    started = time.monotonic()
    speed: float | None = None
    shown = 0
    tag = f"smp-extract-{uuid.uuid4().hex}"

    def compute(chunk: Chunk) -> Staged:
        session.sparkContext.addJobTag(tag)
        with explained(extractor.stage):
            return compute_chunk(lakehouse, job, chunk)

    def publish_staged(staged: Staged) -> None:
        with progress.phases("publish"), explained(extractor.stage):
            publish(lakehouse, extractor, staged.marker, counted=staged.distinct)

    pool = ThreadPoolExecutor(extraction.chunks_in_flight, thread_name_prefix="chunk")
    publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
    try:
        with (
            _arrow_rows(session, ARROW_ROWS[extractor.reads]),
            reporter(extractor.name, ledger.to_compute) as bar,
        ):
            while True:
                while failure is None and len(computing) < extraction.chunks_in_flight:
                    chunk = cutter.cut(speed)
                    if chunk is None:
                        break
                    # Wrapped in this thread, so that the other one inherits Spark's settings from it.
                    computing[pool.submit(inheritable_thread_target(compute), chunk)] = chunk
                if not computing and not publishing:
                    break
                waiting: list[Future[Any]] = [*computing, *publishing]
                done, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    publishing.discard(future)
                    computing.pop(future, None)
                    try:
                        result = future.result()
                    except SmpError as error:
                        failure = failure or error
                        continue
                    if not isinstance(result, Staged):
                        continue
                    publishing.add(publisher.submit(inheritable_thread_target(publish_staged), result))
                    progress.add(result)
                    speed = progress.speed(slots)
                    bar.advance(0, errors=result.errors)
                seen = progress.rows + sum(rows_in_progress(lakehouse, job, chunk) for chunk in computing.values())
                bar.advance(max(0, seen - shown))
                shown = max(seen, shown)
    finally:
        if computing:  # interrupted: do not leave models running behind
            session.sparkContext.cancelJobsWithTag(tag)
        pool.shutdown(wait=True, cancel_futures=True)
        publisher.shutdown(wait=True, cancel_futures=True)
        progress.computing_s += time.monotonic() - started
    if failure is not None:
        raise failure


def _first_rows(lakehouse: Lakehouse, extractor: Extractor, left: int, minutes: float) -> int:
    """Return the rows per slot of the first chunks, from the speed of the last run that computed any.

    Args:
        lakehouse: The tables.
        extractor: What computes.
        left: Rows left, per slot.
        minutes: Work in a chunk.
    """
    few = FIRST_ROWS[extractor.reads]
    if left <= few:
        return few
    computed = lakehouse.read("runs").where((F.col("stage") == extractor.stage) & (F.col("computed") > 0))
    last = computed.orderBy(F.desc("started_at")).select("computed", "seconds").head()
    if last is None:
        return few
    speed = last["computed"] / _busy(last["seconds"])
    return min(max(few, int(speed * minutes * 60)), few * MOST_FIRST_ROWS)


def _busy(seconds: Mapping[str, float]) -> float:
    return max(sum(seconds.get(phase, 0.0) for phase in _BUSY), 1e-3)


def check_device(session: SparkSession, config: Config) -> None:
    """Refuse to start on GPUs that Spark does not schedule.

    Raises:
        DeviceError: `extraction.device` is gpu and the session has no GPU per task.
    """
    if config.extraction.device != "gpu":
        return
    if session.sparkContext.getConf().get("spark.task.resource.gpu.amount") is None:
        raise DeviceError(
            "extraction.device is gpu, and this Spark session schedules no GPUs.",
            "Set spark.task.resource.gpu.amount and spark.executor.resource.gpu.amount (local[*] cannot schedule GPUs, "
            "local-cluster can), or extraction.device: cpu.",
        )


_arrow_users: list[int] = []
_arrow_before: list[str] = []
_arrow_lock = threading.Lock()


@contextmanager
def _arrow_rows(session: SparkSession, rows: int) -> Iterator[None]:
    """Bound the session's Arrow batches while inside; of several users the smallest wins, the last one restores."""
    with _arrow_lock:
        if not _arrow_users:
            _arrow_before[:] = [session.conf.get(_ARROW_ROWS_KEY) or "10000"]
        _arrow_users.append(rows)
        session.conf.set(_ARROW_ROWS_KEY, str(min(_arrow_users)))
    try:
        yield
    finally:
        with _arrow_lock:
            _arrow_users.remove(rows)
            session.conf.set(_ARROW_ROWS_KEY, str(min(_arrow_users)) if _arrow_users else _arrow_before[0])
