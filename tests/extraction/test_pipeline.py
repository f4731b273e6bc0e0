"""One task without Spark: every input comes out once, whatever the model does."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from extraction_bench import key_of
from extraction_fakes import FakeClipImage, FakeClipText, vector

from smp_features.errors import ModelError, SmpError, StageError
from smp_features.extraction.pipeline import Pipeline, WorkerUnusable, output_schema
from smp_features.extraction.watchdog import Found, Notes, Watch, left_behind


class Bench:
    """A pipeline over a fake model, whose `run` calls are listed."""

    def __init__(self, folder: Any, extractor: Any = None, model: Any = None, **options: Any) -> None:
        self.extractor = extractor or FakeClipText(log=str(folder / "log"))
        self.folder = folder
        self.model = model or self.extractor.load("cpu")
        self.options = options
        self.sizes: list[int] = []

    def run(self, *texts: str, window: int = 100) -> dict[str, tuple[str, Any]]:
        """Return key to (status, embedding)."""
        run = self.model.run

        def listed(items: Any) -> Any:
            self.sizes.append(len(items))
            return run(items)

        self.model.run = listed
        with Watch(Notes(str(self.folder / "notes"), 0, 1), 60) as watch:
            self.pipeline = Pipeline(
                self.extractor, "text_key", lambda: (self.model, 1), watch, threads=2, **self.options
            )
            batches = list(self.pipeline.run(_batches(texts, window)))
        table = pa.Table.from_batches(batches)
        assert table.schema == output_schema("text_key", self.extractor.outputs)
        rows = table.to_pylist()
        self.measured = json.loads(rows.pop()["error"])
        assert len({row["text_key"] for row in rows}) == len(rows)
        return {row["text_key"]: (row["status"], row["embedding"]) for row in rows}


def _batches(texts: tuple[str, ...], window: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(texts), window):
        part = texts[start : start + window]
        yield pa.RecordBatch.from_arrays([pa.array([key_of(t) for t in part]), pa.array(part)], ["text_key", "text"])


def test_rows_keep_their_own_vectors_across_windows_and_batches(tmp_path):
    texts = [f"text {n}" for n in range(53)]
    bench = Bench(tmp_path)
    out = bench.run(*texts, window=10)
    assert len(out) == 53
    for text in texts:
        np.testing.assert_array_equal(np.float32(out[key_of(text)][1]), vector("1", text))
    assert sum(bench.sizes) == 53
    assert max(bench.sizes) == 8  # the fakes' max_cost
    assert bench.sizes.count(8) == 6  # remainders wait for the next window instead of running as small batches
    assert (bench.measured["rows"], bench.measured["loads"]) == (53, 1)
    assert set(bench.measured["seconds"]) == {"load", "decode", "compute", "write", "idle"}


def test_out_of_memory_halves_the_batch_and_loses_no_row(tmp_path):
    bench = Bench(tmp_path)
    out = bench.run(*(f"crowded {n}" for n in range(16)))
    assert {status for status, _ in out.values()} == {"ok"}
    assert bench.sizes[:3] == [8, 4, 2]
    assert bench.sizes.count(8) == 1  # the next batch is cut beforehand
    assert len(out) == 16


def test_a_lone_row_that_does_not_fit_is_transient_and_its_neighbours_are_computed(tmp_path):
    out = Bench(tmp_path).run("oom 1", *(f"text {n}" for n in range(7)))
    assert out.pop(key_of("oom 1"))[0] == "out_of_memory"
    assert {status for status, _ in out.values()} == {"ok"}


def test_an_input_that_breaks_the_model_is_found_among_its_neighbours(tmp_path):
    out = Bench(tmp_path).run("raise 1", *(f"text {n}" for n in range(7)))
    assert out.pop(key_of("raise 1"))[0] == "model_error"
    assert {status for status, _ in out.values()} == {"ok"}


def test_nan_is_refused_for_its_row_alone(tmp_path):
    out = Bench(tmp_path).run("nan 1", "text 1", "nan 2")
    assert out[key_of("nan 1")] == ("not_finite", None)
    assert out[key_of("nan 2")] == ("not_finite", None)
    np.testing.assert_array_equal(np.float32(out[key_of("text 1")][1]), vector("1", "text 1"))


def test_refusals_need_no_batch(tmp_path):
    bench = Bench(tmp_path)
    assert {status for status, _ in bench.run("", "refused 1").values()} == {"empty", "truncated"}
    assert bench.sizes == []


def test_nothing_to_do_loads_nothing(tmp_path):
    bench = Bench(tmp_path)
    assert bench.run() == {}
    assert bench.measured["loads"] == 0


def test_a_model_that_only_fails_is_blamed(tmp_path):
    with pytest.raises(ModelError, match="raised ValueError for each of the first 32 inputs"):
        Bench(tmp_path).run(*(f"raise {n}" for n in range(40)))


def test_what_a_dead_worker_held_is_left_for_a_run_alone(tmp_path):
    found = Found({key_of("text 1")[:16]: "worker_lost"})
    bench = Bench(tmp_path, found=found)
    out = bench.run("text 1", "text 2")
    assert (out[key_of("text 1")][0], out[key_of("text 2")][0]) == ("suspect", "ok")
    assert (bench.measured["attempt"], bench.measured["loads"]) == (1, 1)  # the driver adds the dead worker's


def test_alone_what_a_dead_worker_held_is_at_fault(tmp_path):
    bench = Bench(tmp_path, found=Found({key_of("text 1")[:16]: "timeout"}), solo=True)
    out = bench.run("text 1", "text 2", "text 3")
    assert (out[key_of("text 1")][0], out[key_of("text 2")][0]) == ("timeout", "ok")
    assert bench.sizes == [1, 1]


def test_alone_means_that_nothing_else_is_in_flight(tmp_path, monkeypatch):
    texts = [f"text {n}" for n in range(12)]
    bench = Bench(tmp_path, FakeClipImage(log=str(tmp_path / "log")), solo=True)
    in_flight: list[int] = []
    over = Watch.over

    @contextlib.contextmanager
    def counted(watch: Watch, keys: Any) -> Iterator[None]:
        with over(watch, keys):
            in_flight.append(sum(len(held) for _, held in watch._started.values()))
            time.sleep(0.005)
            yield

    monkeypatch.setattr(Watch, "over", counted)
    assert {status for status, _ in bench.run(*texts, window=3).values()} == {"ok"}
    assert in_flight == [1] * 2 * len(texts)  # each prepared and each run while nothing else was


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 9 bytes."),
    ],
)
def test_running_out_of_memory_while_preparing_is_transient(tmp_path, failure):
    bench = Bench(tmp_path)
    bench.model.prepare = _raising(failure)
    assert set(bench.run("text 1").values()) == {("out_of_memory", None)}


def test_what_is_not_an_inputs_fault_ends_the_task(tmp_path):
    bench = Bench(tmp_path)
    bench.model.prepare = _raising(StageError("No room for notes."))
    with pytest.raises(StageError, match="No room for notes"):
        bench.run("text 1")


def _raising(failure: Exception) -> Any:
    def prepare(raw: Any) -> Any:
        raise failure

    return prepare


def test_a_failed_device_ends_the_worker_with_its_inputs_noted(tmp_path):
    bench = Bench(tmp_path)

    def run(items: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    bench.model.run = run
    notes = Notes(str(tmp_path / "n"), 0, 1)
    watch = Watch(notes, 60)
    pipeline = Pipeline(bench.extractor, "text_key", lambda: (bench.model, 1), watch)
    with pytest.raises(WorkerUnusable):
        list(pipeline.run(_batches(("text 1",), 10)))
    os.close(notes.file)  # as the end of the process does
    assert left_behind(str(tmp_path / "n"), 0).of(key_of("text 1")) == "worker_lost"


def test_a_model_that_returns_other_rows_than_it_was_given_is_refused(tmp_path):
    bench = Bench(tmp_path)
    bench.model.run = lambda items: {"embedding": np.zeros((len(items) + 1, 4), dtype=np.float32)}
    with pytest.raises(SmpError, match="returned rows"):
        bench.run("text 1")


def test_images_are_read_as_bytes(tmp_path):
    bench = Bench(tmp_path, FakeClipImage(log=str(tmp_path / "log")))
    with Watch(Notes(str(tmp_path / "n"), 0, 1), 60) as watch:
        pipeline = Pipeline(bench.extractor, "image_key", lambda: (bench.model, 1), watch)
        batch = pa.RecordBatch.from_arrays([pa.array(["k" * 64]), pa.array([b"red cat"])], ["image_key", "bytes"])
        first = next(iter(pipeline.run([batch])))
    np.testing.assert_array_equal(np.float32(first.to_pylist()[0]["embedding"]), vector("1", "red cat"))
