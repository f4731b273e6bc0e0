"""Whether a post costs the same, in time and in memory, among ten thousand and among half a million."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import MADE_UP
from benchmarks.lake import Lake
from benchmarks.memory import PeakMemory
from benchmarks.results import FOLDER, table
from benchmarks.slots import USES, event_log_settings, show_uses, use_of_slots
from benchmarks.stand_in import make_posts, stand_ins
from smp_features.config import SparkConfig
from smp_features.runs import Summary
from smp_features.session import slots_of

CONTENTS = MADE_UP

SIZES = (10_000, 100_000, 500_000)
WARM_UP_POSTS = 2_000
SECONDS_PER_ROW = 0.001
EXTRACTORS = ("clip_image", "clip_text")
EXTRACTION = {"first_chunk_rows": 1000}  # as conf/demo.yaml has it: that the model is fast need not be found out
FLAT = 0.15
"""Most by which the largest value may exceed the smallest, over all sizes: the goal."""

NOTHING_REPEATS = 3
SHOWN_CLASSES = 6

FIGURE = "scale.png"
MEMORY = {
    "driver_jvm": "driver's JVM, RSS",
    "driver_heap": "driver's live heap",
    "worker": "largest Python worker, RSS",
}


def measure(bench: Bench) -> dict[str, Any]:
    """Extract from lakehouses of each size, each in a process of its own, so that peaks of memory are its own."""
    lakes = bench.work / "scale"
    shutil.rmtree(lakes, ignore_errors=True)
    counts = [bench.posts(size) for size in SIZES[: 2 if bench.quick else None]]
    sizes = []
    for posts in counts:
        warm_up = min(WARM_UP_POSTS, posts)
        roots = [(lakes / f"{posts}-warm", warm_up), (lakes / f"{posts}", posts)]
        _alone(_fill, roots, bench.work / "made")
        sizes.append(_alone(_extract, *(root for root, _ in roots), posts))
        shutil.rmtree(lakes)
    figures = {
        "seconds_per_row": SECONDS_PER_ROW,
        "extractors": len(EXTRACTORS),
        "driver_memory": SparkConfig().driver_memory,
        "sizes": sizes,
        **_flatness(sizes),
    }
    FOLDER.mkdir(exist_ok=True)
    draw(figures, (bench.work if bench.quick else FOLDER) / FIGURE)
    return figures


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process, so in a JVM of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_quiet) as pool:
        return pool.submit(function, *arguments).result()


def _quiet() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


def _fill(roots: Sequence[tuple[Path, int]], made: Path) -> None:
    for root, posts in roots:
        lake = Lake(root)
        lake.add(*make_posts(lake.session, made, posts))
    lake.close()


def _extract(warm_root: Path, root: Path, posts: int) -> dict[str, Any]:
    models = stand_ins(SECONDS_PER_ROW)
    events = root.with_name(f"{posts}-events")
    spark = {"conf": event_log_settings(events)}
    Lake(warm_root, extraction=EXTRACTION, spark=spark, models=models).extract(*EXTRACTORS)
    lake = Lake(root, extraction=EXTRACTION, spark=spark, models=models)
    with PeakMemory(lake.session) as memory:
        summaries, seconds = lake.extract(*EXTRACTORS)
    nothing = [lake.extract(*EXTRACTORS)[1] for _ in range(NOTHING_REPEATS)]
    slots = slots_of(lake.session, lake.config.extraction.slots)
    lake.close()
    return {
        "posts": posts,
        "seconds": round(seconds, 2),
        "seconds_per_thousand": round(1000 * seconds / posts, 4),
        "nothing_to_do_seconds": round(sorted(nothing)[len(nothing) // 2], 2),
        "computed": sum(summary.computed for summary in summaries),
        "left": sum(summary.left for summary in summaries),
        "model_loads": sum(summary.model_loads for summary in summaries),
        "phases": {summary.stage.removeprefix("extract/"): summary.seconds for summary in summaries},
        "slots_at_a_time": slots,
        "slots": _profile(events, slots, summaries),
        "memory_mib": memory.peaks,
        "grown_mib": _grown(memory.classes_before, memory.classes),
    }


def _grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return by how much the classes of the driver's live heap grew that grew most."""
    grown = {name: round(size - before.get(name, 0), 1) for name, size in after.items()}
    return dict(sorted(grown.items(), key=lambda item: -item[1])[:SHOWN_CLASSES])


def _profile(events: Path, slots: int, summaries: Sequence[Summary]) -> dict[str, float]:
    """Return the sums over the extractors of `use_of_slots`."""
    spans = [
        use_of_slots(events, slots, summary.started_at.timestamp(), summary.finished_at.timestamp())
        for summary in summaries
        if summary.started_at and summary.finished_at
    ]
    return {use: round(sum(span[use] for span in spans), 2) for use in USES}


