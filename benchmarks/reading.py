"""Seconds of the commands that read a root, with and without the Spark session that they used to take."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.bench import Bench
from benchmarks.plain_lake import append, append_columns, write_lake
from benchmarks.results import table
from smp_features.config import Config
from smp_features.extractors import build_extractors
from smp_features.lake.schema import Schema

CONTENTS = "made-up rows, written as Delta tables"

POSTS = 100_000
REPEATS = 5
SPARK_REPEATS = 2
GOAL_S = 2.0
VECTOR = 512
AT = datetime(2016, 3, 1, tzinfo=UTC)
PART = 20_000
"""Rows written at once, so that tables of vectors fit into memory."""

COMMANDS = {
    "smp status": ["status"],
    "smp errors": ["errors"],
    "smp tables": ["tables"],
    'smp sql "SELECT …", one row': ["sql", "SELECT pid, caption, caption_title_similarity FROM post_features LIMIT 1"],
    'smp sql "SELECT …", all posts grouped': [
        "sql",
        "SELECT category, COUNT(*) AS n, AVG(popularity) AS mean FROM posts JOIN labels USING (pid) GROUP BY category",
    ],
}


def measure(bench: Bench) -> dict[str, Any]:
    """Run every command as a process, beginning to end, turn by turn: without Spark, and with it."""
    posts, root = bench.posts(POSTS), bench.work / "reading"
    shutil.rmtree(root, ignore_errors=True)
    _fill(root, posts)
    took: dict[str, dict[str, list[float]]] = {name: {"duckdb": [], "spark": []} for name in COMMANDS}
    answers: dict[str, dict[str, str]] = {name: {} for name in COMMANDS}
    for repeat in range(1 if bench.quick else REPEATS):
        for name, arguments in COMMANDS.items():
            for engine in ("duckdb", "spark") if repeat < SPARK_REPEATS else ("duckdb",):
                seconds, answers[name][engine] = _timed(root, arguments, engine)
                took[name][engine].append(round(seconds, 2))
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    shutil.rmtree(root)
    return {
        "posts": posts,
        "gib": round(size / 2**30, 2),
        "goal_s": GOAL_S,
        "load": round(os.getloadavg()[0], 1),
        "commands": {
            name: {
                **{engine: {"median_s": statistics.median(each), "all_s": each} for engine, each in found.items()},
                "same": sorted(answers[name]["duckdb"].splitlines()) == sorted(answers[name]["spark"].splitlines()),
            }
            for name, found in took.items()
        },
    }


def _timed(root: Path, arguments: list[str], engine: str) -> tuple[float, str]:
    command = [sys.executable, "-m", "smp_features.cli", *arguments, "--root", str(root), "--engine", engine]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return seconds, done.stdout


def _fill(root: Path, posts: int) -> None:
    """Write a root on which every stage has run: a title and a picture per post, everything extracted but a few."""
    specs = Schema.of(Config()).specs
    extractors = build_extractors(Config().models)
    generator = np.random.default_rng(7)
    write_lake(
        root,
        {
            "runs": [_run(f"extract/{name}") for name in extractors] + [_run("ingest")],
            "extractors": [
                {"extractor": each.fingerprint, "name": name, "description": "{}", "first_used_at": AT}
                for name, each in extractors.items()
            ],
            "attempts": [_attempt(number) for number in range(100)],
        },
    )
    for start in range(0, posts, PART):
        for name, columns in _part(start, min(start + PART, posts), generator):
            spec = specs[name]
            rows = len(next(iter(columns.values())))
            filled = {
                each.name: pa.array(columns.get(each.name, [None] * rows), each.arrow_type) for each in spec.columns
            }
            append_columns(root, spec, filled)
    append(root, specs["quarantine"], [{"source_row": "train:1", "reason": "no_pid", "run": "r"}])


def _part(start: int, end: int, generator: np.random.Generator) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    numbers, n = range(start, end), end - start
    pids = [str(number) for number in numbers]
    titles = [f"a title of some words {number}" for number in numbers]
    title_keys, image_keys = [_key(title) for title in titles], [_key(f"picture {pid}") for pid in pids]
    captions = [f"a picture of {number}" for number in numbers]
    caption_keys = [_key(caption) for caption in captions]
    prints = {name: each.fingerprint for name, each in build_extractors(Config().models).items()}
    statuses = ["ok" if number % 500 else "truncated" for number in numbers]
    errors = [None if status == "ok" else "It cannot be used." for status in statuses]
    common = {"pid": pids, "uid": [f"user {number % 9_000}" for number in numbers], "event_ts": [AT] * n}
    yield "posts", {
        **common, "split": ["train"] * n, "known_at": [AT] * n, "title": titles, "title_key": title_keys,
        "tags": ["one two"] * n, "category": [f"category {number % 12}" for number in numbers],
        "image_key": image_keys, "image_status": statuses, "source_row": [f"train:{pid}" for pid in pids],
        "row_hash": image_keys,
    }  # fmt: skip
    yield "labels", {"pid": pids, "popularity": list(generator.uniform(0, 16, n)), "known_at": [AT] * n}
    yield "images", _content(image_keys, "image_key", bytes=[b"\xff" * 200] * n, status=statuses, error=errors)
    texts = title_keys + caption_keys
    yield "texts", _content(texts, "text_key", text=titles + captions)
    made = {"computed_at": [AT] * n}
    yield "captions", _content(
        image_keys, "image_key", extractor=[prints["caption"]] * n, caption=captions, text_key=caption_keys,
        status=statuses, error=errors, **made,
    )  # fmt: skip
    yield "image_embeddings", _content(
        image_keys, "image_key", extractor=[prints["clip_image"]] * n, embedding=_vectors(n, generator),
        status=statuses, error=errors, **made,
    )  # fmt: skip
    yield "text_embeddings", _content(
        texts, "text_key", extractor=[prints["clip_text"]] * 2 * n, embedding=_vectors(2 * n, generator),
        status=["ok"] * 2 * n, computed_at=[AT] * 2 * n,
    )  # fmt: skip
    most = n - n // 100  # the others are left to do
    yield "perplexities", _content(
        title_keys[:most], "text_key", extractor=[prints["perplexity"]] * most,
        log_perplexity=list(generator.uniform(1, 9, most)), status=["ok"] * most, computed_at=[AT] * most,
    )  # fmt: skip
    yield "post_features", {
        **common, "split": ["train"] * n, "title": titles, "caption": captions, "image_status": statuses,
        "caption_title_similarity": list(generator.uniform(-1, 1, n)), "image_embedding": _vectors(n, generator),
        "title_embedding": _vectors(n, generator), "time_rules": ["strict"] * n, "features_key": image_keys,
        "inputs_key": image_keys, "computed_at": [AT] * n,
    }  # fmt: skip


def _content(keys: list[str], key: str, **columns: list[Any]) -> dict[str, list[Any]]:
    return {"shard": [each[0] for each in keys], key: keys, **columns}


def _vectors(rows: int, generator: np.random.Generator) -> Any:
    flat = pa.array(generator.standard_normal(rows * VECTOR, dtype=np.float32))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, rows * VECTOR + 1, VECTOR, dtype=np.int32)), flat)


def _key(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _run(stage: str) -> dict[str, Any]:
    counts = dict.fromkeys(("wanted", "ok", "failed", "left", "given_up", "computed", "model_loads"), 0)
    return {
        "run": "r", "stage": stage, "started_at": AT, "finished_at": AT, "outcome": "done", **counts,
        "seconds": [], "versions_read": [], "versions_written": [], "message": "made up",
    }  # fmt: skip


def _attempt(number: int) -> dict[str, Any]:
    return {"stage": "perplexity", "key": _key(f"lost {number}"), "status": "timeout", "run": "r", "at": AT}


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section."""
    rows = table(
        ("command", "without Spark, s", "each", "with Spark, s", "goal", ""),
        (
            (
                f"`{name}`" if '"' not in name else name.replace('"SELECT …"', '`"SELECT …"`'),
                f"{found['duckdb']['median_s']:.2f}",
                ", ".join(f"{each:.2f}" for each in found["duckdb"]["all_s"]),
                f"{found['spark']['median_s']:.1f}",
                f"{figures['goal_s']:g} s",
                "met" if found["duckdb"]["median_s"] <= figures["goal_s"] else "**missed**",
            )
            for name, found in figures["commands"].items()
        ),
    )
    differ = [name for name, found in figures["commands"].items() if not found["same"]]
    same = (
        "Both printed the same."
        if not differ
        else f"The answers differ in the order or spelling of: {', '.join(differ)}."
    )
    return f"""## Reading a root

Whole processes, from start to end, on a root of {figures["posts"]:,} posts and {figures["gib"]} GiB, by turns with
the same command through a Spark session (`--engine spark`), which is what these commands took before. Medians; the
machine's load was {figures["load"]} at the end.

{rows}
{same}
"""
