"""What runs in a Spark Python worker: device, model cache, notes, and the pipeline over the task's Arrow batches."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa
from pyspark import TaskContext

from smp_features.errors import DeviceError, ModelError, SmpError
from smp_features.extraction.pipeline import Pipeline, WorkerUnusable, release_memory
from smp_features.extraction.watchdog import Notes, Watch, left_behind
from smp_features.extractors.base import Extractor, LoadedModel

logger = logging.getLogger(__name__)

EXIT_UNUSABLE = 76
"""Exit status of a worker whose device failed."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>

MAX_PREPARING = 16
"""Most threads that decode or tokenise for one task."""


class Resources(Protocol):
    """The part of a Spark `TaskContext` that says what the task was given."""

    def resources(self) -> Mapping[str, Any]:
        """Return resource name to its addresses."""
        ...


@dataclass(frozen=True)
class Task:
    """What a worker needs to know; pickled with every job.

    Attributes:
        extractor: What computes.
        fingerprint: Of the extractor, as the driver found it.
        key: Name of the key column.
        device: `cpu`, or `gpu` for the one that Spark assigned to the task.
        slots: Tasks at a time on one machine, which share its cores.
        deadline_s: Seconds that one piece of work may take.
        notes: Folder for the notes of this job.
        keep_notes: Whether the driver sees that folder, and removes it.
        earlier_notes: Those of failed jobs over the same inputs.
        solo: Run every input alone.
    """

    extractor: Extractor
    fingerprint: str
    key: str
    device: Literal["cpu", "gpu"]
    slots: int
    deadline_s: float
    notes: str
    keep_notes: bool
    earlier_notes: tuple[str, ...] = ()
    solo: bool = False

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Compute one task's batches; for `mapInArrow`."""
        context = TaskContext.get()
        if context is None:
            raise SmpError("An extraction task was called outside of a Spark task.")
        device = device_of(self.device, context)
        keep_freed_memory()
        threads = threads_of(self.slots)
        # Beside a GPU, torch computes on the CPU only within the threads that prepare, each of which is one already.
        computing = threads if device == "cpu" else 1
        partition = context.partitionId()
        found = left_behind(self.notes, partition, self.earlier_notes)
        notes = Notes(self.notes, partition, context.taskAttemptId(), keep=self.keep_notes)
        with Watch(notes, self.deadline_s) as watch:
            pipeline = Pipeline(
                self.extractor,
                self.key,
                lambda: held_model(self.fingerprint, device, lambda: self._load(device, computing)),
                watch,
                threads=min(threads, MAX_PREPARING),
                found=found,
                solo=self.solo,
            )
            try:
                yield from pipeline.run(batches)
            except WorkerUnusable as unusable:
                logger.error("ending this worker: %s", unusable)
                os._exit(EXIT_UNUSABLE)  # the notes stay, so that its successor knows

    def _load(self, device: str, threads: int) -> LoadedModel:
        if self.extractor.fingerprint != self.fingerprint:
            raise ModelError(
                f"The files of the model of {self.extractor.name} are not on this machine what they are on the driver.",
                "Put the same files on every machine, and do not change them during a run.",
            )
        return self.extractor.load(device, threads)


def device_of(wanted: Literal["cpu", "gpu"], context: Resources) -> str:
    """Return the torch device of a task.

    Spark assigns addresses and does not set CUDA_VISIBLE_DEVICES, so the address is the device's number.

    Args:
        wanted: The configured kind.
        context: Of the task.

    Raises:
        DeviceError: A GPU is configured, and Spark assigned none to the task.
    """
    if wanted == "cpu":
        return "cpu"
    assigned = context.resources().get("gpu")
    if assigned is None or not assigned.addresses:
        raise DeviceError(
            "extraction.device is gpu, and Spark assigned no GPU to the task.",
            "Set spark.task.resource.gpu.amount and spark.executor.resource.gpu.amount, or extraction.device: cpu.",
        )
    return f"cuda:{assigned.addresses[0]}"


def threads_of(slots: int) -> int:
    """Return how many threads a task may use, so that the slots of a machine share its cores."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, slots))


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc.

    By default large arrays go back to the kernel and are faulted in again, page by page. On a virtual machine a
    pipeline of CLIP images ran 2 % faster without, in two runs of two; decoding alone did not gain.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes
    mallopt(_M_TRIM_THRESHOLD, 2**30)


_held: tuple[Sequence[str], LoadedModel] | None = None


def held_model(fingerprint: str, device: str, load: Callable[[], LoadedModel]) -> tuple[LoadedModel, int]:
    """Return the model that this process holds, loading it when it holds none, another one, or one elsewhere.

    Args:
        fingerprint: Of the extractor.
        device: The torch device the model must be on.
        load: Loads it.

    Returns:
        The model, and the models loaded for it: 0 or 1.
    """
    global _held
    wanted = (fingerprint, device)
    if _held is not None and _held[0] == wanted:
        return _held[1], 0
    _held = None  # before loading: a device may not have room for two
    release_memory()
    model = load()
    _held = (wanted, model)
    return model, 1
