"""Peak memory of this process and all below it, by what they are."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import psutil
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

INTERVAL_S = 0.25
COLLECTION_S = 30.0
"""Seconds between two collections of the driver's whole heap; one took 1.1 s of a small heap, its classes counted."""

MIB = 2**20


class PeakMemory:
    """Samples resident memory while inside, in MiB.

    Attributes:
        peaks: `driver_jvm`, its RSS; `driver_committed`, the heap it took from the system; `driver_heap`, what a
            collection of all of it left alive, every half minute and at the end; `driver_blocks`, broadcasts and other
            blocks that Spark stores in it; `worker`, the RSS of the largest Python worker; `driver_python`, of this
            process; `workers`, the most Python workers at a time.
        classes: By class name, what lived in the heap at its peak; empty where Java has no `jmap`.
        classes_before: The same at the beginning.

    Args:
        session: Whose JVM is asked for its heap.
    """

    def __init__(self, session: SparkSession) -> None:
        jvm: Any = session.sparkContext._jvm
        management = jvm.java.lang.management.ManagementFactory
        self._heap = management.getMemoryMXBean()
        self._blocks = jvm.org.apache.spark.SparkEnv.get().memoryManager()
        self._utils = jvm.org.apache.spark.util.Utils
        self.peaks: dict[str, float] = {}
        self.classes_before = self.classes = self._classes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._collect()

    def _watch(self) -> None:
        own, collected = psutil.Process(), time.monotonic()
        while not self._ended.wait(INTERVAL_S):
            self._raise("driver_python", own.memory_info().rss / MIB)
            workers = 0
            for process in own.children(recursive=True):
                try:
                    kind = _kind(process)
                    if kind is not None:
                        self._raise(kind, process.memory_info().rss / MIB)
                    workers += kind == "worker"
                except psutil.Error:
                    continue  # it ended while it was looked at
            self._raise("workers", workers)
            self._raise("driver_blocks", self._blocks.storageMemoryUsed() / MIB)
            self._raise("driver_committed", self._heap.getHeapMemoryUsage().getCommitted() / MIB)
            if time.monotonic() - collected > COLLECTION_S:
                self._collect()
                collected = time.monotonic()

    def _collect(self) -> None:
        self._heap.gc()
        alive = self._heap.getHeapMemoryUsage().getUsed() / MIB
        if alive > self.peaks.get("driver_heap", 0):
            self.classes = self._classes()
        self._raise("driver_heap", alive)

    def _classes(self) -> dict[str, float]:
        try:
            lines = [str(line).split() for line in self._utils.getHeapHistogram()]
        except Py4JJavaError:
            return {}  # a Java without jmap
        found: dict[str, float] = {}
        for line in lines:
            if len(line) >= 4 and line[0].rstrip(":").isdigit():  # number, instances, bytes, class, its module
                found[line[3]] = found.get(line[3], 0) + int(line[2]) / MIB
        return found

    def _raise(self, name: str, value: float) -> None:
        self.peaks[name] = round(max(self.peaks.get(name, 0), value), 1)


def _kind(process: psutil.Process) -> str | None:
    if process.name() == "java":
        return "driver_jvm"
    if "pyspark.daemon" in process.cmdline():
        parent = process.parent()
        # Workers are forks of the daemon, which the JVM started.
        return "worker" if parent is not None and "pyspark.daemon" in parent.cmdline() else None
    return None
