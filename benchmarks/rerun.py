"""What `extract` costs when there is nothing to do, and when one post in a hundred is new."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import MADE_UP
from benchmarks.lake import Lake
from benchmarks.results import table
from benchmarks.stand_in import make_posts, stand_ins
from smp_features.extraction.targets import TARGETS
from smp_features.runs import Summary

CONTENTS = MADE_UP

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
One post in a hundred is new. The goal is the time of a run with nothing to do plus 1 % of a full run.
{_verdict(sizes)}

{increment}
The last column takes one new post, which pays once for jobs and commits, in the place of a run with nothing to do.
{_beyond_one_post(sizes)}

Where its seconds went, summed over extractors. `plan` works out and stages the keys, `publish` are MERGEs into Delta
tables, `reconcile` counts what is there afterwards. `the rest` is not taken apart: the look at all tables before any
extractor begins, which is all of a run with nothing to do, and the chunks' jobs, of which the workers' own seconds,
summed over slots, stand in the last column:

{phases}"""


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
    """Say how far the largest size is from its last column, and in which rows of the profile the difference lies."""
    size = sizes[-1]
    one, run = size["one_new_post"], size["increment"]
    more = run["seconds"] - run["expected_over_one_post_seconds"]
    names = ("plan", "publish", "reconcile", "the rest")
    grown = zip(names, _driver(run), _driver(one), strict=True)
    told = ", ".join(f"`{name}` {after - before:+.1f} s" for name, after, before in grown)
    return (
        f"At {size['posts']:,} posts the increment differs from it by {more:+.1f} s. From one new post alone it "
        f"differs by {run['seconds'] - one['seconds']:+.1f} s, of which, by the table below, {told}. "
        "`publish` and `the rest` were not taken apart further."
    )


def _driver(run: dict[str, Any]) -> list[float]:
    """Return the seconds of the phases at the driver, and the rest."""
    spent = [run["phases"][name] for name in ("plan", "publish", "reconcile")]
    return [*spent, run["seconds"] - sum(spent)]


def _spent(run: dict[str, Any]) -> tuple[str, ...]:
    workers = sum(run["phases"][name] for name in ("load", "decode", "idle", "compute", "write"))
    return tuple(f"{seconds:.1f}" for seconds in (*_driver(run), workers))
