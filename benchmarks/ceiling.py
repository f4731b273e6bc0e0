"""How near extraction on Spark comes to the best single-process loop over the same library calls."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.full_size import full_size_models
from benchmarks.race import KINDS, MAX_BATCH, Race, demo_models, differences
from benchmarks.results import table

GOAL = 1.05
"""Most wall-clock of Spark extraction, as a multiple of the loop's, on at least five minutes of work."""

MINUTES = {"full size": 5.5, "demo": 1.0}
"""Work of the loop. The demo models are so small that the machinery around them is most of it: shown, not a goal."""


def measure(bench: Bench) -> dict[str, Any]:
    """Time the loop and the stage on the same contents, for each extractor and both sizes of models."""
    sizes = {"full size": full_size_models(bench.work / "models"), "demo": demo_models()}
    rows = []
    for label, models in sizes.items():
        for extractor in KINDS:
            race = Race(bench, extractor, models, label.replace(" ", "-"))
            contents = race.fill(bench.minutes(MINUTES[label]))
            ceiling, ours = race.run("ceiling", contents), race.run("smp", contents)
            rows.append(
                {
                    "models": label,
                    "extractor": extractor,
                    "ceiling": ceiling,
                    "smp": ours,
                    "ratio": ours["seconds"] / ceiling["seconds"],
                    "differences": differences(extractor, ceiling.pop("out"), ours.pop("out")),
                }
            )
    return {"goal": GOAL, "max_batch": MAX_BATCH, "rows": rows}


def section(figures: dict[str, Any]) -> str:
    """Return the section on the ceiling."""
    lines = [
        "## Ceiling\n",
        "The best single-process loop over the same library calls (decoding ahead, length-sorted batches, all cores) "
        "against the stage `extract` from planning to published Delta tables, on the same contents with the same batch "
        "limits. The goal is a ratio of wall-clock of at most "
        f"{figures['goal']} on five minutes of work with models of full size; start-up (session, model, warm-up) is "
        "apart. Outputs are compared row by row.\n",
        table(
            ["models", "extractor", "rows", "loop, s", "extract, s", "ratio", "start-up loop / Spark, s", "outputs"],
            [
                (
                    row["models"],
                    f"`{row['extractor']}`",
                    f"{row['ceiling']['rows']:,}",
                    f"{row['ceiling']['seconds']:.1f}",
                    f"{row['smp']['seconds']:.1f}",
                    f"**{row['ratio']:.3f}**",
                    f"{row['ceiling']['startup_s']:.0f} / {row['smp']['startup_s']:.0f}",
                    outputs(row["differences"]),
                )
                for row in figures["rows"]
            ],
        ),
        "Seconds of the stage by phase, those of workers summed over slots (`idle`: the model waited; `write`: Spark "
        "took the rows):\n",
        table(
            ["models", "extractor", *PHASES],
            [
                (
                    row["models"],
                    f"`{row['extractor']}`",
                    *(f"{row['smp']['phases'].get(phase, 0.0):.1f}" for phase in PHASES),
                )
                for row in figures["rows"]
            ],
        ),
    ]
    return "\n".join(lines)


PHASES = ("plan", "load", "decode", "compute", "idle", "write", "publish", "reconcile")


def outputs(found: dict[str, Any]) -> str:
    """Say how two contenders' outputs differ."""
    if found["missing"]:
        return f"{found['missing']} missing"
    if "different" in found:
        return "equal" if not found["different"] else f"{found['different']} of {found['rows']} captions differ"
    return f"≤ {found['largest']:.0e}"
