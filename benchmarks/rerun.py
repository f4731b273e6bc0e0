"""What `extract` costs when there is nothing to do, and when one post in a hundred is new."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.lake import Lake
from benchmarks.results import table
from benchmarks.stand_in import make_posts, stand_ins
from smp_features.extraction.targets import TARGETS
from smp_features.runs import Summary

SIZES = (1_000, 10_000, 100_000)
NEW_SHARE = 0.01
SECONDS_PER_ROW = 0.0005
REPEATS = 3
WARM_UP_POSTS = 200

WATCHED = (*(target.table for target in TARGETS.values()), "texts", "attempts", "extractors")
"""Tables that a run with nothing to do must leave at their version."""


def measure(bench: Bench) -> dict[str, Any]:
    """Time full runs, runs with nothing to do, and increments, with stand-ins for all four models."""
    lakes, made = bench.work / "rerun", bench.work / "made"
    shutil.rmtree(lakes, ignore_errors=True)
    warm = Lake(lakes / "warm", stand_ins=stand_ins(SECONDS_PER_ROW))
    warm.add(*make_posts(warm.session, made, WARM_UP_POSTS))
    for _ in range(1 if bench.quick else 2):
        warm.extract()
    counts = [bench.posts(size) for size in SIZES[: 1 if bench.quick else None]]
    sizes = [_measure_size(lakes / str(posts), made, posts) for posts in counts]
    warm.close()
    shutil.rmtree(lakes)
    return {"seconds_per_row": SECONDS_PER_ROW, "extractors": len(TARGETS), "sizes": sizes}


def _measure_size(root: Path, made: Path, posts: int) -> dict[str, Any]:
    lake = Lake(root, stand_ins=stand_ins(SECONDS_PER_ROW))
    lake.add(*make_posts(lake.session, made, posts))
    full, full_s = lake.extract()

    before = lake.versions(WATCHED)
    repeats = [lake.extract() for _ in range(REPEATS)]
    after = lake.versions(WATCHED)
    again = [summary for summaries, _ in repeats for summary in summaries]
    nothing_s = statistics.median(seconds for _, seconds in repeats)

    lake.add(*make_posts(lake.session, made, 1, start=posts))
    one, one_s = lake.extract()
    new = max(1, round(posts * NEW_SHARE))
    lake.add(*make_posts(lake.session, made, new, start=posts + 1))
    increment, increment_s = lake.extract()
    found = {
        "posts": posts,
        "full": _run(full, full_s),
        "nothing": {
            "seconds": round(nothing_s, 2),
            "all_seconds": [round(seconds, 2) for _, seconds in repeats],
            "model_loads": sum(summary.model_loads for summary in again),
            "new_versions": sum(after[name] - before[name] for name in WATCHED),
            "extractors_with_work": sum(summary.outcome != "nothing_to_do" for summary in again),
        },
        "one_new_post": _run(one, one_s),
        "increment": {
            **_run(increment, increment_s),
            "new_posts": new,
            "expected_seconds": round(nothing_s + NEW_SHARE * full_s, 2),
            "expected_over_one_post_seconds": round(one_s + NEW_SHARE * full_s, 2),
        },
    }
    shutil.rmtree(root)
    return found


def _run(summaries: list[Summary], seconds: float) -> dict[str, Any]:
    phases: dict[str, float] = {}
    for summary in summaries:
        for phase, spent in summary.seconds.items():
            phases[phase] = round(phases.get(phase, 0.0) + spent, 2)
    return {
        "seconds": round(seconds, 2),
        "computed": sum(summary.computed for summary in summaries),
        "left": sum(summary.left for summary in summaries),
        "model_loads": sum(summary.model_loads for summary in summaries),
        "phases": phases,
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
        ("posts", "new", "rows computed", "measured, s", "nothing to do + 1 % of full, s", "one new post, s"),
        (
            (
                f"{size['posts']:,}",
                f"{size['increment']['new_posts']:,}",
                f"{size['increment']['computed']:,}",
                f"{size['increment']['seconds']:.1f}",
                f"{size['increment']['expected_seconds']:.1f}",
                f"{size['one_new_post']['seconds']:.1f}",
            )
            for size in sizes
        ),
    )
    phases = table(
        ("posts", "run", "measured, s", "plan", "publish", "reconcile", "the rest", "in workers"),
        (
            (f"{size['posts']:,}", named, f"{size[run]['seconds']:.1f}", *_spent(size[run]))
            for size in sizes
            for run, named in (
                ("one_new_post", "one new post"),
                ("increment", f"{size['increment']['new_posts']:,} new"),
            )
        ),
    )
    return f"""## Rerun and increment

All {figures["extractors"]} extractors, with stand-ins that take {1000 * figures["seconds_per_row"]:g} ms per input
instead of models, in a warm session. A run with nothing to do reads keys, and loads and writes nothing (median of
{len(sizes[0]["nothing"]["all_seconds"])}; the row in `runs` aside):

{nothing}
One post in a hundred is new. An increment of any size pays once for jobs and commits, which is what a single new post
costs; the rest is in proportion:

{increment}
Where its seconds went, summed over extractors. `plan` works out and stages the keys, `publish` are MERGEs into Delta
tables, `reconcile` counts what is there afterwards. `the rest` is not taken apart: the look at all tables before any
extractor begins, which is all of a run with nothing to do, and the chunks' jobs, of which the workers' own seconds,
summed over slots, stand in the last column:

{phases}"""


def _spent(run: dict[str, Any]) -> tuple[str, ...]:
    phases = run["phases"]
    driver = [phases[name] for name in ("plan", "publish", "reconcile")]
    workers = sum(phases[name] for name in ("load", "decode", "idle", "compute", "write"))
    return tuple(f"{seconds:.1f}" for seconds in (*driver, run["seconds"] - sum(driver), workers))
