"""One task's work without Spark: Arrow batches of contents in, Arrow batches of features with statuses out.

A thread pool prepares ahead of the model; the model runs in the calling thread.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from smp_features.errors import ModelError, SmpError
from smp_features.extraction import statuses
from smp_features.extraction.batches import Prepared, RowLimit, fill, is_device_failure, is_out_of_memory
from smp_features.extraction.watchdog import Found, Watch
from smp_features.extractors.base import Columns, Extractor, LoadedModel, OutputColumn
from smp_features.refusals import InputRefused

AHEAD = 3
"""Arrow batches in preparation while one is computed; bounds the prepared inputs in memory."""

PER_CALL = 16
"""Most inputs that one call of the pool prepares; a call for each would cost as much as a title does."""

GIVE_UP_AFTER = 32
"""Inputs that fail in the model, with none succeeding, before the model is blamed instead of them."""


class WorkerUnusable(SmpError):  # noqa: N818 - a state of the process
    """The process must end: its GPU refuses further work. What it has in flight stays noted."""


@dataclass(frozen=True)
class Outcome:
    """How one input came out without features."""

    key: str
    status: str
    error: str


@dataclass
class Measured:
    """What a task counts.

    Attributes:
        rows: Inputs that came out, one way or another.
        loads: Models loaded, those of dead predecessors included.
        seconds: By phase: `load`, `decode` (summed over threads), `compute`, `write` (Spark took the rows), `idle` (the
            model waited for inputs).
    """

    rows: int = 0
    loads: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, phase: str, started: float) -> None:
        """Add the time since `started`, a `time.perf_counter()`, to a phase; from any thread."""
        spent = time.perf_counter() - started
        with self._lock:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent


def output_schema(key: str, outputs: Sequence[OutputColumn]) -> pa.Schema:
    """Return the columns of staged rows: key, the extractor's outputs, `status`, `error`, `computed_at`."""
    return pa.schema(
        [
            pa.field(key, pa.string()),
            *(pa.field(column.name, column.arrow_type) for column in outputs),
            pa.field("status", pa.string()),
            pa.field("error", pa.string()),
            pa.field("computed_at", pa.timestamp("us", tz="UTC")),
        ]
    )


