"""In a worker: the device that Spark assigned, and one model at a time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest
from extraction_bench import key_of
from extraction_fakes import FakeClipText

from smp_features.errors import DeviceError, ModelError
from smp_features.extraction import worker
from smp_features.extraction.worker import Task, device_of, held_model, threads_of


class FakeContext:
    """What a task sees of its resources."""

    def __init__(self, *addresses: str) -> None:
        self._gpu = {"gpu": SimpleNamespace(name="gpu", addresses=list(addresses))} if addresses else {}

    def resources(self):
        return self._gpu


def test_the_device_is_the_address_that_spark_assigned():
    assert device_of("gpu", FakeContext("3")) == "cuda:3"
    assert device_of("cpu", FakeContext("3")) == "cpu"


def test_a_promised_gpu_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError, match="Spark assigned no GPU"):
        device_of("gpu", FakeContext())


def test_slots_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert [threads_of(slots) for slots in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_freed_memory_stays_with_the_process():
    script = """
import resource, sys
import numpy as np
from smp_features.extraction.worker import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        kept = [np.ones(2**24, dtype=np.uint8) for _ in range(3)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_freed_memory()
faults()
print(usual, faults())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert usual > 10_000
    assert kept < usual / 10


def test_a_process_holds_one_model_and_loads_again_only_for_another_or_another_device(monkeypatch):
    monkeypatch.setattr(worker, "_held", None)
    loaded = []

    def load():
        assert worker._held is None  # the old one is let go first
        loaded.append(object())
        return loaded[-1]

    first, count = held_model("f", "cuda:0", load)
    assert count == 1
    assert held_model("f", "cuda:0", load) == (first, 0)
    assert held_model("f", "cuda:1", load) == (loaded[1], 1)
    assert held_model("g", "cuda:1", load) == (loaded[2], 1)
    assert len(loaded) == 3


def test_a_worker_refuses_a_model_that_is_another_one_on_its_machine(tmp_path, monkeypatch):
    extractor = FakeClipText(log=str(tmp_path / "log"))
    task = Task(
        extractor, "what the driver found", "text_key", "cpu", slots=1, deadline_s=60.0, notes=str(tmp_path / "notes"),
        keep_notes=False,
    )  # fmt: skip
    context = SimpleNamespace(partitionId=lambda: 0, taskAttemptId=lambda: 1, resources=dict)
    monkeypatch.setattr(worker.TaskContext, "get", lambda: context)
    monkeypatch.setattr(worker, "_held", None)
    batch = pa.RecordBatch.from_arrays([pa.array([key_of("a")]), pa.array(["a"])], ["text_key", "text"])
    with pytest.raises(ModelError, match="clip_text are not on this machine what they are on the driver"):
        list(task([batch]))
    assert not (tmp_path / "log").exists()  # not loaded
    rows = pa.Table.from_batches(list(replace(task, fingerprint=extractor.fingerprint)([batch])))
    assert rows["status"].to_pylist() == ["ok", "measured"]