def _flatness(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how much the largest value exceeds the smallest, as a share, and the cost of a thousand posts more."""

    def spread(values: Sequence[float]) -> float:
        return round(max(values) / min(values) - 1, 4)

    speeds = [size["seconds_per_thousand"] for size in sizes]
    slopes = [
        round(1000 * (after["seconds"] - before["seconds"]) / (after["posts"] - before["posts"]), 4)
        for before, after in pairwise(sizes)
    ]
    spreads = {"seconds_per_thousand": spread(speeds)}
    spreads |= {name: spread([size["memory_mib"][name] for size in sizes]) for name in MEMORY}
    return {
        "spread": spreads,
        "growth": {
            "seconds_per_thousand": round(speeds[-1] / speeds[0] - 1, 4),
            **{name: round(sizes[-1]["memory_mib"][name] / sizes[0]["memory_mib"][name] - 1, 4) for name in MEMORY},
        },
        "flat": {name: value <= FLAT for name, value in spreads.items()},
        "slope_seconds_per_thousand": slopes,
    }


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw seconds per thousand posts and memory against posts."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sizes = figures["sizes"]
    posts = [size["posts"] for size in sizes]
    figure = Figure(figsize=(7.2, 3.0), dpi=200, layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    time_axes.plot(posts, [size["seconds_per_thousand"] for size in sizes], color="#0072B2", marker="o")
    time_axes.set_ylabel("seconds per thousand posts")
    looks = (("#000000", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"))  # told apart without colour, too
    for (name, label), (colour, marker, line) in zip(MEMORY.items(), looks, strict=True):
        values = [size["memory_mib"][name] for size in sizes]
        memory_axes.plot(posts, values, color=colour, marker=marker, linestyle=line, label=label)
    memory_axes.set_ylabel("peak memory, MiB")
    memory_axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    memory_axes.legend(frameon=False, fontsize=8)
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        axes.set_xticks(posts)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("posts (logarithmic)")
        axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section."""
    sizes = figures["sizes"]
    slopes = ["", *(f"{slope:.2f}" for slope in figures["slope_seconds_per_thousand"])]
    rows = table(
        (
            "posts", "seconds", "s per 1,000 posts", "s per 1,000 posts more", "nothing to do, s",
            *(f"{label}, MiB" for label in MEMORY.values()),
        ),
        (
            (
                f"{size['posts']:,}", f"{size['seconds']:.1f}", f"{size['seconds_per_thousand']:.2f}", slope,
                f"{size['nothing_to_do_seconds']:.1f}", *(f"{size['memory_mib'][name]:,.0f}" for name in MEMORY),
            )
            for size, slope in zip(sizes, slopes, strict=True)
        ),
    )  # fmt: skip
    return f"""## Scale

The stage `extract` over a picture and a title per post, with stand-ins that take
{1000 * figures["seconds_per_row"]:g} ms per input instead of models. Each size ran in a process of its own, after a
small lakehouse to warm up. First chunks are of {EXTRACTION["first_chunk_rows"]:,} rows per slot.

{rows}
![Seconds per thousand posts, and memory, against posts](figures/{FIGURE})

The goal is that a post costs the same at every size: that from {sizes[0]["posts"]:,} to {sizes[-1]["posts"]:,} posts
the largest value exceeds the smallest by at most {FLAT:.0%}.

{_verdicts(figures)}
{_memory(figures)}

{_own_time(figures)}
{_where_seconds_went(figures)}"""


def _verdicts(figures: dict[str, Any]) -> str:
    first = figures["sizes"][0]
    slopes = " and ".join(f"{slope:.2f}" for slope in figures["slope_seconds_per_thousand"])
    fixed = first["seconds"] - figures["slope_seconds_per_thousand"][0] * first["posts"] / 1000
    seen = {
        "seconds_per_thousand": f"about {fixed:.0f} s of a run do not grow with posts, and weigh most on the smallest "
        f"size; each 1,000 posts more take {slopes} s, the difference to the row above",
        **{name: f"{_from_to(figures, name)} MiB" for name in MEMORY},
    }
    return table(
        ("", "exceeds by", "goal", "what is seen"),
        (
            (
                label,
                f"{figures['spread'][name]:.0%}",
                "met" if figures["flat"][name] else "**missed**",
                "" if figures["flat"][name] else seen[name],
            )
            for name, label in {"seconds_per_thousand": "seconds per 1,000 posts", **MEMORY}.items()
        ),
    )


def _from_to(figures: dict[str, Any], name: str) -> str:
    first, last = (figures["sizes"][place]["memory_mib"][name] for place in (0, -1))
    return f"{first:,.0f} to {last:,.0f}"


def _memory(figures: dict[str, Any]) -> str:
    """Take the driver's memory apart."""
    grown = ", ".join(f"`{name}` {size:+.1f}" for name, size in figures["sizes"][-1]["grown_mib"].items())
    return (
        f"Of the driver's JVM, its heap took {_from_to(figures, 'driver_committed')} MiB from the system: the JVM lets "
        f"garbage stand before it collects, up to {figures['driver_memory']} (`spark.driver_memory`). What a "
        f"collection of the whole heap left alive, every half minute and at the end, is the live heap; of it, blocks "
        f"of broadcasts reached {_from_to(figures, 'driver_blocks')} MiB. Broadcast are the keys of the chunks in "
        f"flight, at most `extraction.chunk_minutes` of work each, and what Spark's joins choose; which of them holds "
        f"how much was not measured. At the largest size these classes grew most "
        f"from the beginning to the peak, in MiB: {grown}."
    )


def _own_time(figures: dict[str, Any]) -> str:
    slots = figures["sizes"][0].get("slots_at_a_time", 2)  # measured on two before it was kept
    least = figures["extractors"] * 1000 * figures["seconds_per_row"] / slots
    return (
        f"The stand-ins' own time is in the seconds: {figures['extractors']} inputs a post on {slots} slots are "
        f"{least:.1f} s per 1,000 posts, so that much of them is no overhead."
    )


def _where_seconds_went(figures: dict[str, Any]) -> str:
    profiled = [size for size in figures["sizes"] if "slots" in size]
    if not profiled:
        return ""  # measured before there was a profile
    return "\n" + show_uses(
        f"Where the seconds went, summed over the {figures['extractors']} extractors",
        ("posts", "before any extractor, and after all"),
        (
            ((f"{size['posts']:,}", f"{size['seconds'] - sum(size['slots'].values()):.1f}"), size["slots"])
            for size in profiled
        ),
    )