class Pipeline:
    """Applies one extractor to the batches of one task.

    Args:
        extractor: What computes.
        key: Name of the key column, the first of every batch; the second holds the content.
        load: Returns the loaded model and how many models that took (0 or 1); called when there is something to do.
        watch: Knows what is in flight, and ends the process over it.
        threads: Most threads that prepare. Texts get one: tokenizers are locked, and more would only queue for them.
        found: What dead predecessors had in flight.
        solo: Prepare and run every input alone; what a predecessor died over is then known to be at fault.
    """

    def __init__(
        self,
        extractor: Extractor,
        key: str,
        load: Callable[[], tuple[LoadedModel, int]],
        watch: Watch,
        *,
        threads: int = 1,
        found: Found | None = None,
        solo: bool = False,
    ) -> None:
        self._extractor = extractor
        self._schema = output_schema(key, extractor.outputs)
        self._load = load
        self._watch = watch
        self._threads = threads if extractor.reads == "image" and not solo else 1
        self._ahead = 1 if solo else AHEAD
        self._found = found or Found()
        self._max_cost = 0.0 if solo else extractor.max_cost
        self._solo = solo
        self._limit = RowLimit()
        self._outcomes: list[Outcome] = []
        self._model: LoadedModel | None = None
        self._model_failures = 0
        self._successes = 0
        self.measured = Measured()

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Compute every input; the last batch returned is one row of measurements.

        Raises:
            ModelError: The model does not load, or fails for every input it is given.
            DeviceError: No such device.
            WorkerUnusable: The device failed.
        """
        for batch in self._run(batches):
            started = time.perf_counter()
            yield batch
            self.measured.add("write", started)  # while Spark took it and wrote it down
        yield self._measurements()

    def _run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pending: list[Prepared] = []
        with ThreadPoolExecutor(self._threads, thread_name_prefix="prepare") as pool:
            for window in self._windows(pool, iter(batches)):
                pending += self._gather(window)
                full, pending = fill(pending, self._max_cost)
                for batch in full:
                    yield from self._compute(batch)
                yield from self._flush()
        for batch in fill(pending, self._max_cost, last=True)[0]:
            yield from self._compute(batch)
        yield from self._flush()

    # -- preparing ----------------------------------------------------------------------------------------------

    def _windows(
        self, pool: ThreadPoolExecutor, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[list[Future[list[Prepared | Outcome]]]]:
        ahead: deque[list[Future[list[Prepared | Outcome]]]] = deque()
        while True:
            started = time.perf_counter()
            while len(ahead) < self._ahead and (batch := next(batches, None)) is not None:
                ahead.append(self._submit(pool, batch))
            self.measured.add("idle", started)
            if not ahead:
                return
            yield ahead.popleft()

    def _submit(self, pool: ThreadPoolExecutor, batch: pa.RecordBatch) -> list[Future[list[Prepared | Outcome]]]:
        inputs: list[tuple[str, pa.Scalar]] = []
        for key, raw in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            suspected = self._found.of(key)
            if suspected is None:
                inputs.append((key, raw))
            elif self._solo:
                self._outcomes.append(Outcome(key, suspected, "Alone, the worker was lost over it."))
            else:
                self._outcomes.append(Outcome(key, statuses.SUSPECT, suspected))
        if inputs and self._model is None:
            self._load_model()
        size = min(PER_CALL, -(-len(inputs) // self._threads)) or 1
        return [pool.submit(self._prepare_all, inputs[at : at + size]) for at in range(0, len(inputs), size)]

    def _load_model(self) -> None:
        started = time.perf_counter()
        self._model, loads = self._load()
        if loads:
            self._watch.loaded()
            self.measured.loads += loads
        self.measured.add("load", started)

    def _prepare_all(self, inputs: Sequence[tuple[str, pa.Scalar]]) -> list[Prepared | Outcome]:
        return [self._prepare(key, raw) for key, raw in inputs]

    def _prepare(self, key: str, raw: pa.Scalar) -> Prepared | Outcome:
        assert self._model is not None
        started = time.perf_counter()
        try:
            with self._watch.over((key,)):
                item, cost = self._model.prepare(raw.as_py())
            return Prepared(key, item, cost)
        except InputRefused as refusal:
            return Outcome(key, refusal.status, refusal.message)
        except SmpError:
            raise  # not the input's fault
        except Exception as failure:
            if is_out_of_memory(failure):
                return Outcome(key, statuses.OUT_OF_MEMORY, "Preparing it ran out of memory.")
            # A refusal has its type; anything else is told by kind alone, since messages may quote the content.
            return Outcome(key, statuses.PREPARE_ERROR, f"Preparing it raised {type(failure).__name__}.")
        finally:
            self.measured.add("decode", started)

    def _gather(self, window: list[Future[list[Prepared | Outcome]]]) -> list[Prepared]:
        started = time.perf_counter()
        results = [result for future in window for result in future.result()]
        self.measured.add("idle", started)
        self._outcomes += [result for result in results if isinstance(result, Outcome)]
        return [result for result in results if isinstance(result, Prepared)]

    # -- computing ----------------------------------------------------------------------------------------------

    def _compute(self, batch: Sequence[Prepared]) -> Iterator[pa.RecordBatch]:
        """Compute a micro-batch, in halves where memory runs out or an input breaks the model."""
        todo = deque(self._limit.cut(batch))
        while todo:
            rows = todo.popleft()
            pieces = self._limit.cut(rows)
            if len(pieces) > 1:
                todo.extendleft(reversed(pieces))
                continue
            columns, failure = self._run_model(rows)
            if columns is not None:
                self._limit.succeed(len(rows))
                yield from self._finish(rows, columns)
                continue
            if failure == statuses.OUT_OF_MEMORY:
                release_memory()
                self._limit.shrink(len(rows))
            if len(rows) > 1:
                middle = len(rows) // 2
                todo.extendleft((rows[middle:], rows[:middle]))
            elif failure == statuses.OUT_OF_MEMORY:
                self._outcomes.append(Outcome(rows[0].key, failure, "Alone, it ran out of memory."))
            else:
                self._outcomes.append(Outcome(rows[0].key, statuses.MODEL_ERROR, f"The model raised {failure}."))
                self._blame_model(failure)

    def _run_model(self, rows: Sequence[Prepared]) -> tuple[Columns | None, str]:
        """Return the model's columns, or None and why: `out_of_memory` or the error's type.

        The error does not leave this frame, and with it go the tensors that its traceback holds.
        """
        assert self._model is not None
        started = time.perf_counter()
        try:
            with self._watch.over([row.key for row in rows]):
                columns = self._model.run([row.item for row in rows])
        except SmpError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                return None, statuses.OUT_OF_MEMORY
            if is_device_failure(error):
                self._watch.lost([row.key for row in rows])
                raise WorkerUnusable(f"The device failed ({type(error).__name__}).") from error
            return None, type(error).__name__
        finally:
            self.measured.add("compute", started)
        self._check_columns(columns, len(rows))
        return columns, ""

    def _check_columns(self, columns: Columns, rows: int) -> None:
        expected = {column.name: rows for column in self._extractor.outputs}
        returned = {name: len(values) for name, values in columns.items()}
        if returned != expected:
            raise SmpError(f"Extractor {self._extractor.name} returned rows {returned}, expected {expected}.")

    def _blame_model(self, failure: str) -> None:
        self._model_failures += 1
        if self._model_failures >= GIVE_UP_AFTER and not self._successes:
            raise ModelError(
                f"The model of {self._extractor.name} raised {failure} for each of the first {GIVE_UP_AFTER} inputs.",
                "Check the model's files and settings; nothing was written for these inputs.",
            )

    # -- emitting -----------------------------------------------------------------------------------------------

    def _finish(self, rows: Sequence[Prepared], columns: Columns) -> Iterator[pa.RecordBatch]:
        self._successes += len(rows)
        finite = np.ones(len(rows), dtype=bool)
        for values in columns.values():
            if isinstance(values, np.ndarray) and values.dtype.kind == "f":
                finite &= np.isfinite(values).reshape(len(rows), -1).all(axis=1)
        keys = [row.key for row in rows]
        if not finite.all():
            broken = [key for key, good in zip(keys, finite, strict=True) if not good]
            self._outcomes += [
                Outcome(key, statuses.NOT_FINITE, "The model returned NaN or infinity.") for key in broken
            ]
            keys = [key for key, good in zip(keys, finite, strict=True) if good]
            columns = {name: _keep(values, finite) for name, values in columns.items()}
        if keys:
            outputs = [_to_arrow(columns[c.name], c.arrow_type) for c in self._extractor.outputs]
            yield self._batch(keys, outputs, [statuses.OK] * len(keys), [None] * len(keys))

    def _flush(self) -> Iterator[pa.RecordBatch]:
        if self._outcomes:
            done, self._outcomes = self._outcomes, []
            nulls = [pa.nulls(len(done), column.arrow_type) for column in self._extractor.outputs]
            yield self._batch([o.key for o in done], nulls, [o.status for o in done], [o.error for o in done])

    def _measurements(self) -> pa.RecordBatch:
        seconds = {phase: round(value, 4) for phase, value in self.measured.seconds.items()}
        counts = {"attempt": self._watch.attempt, "rows": self.measured.rows, "loads": self.measured.loads}
        text = json.dumps({**counts, "seconds": seconds})
        nulls = [pa.nulls(1, column.arrow_type) for column in self._extractor.outputs]
        return self._batch([None], nulls, [statuses.MEASURED], [text])

    def _batch(
        self,
        keys: Sequence[str | None],
        outputs: Sequence[pa.Array],
        status: Sequence[str],
        error: Sequence[str | None],
    ) -> pa.RecordBatch:
        if keys[0] is not None:
            self.measured.rows += len(keys)
        now = pa.array([datetime.now(UTC)] * len(keys), pa.timestamp("us", tz="UTC"))
        arrays = [pa.array(keys, pa.string()), *outputs, pa.array(status, pa.string()), pa.array(error, pa.string())]
        return pa.RecordBatch.from_arrays([*arrays, now], schema=self._schema)


def _keep(values: np.ndarray | list[str], rows: np.ndarray) -> np.ndarray | list[str]:
    if isinstance(values, np.ndarray):
        return values[rows]
    return [value for value, good in zip(values, rows, strict=True) if good]


def _to_arrow(values: np.ndarray | list[str], kind: pa.DataType) -> pa.Array:
    """Convert a column in one piece: vectors of shape (n, d) keep their buffer and only gain offsets."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        rows, width = values.shape
        flat = np.ascontiguousarray(values).reshape(-1)
        offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type))
    return pa.array(values, kind)


def release_memory() -> None:
    """Give back what Python and torch hold without need."""
    gc.collect()
    torch: Any = sys.modules.get("torch")  # a model that does not use torch need not import it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
