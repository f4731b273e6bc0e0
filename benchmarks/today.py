"""Our extraction against what users compute the same features with today, on the same contents and the same cores."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import POSTS, say_variants
from benchmarks.environments import InstallError, python_for, tool_version
from benchmarks.full_size import full_size_models
from benchmarks.race import KINDS, MAX_BATCH, WARM_UP, ContenderFailed, Race, differences, say_differences
from benchmarks.results import table
from benchmarks.slots import show_uses

MINUTES = {"caption": 3.0, "clip_image": 3.0, "clip_text": 0.25, "perplexity": 1.5}
"""Work for our own extraction: enough that its fixed cost weighs little, and that the slowest tool ends in time."""

TIMEOUT_S = 1500.0

CONTENDERS = {
    "caption": ("transformers_pipeline", "ray_data", "daft"),
    "clip_image": ("open_clip_script", "clip_retrieval", "predict_batch_udf", "ray_data", "daft"),
    "clip_text": ("open_clip_script", "clip_retrieval", "predict_batch_udf", "ray_data", "daft"),
    "perplexity": ("evaluate_perplexity", "predict_batch_udf", "ray_data", "daft"),
}

TITLES = {
    "transformers_pipeline": "transformers `pipeline`",
    "open_clip_script": "open_clip script",
    "evaluate_perplexity": "`evaluate` perplexity loop",
    "predict_batch_udf": "Spark `predict_batch_udf`",
    "clip_retrieval": "clip-retrieval",
    "ray_data": "Ray Data",
    "daft": "Daft",
    "smp": "**smp_features**",
    "smp-again": "**smp_features**, again",
}


def measure(bench: Bench, part: str) -> dict[str, Any]:
    """Time every contender of an extractor, our own first and last; a contender that fails leaves its reason."""
    models = full_size_models(bench.work / "models")
    pythons = {name: _install(name, bench.work) for name in CONTENDERS[part]}
    found = _measure_one(Race(bench, part, models, "today"), bench.minutes(MINUTES[part]), pythons)
    versions = {name: version for name in pythons if (version := tool_version(name))}
    return {"max_batch": MAX_BATCH[part], "versions": versions, **found}


def _install(name: str, work: Path) -> Path | InstallError:
    try:
        return python_for(name, work)
    except InstallError as failure:
        return failure


def _measure_one(race: Race, minutes: float, pythons: dict[str, Path | InstallError]) -> dict[str, Any]:
    contents = race.fill(minutes)
    first = race.run("smp", contents)
    others: list[dict[str, Any]] = []
    for name in CONTENDERS[race.extractor]:
        python = pythons[name]
        if isinstance(python, InstallError):
            others.append({"contender": name, "failed": f"could not be installed: {python}"})
            continue
        try:
            others.append({"contender": name, **race.run(name, contents, python, TIMEOUT_S)})
        except ContenderFailed as failure:
            others.append({"contender": name, "failed": str(failure)})
            print(f"   {race.label} {race.extractor}: {name}: {failure}", flush=True)
    again = race.run("smp-again", contents)
    ours = [{"contender": "smp", **first}, {"contender": "smp-again", **again}]
    seconds = fmean(one["seconds"] for one in ours)
    for one in (*ours, *others):
        if "failed" not in one:
            one["differences"] = differences(race.extractor, first["out"], one.pop("out"))
            one["speed_up"] = one["seconds"] / seconds
    return {"ours": ours, "others": others}


def section(figures: dict[str, Any], part: str) -> str:
    """Return the section of an extractor; the first one says how all are measured."""
    parts = [f"## What users do today: `{part}`\n"]
    if part == next(iter(CONTENDERS)):
        parts.append(
            "Our extraction (the stage `extract`, from planning to published Delta tables) and the tools that users "
            "compute these features with, each used as its documentation shows, one after the other on the same "
            "contents with the same models of full size in float32, the same batch limit and all cores. Start-up "
            "(sessions, loading the model, warm-up) is apart. Tools ran once, ours twice. The speed-up is a tool's "
            "seconds over the mean of our two runs, in brackets over either one: above 1, ours is faster. Outputs are "
            "compared with those of our first run, row by row.\n"
        )
        parts.append(f"{POSTS}\n")
    first, again = figures["ours"]
    ran = [other for other in figures["others"] if "failed" not in other]
    said = say_variants(figures["contents"], KINDS[part], first["rows"], WARM_UP[part])
    apart = max(first["seconds"], again["seconds"]) / min(first["seconds"], again["seconds"]) - 1
    said = f"Batches of at most {figures['max_batch']}. Our two runs differ by {apart:.0%}. {said}"
    parts.append(said.rstrip() + "\n")
    parts.append(
        table(
            ["", "rows", "seconds", "rows/s", "start-up, s", "our speed-up", "outputs against ours"],
            [_row(one, figures) for one in (first, *ran, again)],
        )
    )
    parts.append(
        show_uses(
            "Our two runs by what the slots did",
            ["", "seconds"],
            [((_title(one["contender"], figures), f"{one['seconds']:.1f}"), one["slots"]) for one in (first, again)],
        )
    )
    failed = [other for other in figures["others"] if "failed" in other]
    parts += [f"- {_title(other['contender'], figures)}: no figures; {other['failed']}" for other in failed]
    return "\n".join(parts)


def _row(one: dict[str, Any], figures: dict[str, Any]) -> tuple[str, ...]:
    ours = one["contender"].startswith("smp")
    spread = sorted(one["seconds"] / run["seconds"] for run in figures["ours"])
    return (
        _title(one["contender"], figures),
        f"{one['rows']:,}",
        f"{one['seconds']:.1f}",
        f"{one['rows'] / one['seconds']:,.1f}" if one["seconds"] > 0 else "",
        f"{one['startup_s']:.0f}",
        "" if ours else f"**{one['speed_up']:.2f}×** ({spread[0]:.2f} to {spread[1]:.2f})",
        "" if one["contender"] == "smp" else say_differences(one["differences"]),
    )


def _title(contender: str, figures: dict[str, Any]) -> str:
    version = figures["versions"].get(contender)
    return TITLES[contender] + (f" ({version})" if version else "")
