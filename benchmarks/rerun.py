"""What `extract` costs when there is nothing to do, and when one post in a hundred is new."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import MADE_UP
from benchmarks.executions import PURPOSES, show_queries, use_of_queries
from benchmarks.lake import Lake
from benchmarks.results import table
from benchmarks.slots import event_log_settings
from benchmarks.stand_in import make_posts, stand_ins
from smp_features.config import read_models
from smp_features.extractors import build_extractors
from smp_features.runs import Summary

CONTENTS = MADE_UP

SIZES = (1_000, 10_000, 100_000)
NEW_SHARE = 0.01
SECONDS_PER_ROW = 0.0005
REPEATS = 3
RUNS = ("nothing", "one_new_post", "increment")
"""Runs whose seconds are taken apart."""

WARM_UP_POSTS = 200

EXTRACTORS = build_extractors(read_models({}))
WATCHED = (*(extractor.table for extractor in EXTRACTORS.values()), "texts", "attempts", "extractors")
"""Tables that a run with nothing to do must leave at their version."""


def measure(bench: Bench) -> dict[str, Any]:
    """Time full runs, runs with nothing to do, and increments, with stand-ins for all four models."""
    lakes, made = bench.work / "rerun", bench.work / "made"
    shutil.rmtree(lakes, ignore_errors=True)
    events = lakes / "events"
    warm = Lake(lakes / "warm", spark={"conf": event_log_settings(events)}, models=stand_ins(SECONDS_PER_ROW))
    warm.add(*make_posts(warm.session, made, WARM_UP_POSTS))
    for _ in range(1 if bench.quick else 2):
        warm.extract()
    counts = [bench.posts(size) for size in SIZES[: 1 if bench.quick else None]]
    sizes = [_measure_size(lakes / str(posts), made, posts) for posts in counts]
    warm.close()
    for size in sizes:
        for run in RUNS:
            size[run]["queries"] = use_of_queries(events, *size[run].pop("span"))
    shutil.rmtree(lakes)
    return {"seconds_per_row": SECONDS_PER_ROW, "extractors": len(EXTRACTORS), "sizes": sizes}


def _measure_size(root: Path, made: Path, posts: int) -> dict[str, Any]:
    lake = Lake(root, models=stand_ins(SECONDS_PER_ROW))
    lake.add(*make_posts(lake.session, made, posts))
    full, full_s = lake.extract()

    before = lake.versions(WATCHED)
    repeats = [_timed(lake) for _ in range(REPEATS)]
    after = lake.versions(WATCHED)
    again = [summary for summaries, _, _ in repeats for summary in summaries]
    nothing_s = statistics.median(seconds for _, seconds, _ in repeats)

    lake.add(*make_posts(lake.session, made, 1, start=posts))
    one, one_s, one_span = _timed(lake)
    new = max(1, round(posts * NEW_SHARE))
    lake.add(*make_posts(lake.session, made, new, start=posts + 1))
    increment, increment_s, increment_span = _timed(lake)
    found = {
        "posts": posts,
        "full": _run(full, full_s),
        "nothing": {
            "seconds": round(nothing_s, 2),
            "all_seconds": [round(seconds, 2) for _, seconds, _ in repeats],
            "span": next(span for _, seconds, span in repeats if seconds == nothing_s),
            "model_loads": sum(summary.model_loads for summary in again),
            "new_versions": sum(after[name] - before[name] for name in WATCHED),
            "extractors_with_work": sum(summary.outcome != "nothing_to_do" for summary in again),
        },
        "one_new_post": {**_run(one, one_s), "span": one_span},
        "increment": {
            **_run(increment, increment_s),
            "span": increment_span,
            "new_posts": new,
            "expected_seconds": round(nothing_s + NEW_SHARE * full_s, 2),
            "expected_over_one_post_seconds": round(one_s + NEW_SHARE * full_s, 2),
        },
    }
    shutil.rmtree(root)
    return found


def _timed(lake: Lake) -> tuple[list[Summary], float, tuple[float, float]]:
    """Extract; also return when it began and ended, in seconds since the epoch, as Spark's event log has it."""
    began = time.time()
    summaries, seconds = lake.extract()
    return summaries, seconds, (began, time.time())


