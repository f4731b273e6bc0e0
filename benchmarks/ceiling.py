"""How near extraction on Spark comes to a tuned single-process loop over the same library calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import POSTS, say_variants
from benchmarks.full_size import full_size_models
from benchmarks.race import KINDS, MAX_BATCH, WARM_UP, Race, differences, say_differences
from benchmarks.results import table
from benchmarks.slots import show_uses

GOAL = 1.05
"""Most wall-clock of Spark extraction, as a multiple of the loop's, on at least five minutes of work."""

MINUTES = 5.5
"""Work of the loop, for each extractor."""


def measure(bench: Bench, part: str) -> dict[str, Any]:
    """Time the loop and the stage for one extractor, with its model of full size."""
    return race_the_loop(bench, "full-size", full_size_models(bench.work / "models"), MINUTES, [part])


def race_the_loop(
    bench: Bench, label: str, models: Mapping[str, Mapping[str, Any]], minutes: float, extractors: Iterable[str]
) -> dict[str, Any]:
    """Time the loop and the stage on the same contents, for some extractors.

    Args:
        bench: Where to work.
        label: Names the folder of outputs.
        models: The `models` section of a configuration.
        minutes: Work of the loop.
        extractors: Of `KINDS`.
    """
    rows = []
    for extractor in extractors:
        race = Race(bench, extractor, models, label)
        contents = race.fill(bench.minutes(minutes))
        ceiling, ours = race.run("ceiling", contents), race.run("smp", contents)
        rows.append(
            {
                "extractor": extractor,
                "ratio": ours["seconds"] / ceiling["seconds"],
                "differences": differences(extractor, ceiling.pop("out"), ours.pop("out")),
                "ceiling": ceiling,
                "smp": ours,
            }
        )
    return {"max_batch": MAX_BATCH, "rows": rows}


def section(figures: dict[str, Any], part: str) -> str:
    """Return the section of an extractor; the first one says how all are measured."""
    intro = (
        "## Ceiling\n\n"
        "A tuned single-process loop over the same library calls against the stage `extract` from planning to "
        "published Delta tables, on the same contents with the same batch limits, models of full size. Both use all "
        "cores, large layers by oneDNN and fused attention.\n\n"
        "The loop over pictures takes them in the order of the file: a pool of as many threads as cores decodes and "
        "scales four batches ahead while torch computes. The loop over texts tokenises all of them first, in one "
        "thread and with no pool, sorts them by length and then computes: its tokenising is in its seconds and hides "
        "behind nothing, while the stage prepares texts in a second thread (`decode` below).\n\n"
        "The goal is a ratio of wall-clock of at most "
        f"{GOAL} on five minutes of work; start-up (session, model, warm-up) is apart. Outputs are compared row by "
        f"row.\n\n{POSTS}\n\n"
    )
    return (intro if part == next(iter(KINDS)) else "") + f"### `{part}`\n\n" + tables(figures)


def _say_variants(row: dict[str, Any], contents: str) -> str:
    name = row["extractor"]
    return say_variants(contents, KINDS[name], row["ceiling"]["rows"], WARM_UP[name])


def tables(figures: dict[str, Any]) -> str:
    """Return the figures of `race_the_loop` as two tables: times, and the stage's seconds by phase."""
    times = table(
        ["extractor", "rows", "loop, s", "extract, s", "ratio", "start-up loop / Spark, s", "outputs"],
        [
            (
                f"`{row['extractor']}`",
                f"{row['ceiling']['rows']:,}",
                f"{row['ceiling']['seconds']:.1f}",
                f"{row['smp']['seconds']:.1f}",
                f"**{row['ratio']:.3f}**",
                f"{row['ceiling']['startup_s']:.0f} / {row['smp']['startup_s']:.0f}",
                say_differences(row["differences"]),
            )
            for row in figures["rows"]
        ],
    )
    phases = table(
        ["extractor", *PHASES],
        [
            (f"`{row['extractor']}`", *(f"{row['smp']['phases'].get(phase, 0.0):.1f}" for phase in PHASES))
            for row in figures["rows"]
        ],
    )
    slots = show_uses(
        "The same wall-clock by what the slots did",
        ["extractor", "extract, s"],
        [((f"`{row['extractor']}`", f"{row['smp']['seconds']:.1f}"), row["smp"]["slots"]) for row in figures["rows"]],
    )
    said = [_say_variants(row, figures["contents"]) for row in figures["rows"]]
    variants = "\n".join([*said, "", ""]) if any(said) else ""
    return (
        f"{times}\n{variants}Seconds of the stage by phase, those of workers summed over slots (`idle`: the model "
        f"waited; `write`: Spark took the rows; `publish` overlaps with computing):\n\n{phases}\n{slots}"
    )


PHASES = ("plan", "load", "decode", "compute", "idle", "write", "publish", "reconcile")
