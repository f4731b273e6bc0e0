"""Peak memory of this process and all below it, by what they are."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import psutil
from pyspark.sql import SparkSession

INTERVAL_S = 0.25
MIB = 2**20


class PeakMemory:
    """Samples resident memory while inside, in MiB.

    Attributes:
        peaks: `driver_jvm`, its RSS; `driver_heap`, what its last collections left alive; `worker`, the RSS of the
            largest Python worker; `driver_python`, of this process; `workers`, the most Python workers at a time.

    Args:
        session: Whose JVM is asked for its heap.
    """

    def __init__(self, session: SparkSession) -> None:
        jvm: Any = session.sparkContext._jvm
        self._pools = list(jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans())
        self.peaks: dict[str, float] = {}
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

    def _watch(self) -> None:
        own = psutil.Process()
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
            usages = [pool.getCollectionUsage() for pool in self._pools]
            self._raise("driver_heap", sum(usage.getUsed() for usage in usages if usage is not None) / MIB)

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