def _run(summaries: list[Summary], seconds: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 2),
        "computed": sum(summary.computed for summary in summaries),
        "left": sum(summary.left for summary in summaries),
        "model_loads": sum(summary.model_loads for summary in summaries),
    }


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section."""
    sizes = figures["sizes"]
    nothing = table(
        ("posts", "nothing to do, s", "model loads", "new table versions", "full run, s"),
        (
            (
                f"{size['posts']:,}",
                f"{size['nothing']['seconds']:.1f}",
                size["nothing"]["model_loads"],
                size["nothing"]["new_versions"],
                f"{size['full']['seconds']:.1f}",
            )
            for size in sizes
        ),
    )
    increment = table(
        ("posts", "new", "rows computed", "measured, s", "goal, s", "one new post, s", "one new post + 1 % of full, s"),
        (
            (
                f"{size['posts']:,}",
                f"{size['increment']['new_posts']:,}",
                f"{size['increment']['computed']:,}",
                f"{size['increment']['seconds']:.1f}",
                f"{size['increment']['expected_seconds']:.1f}",
                f"{size['one_new_post']['seconds']:.1f}",
                f"{size['increment']['expected_over_one_post_seconds']:.1f}",
            )
            for size in sizes
        ),
    )
    return f"""## Rerun and increment

All {figures["extractors"]} extractors, with stand-ins that take {1000 * figures["seconds_per_row"]:g} ms per input
instead of models, in a warm session. A run with nothing to do reads keys, and loads and writes nothing (median of
{len(sizes[0]["nothing"]["all_seconds"])}; the row in `runs` aside):

{nothing}
One post in a hundred is new. The goal is the time of a run with nothing to do plus 1 % of a full run.
{_verdict(sizes)}

{increment}
The last column takes one new post, which pays once for jobs and commits, in the place of a run with nothing to do.
{_beyond_one_post(sizes)}

{_where_seconds_went(sizes)}"""


def _where_seconds_went(sizes: list[dict[str, Any]]) -> str:
    def named(size: dict[str, Any], run: str) -> str:
        new = size["increment"]["new_posts"]
        return {"nothing": "nothing to do", "one_new_post": "one new post", "increment": f"{new:,} new"}[run]

    return show_queries(
        "Where the seconds went",
        ("posts", "run"),
        (((f"{size['posts']:,}", named(size, run)), size[run]["queries"]) for size in sizes for run in RUNS),
    )


def _verdict(sizes: list[dict[str, Any]]) -> str:
    increments = [size["increment"] for size in sizes]
    over = [run["seconds"] - run["expected_seconds"] for run in increments]
    if max(over) <= 0:
        return "It is met at every size."
    missed = ", ".join(
        f"by {more:.1f} s at {size['posts']:,} posts ({run['seconds'] / run['expected_seconds']:.1f} times the goal)"
        for size, run, more in zip(sizes, increments, over, strict=True)
        if more > 0
    )
    return f"**It is missed**: {missed}."


def _beyond_one_post(sizes: list[dict[str, Any]]) -> str:
    """Say how far the largest size is from its last column, and what that one new post costs more than nothing."""
    size = sizes[-1]
    nothing, one, run = (size[name] for name in RUNS)
    more = run["seconds"] - run["expected_over_one_post_seconds"]

    def grown(after: dict[str, Any], before: dict[str, Any]) -> str:
        differences = (
            (after["queries"][purpose]["seconds"] - before["queries"][purpose]["seconds"], heading.partition(":")[0])
            for purpose, heading in PURPOSES.items()
        )
        return ", ".join(f"{heading} {seconds:+.1f} s" for seconds, heading in differences)

    return (
        f"At {size['posts']:,} posts the increment differs from it by {more:+.1f} s. One new post takes "
        f"{one['seconds'] - nothing['seconds']:+.1f} s to nothing to do: {grown(one, nothing)}. The increment takes "
        f"{run['seconds'] - one['seconds']:+.1f} s to one new post: {grown(run, one)}."
    )
