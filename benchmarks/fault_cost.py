"""What killing an executor costs, and whether killed extractions leave the same tables."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyspark

from benchmarks.bench import Bench
from benchmarks.chaos import (
    Command,
    copy_lake,
    draw_moments,
    executors_below,
    kill_commands,
    kill_executors,
    undisturbed,
)
from benchmarks.compare import are_equal, differences
from benchmarks.contents import MADE_UP, name_of_source
from benchmarks.lake import Lake
from benchmarks.results import table
from benchmarks.stand_in import computed_rows, make_posts, noted_rows, stand_ins
from smp_features.config import read_models
from smp_features.extraction.chunks import TASK_SECONDS
from smp_features.extractors import build_extractors
from smp_features.runs import Summary

CONTENTS = {"executor": MADE_UP}

MASTER = "local-cluster[2,1,1024]"
SLOTS = 2
MINUTES = 2.5
SECONDS_PER_ROW = 0.02
EXTRACTORS = ("clip_image",)  # one, so that half-way is in the middle of its work
KILLS = 5
QUICK_POSTS = 100
QUICK_KILLS = 2

EQUAL = (
    "Equal means: the same keys, statuses and text exactly, floats to 1e-5, whatever the time they were computed at."
)


def measure(bench: Bench, part: str) -> dict[str, Any]:
    """Measure the cost of one lost executor (`executor`), or kill extractions of real contents at random (`random`)."""
    folder = bench.work / f"fault-cost-{part}"
    shutil.rmtree(folder, ignore_errors=True)
    runs_before = set(_run_folders())
    try:
        return _one_executor(bench, folder) if part == "executor" else _at_random(bench, folder)
    finally:
        for path in set(_run_folders()) - runs_before:
            shutil.rmtree(path, ignore_errors=True)


# -- one executor -----------------------------------------------------------------------------------------------------


def _one_executor(bench: Bench, folder: Path) -> dict[str, Any]:
    posts = int(bench.minutes(MINUTES) * 60 * SLOTS / SECONDS_PER_ROW / len(EXTRACTORS))
    spark = {"master": MASTER, "driver_memory": "2g", "conf": {"spark.executor.memory": "768m"}}
    lakes: dict[str, Lake] = {}
    log = folder / "log"
    for name in ("warm", "undisturbed", "killed"):
        lakes[name] = Lake(folder / name, models=stand_ins(SECONDS_PER_ROW, log), spark=spark)
        count = min(200, posts) if name == "warm" else posts
        lakes[name].add(*make_posts(lakes[name].session, bench.work / "made", count))

    def extract(name: str) -> tuple[list[Summary], float]:
        log.mkdir()
        found = lakes[name].extract(*EXTRACTORS)
        log.rename(folder / f"{name}-log")
        return found

    extract("warm")
    summaries, seconds = extract("undisturbed")
    rows = sum(summary.computed for summary in summaries)

    kill: dict[str, Any] = {"executors_killed": 0}
    killer = threading.Thread(target=_kill_at, args=(log, rows // 2, kill), daemon=True)
    killer.start()
    again, seconds_again = extract("killed")
    killer.join(10)
    if not kill["executors_killed"]:
        raise SystemExit("No executor was killed, so there is nothing to measure.")
    found = differences(lakes["undisturbed"].lakehouse, lakes["killed"].lakehouse)
    lakes["warm"].close()
    runs = {}
    for name, done, took in (("undisturbed", summaries, seconds), ("killed", again, seconds_again)):
        computed, repeats = computed_rows(folder / f"{name}-log")
        runs[name] = {
            "seconds": round(took, 1),
            "wanted": sum(summary.wanted for summary in done),
            "ok": sum(summary.ok for summary in done),
            "left": sum(summary.left for summary in done),
            "model_loads": sum(summary.model_loads for summary in done),
            "inputs_run": computed,
            "inputs_run_again": repeats,
        }
    return {
        "posts": posts,
        "seconds_per_row": SECONDS_PER_ROW,
        "slots": SLOTS,
        **runs,
        "kill": kill,
        "extra_seconds": round(seconds_again - seconds, 1),
        "differences": found,
        "equal": are_equal(found),
    }


def _kill_at(log: Path, rows: int, kill: dict[str, Any]) -> None:
    """Kill the executor that has computed longest, once this many inputs were computed."""
    while (done := noted_rows(log) if log.exists() else 0) < rows:
        time.sleep(0.2)
    victim = min(executors_below(psutil.Process().pid), key=psutil.Process.create_time)
    victim.kill()
    victim.wait(10)
    kill |= {"executors_killed": 1, "inputs_run_before": done}


def _run_folders() -> list[Path]:
    """Return where Spark keeps the executors' files of a local cluster: beside its jars, and it never removes them."""
    return list((Path(pyspark.__file__).parent / "work").glob("app-*"))


# -- at random --------------------------------------------------------------------------------------------------------


def _at_random(bench: Bench, folder: Path) -> dict[str, Any]:
    root = folder / "undisturbed"
    limit = [f"source.limit={QUICK_POSTS}"] if bench.quick else []
    Command(root, "ingest", settings=(f"source.path={bench.source}", *limit)).finish()
    by_executors, by_commands = copy_lake(root, folder / "executors"), copy_lake(root, folder / "commands")
    before, course = undisturbed(root)
    kills, chance = QUICK_KILLS if bench.quick else KILLS, random.Random(bench.seed)
    executors_at, commands_at = (draw_moments(course, kills, chance) for _ in range(2))
    executors_killed = kill_executors(by_executors, MASTER, executors_at, before, chance)
    commands_killed = kill_commands(by_commands, commands_at, before)

    reference = Lake(root)
    for told, other in ((executors_killed, by_executors), (commands_killed, by_commands)):
        found = differences(reference.lakehouse, Lake(other).lakehouse)
        told |= {"differences": found, "equal": are_equal(found)}
    reference.close()
    return {
        "contents": name_of_source(bench.source),
        "seed": bench.seed,
        "undisturbed": before,
        "executors_killed": executors_killed,
        "commands_killed": commands_killed,
    }


