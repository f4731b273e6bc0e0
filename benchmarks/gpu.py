"""What one GPU makes of the extractors: rows a second by dtype and batch, and how long it waits for its inputs.

A task's pipeline is run as a Spark worker runs it, without a session and tables: once in this process, which has all
cores to prepare with, and once in several that share GPU and cores, as tasks do that Spark gives a part of a GPU each.
On a machine without a GPU there is nothing to measure, and the figures kept stay.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench import Bench
from benchmarks.contents import write_contents
from benchmarks.full_size import full_size_models
from benchmarks.race import KINDS, MODELS
from benchmarks.results import table
from smp_features.config import load_config
from smp_features.extraction.in_flight import ARROW_ROWS
from smp_features.extraction.pipeline import Pipeline, release_memory
from smp_features.extraction.watchdog import Notes, Watch
from smp_features.extraction.worker import MAX_PREPARING, keep_freed_memory, threads_of
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor, LoadedModel

DEVICE = "cuda:0"
DTYPES = ("float32", "bfloat16")

SHARING = 4
"""Workers on one GPU in the second part."""

ROWS = {"caption": 768, "clip_image": 4096, "clip_text": 16384, "perplexity": 8192}
"""Rows of one measurement: seconds of work on a data-centre GPU."""

DISTINCT = {"image": 256, "text": 2048}
"""Contents behind them; a pipeline computes whatever it is given, so they are given several times, and once before the
clock starts: kernels are chosen then, and memory is taken."""

COMPARED = 64
"""Rows that a CPU computes too, in float32."""

LARGER = 4
"""The second batch limit, as a multiple of the configuration's default."""

DEADLINE_S = 600.0


def measure(bench: Bench) -> dict[str, Any] | None:
    """Run each extractor in each dtype with two batch limits, then by several workers; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    keep_freed_memory()
    models = full_size_models(bench.work / "models")
    paths = {kind: bench.work / "contents" / f"gpu-{kind}.parquet" for kind in DISTINCT}
    for kind, path in paths.items():
        write_contents(kind, bench.source, DISTINCT[kind], path)
    rows = []
    for name, kind in KINDS.items():
        contents = _contents(paths[kind])
        expected = _on_cpu(_extractor(models, name, "float32", 1), contents[:COMPARED])
        for dtype in DTYPES:
            for larger in (1, LARGER):
                found = _alone(_extractor(models, name, dtype, larger), contents, bench.posts(ROWS[name]))
                away = _away(expected, found.pop("first"))
                rows.append({"extractor": name, "dtype": dtype, "times_batch": larger, **found, "away": away})
                print(f"   {json.dumps(rows[-1])}", flush=True)
    shared = _side_by_side(models, paths, bench)
    gpu = torch.cuda.get_device_properties(0)
    about = {"gpu": gpu.name, "gpu_gib": round(gpu.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return {**about, "rows": rows, "sharing": SHARING, "shared": shared}


def _contents(path: Path) -> pa.Array:
    return pq.read_table(path)["content"].combine_chunks()


def _extractor(models: dict[str, dict[str, Any]], name: str, dtype: str, larger: int) -> Extractor:
    section = MODELS[name]
    batch = load_config(None, []).models[section].max_batch * larger
    model = models[section] | {"dtype": dtype, "max_batch": batch}
    settings = [f"models.{section}.{key}={json.dumps(value)}" for key, value in model.items()]
    return build_extractors(load_config(None, settings).models)[name]


def _on_cpu(extractor: Extractor, contents: pa.Array) -> list[Any]:
    model = extractor.load("cpu", threads_of(1))  # loading beside the GPU has left torch one thread
    found = model.run([model.prepare(content)[0] for content in contents.to_pylist()])
    return list(found[extractor.outputs[0].name])


def _alone(extractor: Extractor, contents: pa.Array, rows: int) -> dict[str, Any]:
    import torch

    started = time.perf_counter()
    model = extractor.load(DEVICE, 1)
    load_s = time.perf_counter() - started
    _run(extractor, model, contents, DISTINCT[extractor.reads], workers=1)
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    out, phases = _run(extractor, model, contents, rows, workers=1)
    seconds = time.perf_counter() - started
    first = dict(zip(out["key"].to_pylist(), out[extractor.outputs[0].name].to_pylist(), strict=True))
    peak = torch.cuda.max_memory_allocated() / 2**30
    del model
    release_memory()
    return {
        "rows": rows,
        "ok": out["status"].to_pylist().count("ok"),
        "seconds": seconds,
        "load_s": load_s,
        "phases": phases,
        "peak_gib": peak,
        "first": [first[_key(number)] for number in range(COMPARED)],
    }


def _side_by_side(models: dict[str, dict[str, Any]], paths: dict[str, Path], bench: Bench) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    together, results = spawn.Barrier(SHARING, timeout=DEADLINE_S), spawn.Queue()
    rows = {name: bench.posts(ROWS[name]) // SHARING for name in KINDS}
    workers = [
        spawn.Process(target=_worker, args=(models, paths, rows, together, results), daemon=True)
        for _ in range(SHARING)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=DEADLINE_S) for _ in range(SHARING * len(KINDS))]
    for worker in workers:
        worker.join()
    shared = []
    for name in KINDS:
        runs = [run for run in found if run["extractor"] == name]
        seconds = max(run["ended"] for run in runs) - min(run["began"] for run in runs)
        phases = {phase: sum(run["phases"][phase] for run in runs) for phase in runs[0]["phases"]}
        ok = sum(run["ok"] for run in runs)
        shared.append({"extractor": name, "rows": SHARING * rows[name], "ok": ok, "seconds": seconds, "phases": phases})
        print(f"   {json.dumps(shared[-1])}", flush=True)
    return shared


def _worker(
    models: dict[str, dict[str, Any]], paths: dict[str, Path], rows: dict[str, int], together: Any, results: Any
) -> None:
    keep_freed_memory()
    for name, kind in KINDS.items():
        extractor, contents = _extractor(models, name, "bfloat16", 1), _contents(paths[kind])
        model = extractor.load(DEVICE, 1)
        _run(extractor, model, contents, DISTINCT[kind], SHARING)
        together.wait()
        began = time.monotonic()  # one clock for all processes
        out, phases = _run(extractor, model, contents, rows[name], SHARING)
        ok = out["status"].to_pylist().count("ok")
        results.put({"extractor": name, "began": began, "ended": time.monotonic(), "ok": ok, "phases": phases})
        del model
        release_memory()


def _run(
    extractor: Extractor, model: LoadedModel, contents: pa.Array, rows: int, workers: int
) -> tuple[pa.Table, dict[str, float]]:
    with tempfile.TemporaryDirectory() as notes, Watch(Notes(notes, 0, 1), DEADLINE_S) as watch:
        threads = min(threads_of(workers), MAX_PREPARING)
        pipeline = Pipeline(extractor, "key", lambda: (model, 0), watch, threads=threads)
        out = pa.Table.from_batches(pipeline.run(_batches(contents, rows, ARROW_ROWS[f"{extractor.reads}s"])))
    return out.slice(0, len(out) - 1), json.loads(out["error"][-1].as_py())["seconds"]


def _batches(contents: pa.Array, rows: int, at_once: int) -> Iterator[pa.RecordBatch]:
    endless = ((_key(number), number % len(contents)) for number in range(rows))
    while part := list(islice(endless, at_once)):
        keys, places = zip(*part, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(keys), contents.take(pa.array(places))], ["key", "content"])


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _away(expected: list[Any], found: list[Any]) -> dict[str, float]:
    """Say how far values are from the CPU's: captions that differ, or the largest difference of any number."""
    if isinstance(expected[0], str):
        return {"different": sum(one != two for one, two in zip(expected, found, strict=True))}
    return {"largest": float(np.abs(np.array(expected, dtype=float) - np.array(found, dtype=float)).max())}


