"""In a worker: the device that Spark assigned, and one model at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from smp_features.errors import DeviceError
from smp_features.extraction import worker
from smp_features.extraction.worker import device_of, held_model, threads_of


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