# -- the section ------------------------------------------------------------------------------------------------------


def section(figures: dict[str, Any], part: str) -> str:
    """Return the Markdown section of a part."""
    return _say_one_executor(figures) if part == "executor" else _say_at_random(figures)


def _say_one_executor(one: dict[str, Any]) -> str:
    once = table(
        ("", "seconds", "rows", "usable", "left", "inputs run", "of these again", "model loads"),
        (
            (
                label, f"{one[name]['seconds']:.1f}", f"{one[name]['wanted']:,}", f"{one[name]['ok']:,}",
                one[name]["left"], f"{one[name]['inputs_run']:,}", f"{one[name]['inputs_run_again']:,}",
                one[name]["model_loads"],
            )
            for name, label in (("undisturbed", "undisturbed"), ("killed", "one executor killed"))
        ),
    )  # fmt: skip
    share = one["extra_seconds"] / one["undisturbed"]["seconds"]
    return f"""## What a fault costs

On `{MASTER}`, a picture per post, {1000 * one["seconds_per_row"]:g} ms per input; in the second run an
executor's JVM is killed (SIGKILL) once half of the inputs are computed:

{once}
Both workers still hold the model that a warm-up run before these two loaded, so the undisturbed run loads none; the
new executor's worker loads one. {_say_again(one)}

The kill cost {one["extra_seconds"]:.1f} s ({share:.0%}); the tables are {_equal(one["equal"])}. {EQUAL}
"""


def _say_again(one: dict[str, Any]) -> str:
    most = int(TASK_SECONDS / one["seconds_per_row"])
    return (
        f"A task holds about {most:,} inputs ({TASK_SECONDS:.0f} s of work). With the executor Spark also lost the "
        "contents that it held for other tasks; then Spark submits all tasks of the chunk that are not finished once "
        "more, one that still runs on the other executor included. So more than one task can be computed again. Which "
        "tasks were was not kept."
    )


def _say_at_random(posters: dict[str, Any]) -> str:
    kills = table(
        ("killed", "while computing", "s after computing began", "rows done, about"),
        (
            (
                kill["killed"],
                _computing(kill),
                kill["seconds_after_computing_began"],
                f"{rows_done_at(kill, posters):,}",
            )
            for name in ("executors_killed", "commands_killed")
            for kill in posters[name]["kills"]
        ),
    )
    before, executors_killed, commands = (
        posters[name] for name in ("undisturbed", "executors_killed", "commands_killed")
    )
    return f"""## Killed at random

Real contents ({posters["contents"]}), the demo models, the command `smp extract`: undisturbed in
{before["seconds"]:.0f} s, {before["rows"]:,} feature rows. On executors of which {len(executors_killed["kills"])} were
killed at random: {executors_killed["seconds"]:.0f} s in {_runs(executors_killed)}, tables
{_equal(executors_killed["equal"])}. With the command and every process below it killed {len(commands["kills"])} times
and started again: {commands["seconds"]:.0f} s in {_runs(commands)}, tables {_equal(commands["equal"])}. {EQUAL}

{_say_moments(posters)}

{kills}"""


def _say_moments(posters: dict[str, Any]) -> str:
    """Say how moments were drawn, and where the kills fell."""
    rows = posters["undisturbed"]["rows"]
    fell = []
    for name, what in (("executors_killed", "executors"), ("commands_killed", "commands")):
        kills = posters[name]["kills"]
        seen = list(dict.fromkeys(kill["computing"] for kill in kills if kill["computing"]))
        tables = ", ".join(f"`{table}`" for table in seen)
        fell.append(
            f"the kills of {what} fell while {tables} {'was' if len(seen) == 1 else 'were'} computed, up to row "
            f"{max(rows_done_at(kill, posters) for kill in kills):,} of {rows:,}"
        )
    told = f"{'; '.join(fell)}."
    return (
        "The time of the undisturbed run was cut into as many parts as there are kills, and a moment drawn in each "
        f"(`--seed {posters['seed']}` draws these again); a kill came when the run was as far as the undisturbed one "
        f"at that moment. {told[0].upper()}{told[1:]}"
    )


def rows_done_at(kill: dict[str, Any], posters: dict[str, Any]) -> int:
    """Return the rows done at a kill: at most those of the table in work and of the tables before it.

    Between its insert and the removal of its files, a chunk was counted twice.
    """
    tables = [extractor.table for extractor in build_extractors(read_models({})).values()]
    reached = tables[: tables.index(kill["computing"]) + 1] if kill["computing"] else tables
    rows = posters["commands_killed"]["differences"]
    return min(kill["rows_done"], sum(rows[table]["rows"] for table in reached))


def _computing(kill: dict[str, Any]) -> str:
    return f"`{kill['computing']}`" if kill["computing"] else "nothing: between two extractors"


def _runs(posters: dict[str, Any]) -> str:
    return "1 run" if posters["starts"] == 1 else f"{posters['starts']} runs"


def _equal(equal: bool) -> str:
    return "equal" if equal else "**not equal**"