def section(figures: dict[str, Any]) -> str:
    """Return the section on GPUs."""
    alone = [
        (
            f"`{row['extractor']}`",
            row["dtype"],
            "default" if row["times_batch"] == 1 else f"{row['times_batch']} times",
            *_rates(row, 1),
            f"{row['load_s']:.1f}",
            f"{row['peak_gib']:.1f}",
            _say_away(row["away"]),
        )
        for row in figures["rows"]
    ]
    shared = [(f"`{row['extractor']}`", *_rates(row, figures["sharing"])) for row in figures["shared"]]
    head = ["rows/s", "computing", "waiting for inputs", "decode, ms/row"]
    return (
        "## One GPU\n\n"
        f"On one {figures['gpu']} ({figures['gpu_gib']} GiB, CUDA {figures['cuda']}): a task's pipeline with the "
        "models of full size, without Spark, in one worker that has all cores to decode with. `computing` is the share "
        "of the wall-clock in which the model's calls ran, copies to and from the device included; `decode` is summed "
        f"over threads. The last column compares {COMPARED} rows with a CPU in float32.\n\n"
        + table(["extractor", "dtype", "batch", *head, "load, s", "peak, GiB", "away from CPU"], alone)
        + f"\nThe same in {figures['sharing']} workers that share GPU and cores, as with "
        f"`spark.task.resource.gpu.amount` {1 / figures['sharing']}, in bfloat16 with default batches; shares are of "
        "all workers' time:\n\n" + table(["extractor", *head], shared)
    )


def _rates(row: dict[str, Any], workers: int) -> tuple[str, ...]:
    phases, seconds = row["phases"], row["seconds"] * workers
    return (
        f"**{row['rows'] / row['seconds']:,.0f}**",
        f"{phases['compute'] / seconds:.0%}",
        f"{phases['idle'] / seconds:.0%}",
        f"{1000 * phases['decode'] / row['rows']:.2f}",
    )


def _say_away(away: dict[str, float]) -> str:
    if "different" in away:
        return f"{away['different']} captions" if away["different"] else "equal"
    return f"{away['largest']:.0e}"
