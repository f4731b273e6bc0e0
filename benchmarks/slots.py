"""What Spark's slots did while a stage ran, read from Spark's event log: the profile behind a wall-clock figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import table

MODEL_OPERATOR = "MapInArrow"
"""Part of the name of the operator that runs a model, in a stage's list of RDDs."""

USES = {
    "before": "before the first model task",
    "model": "model tasks",
    "small": "other tasks",
    "empty": "no task",
    "after": "after the last model task",
}
"""What `use_of_slots` tells, with headings; together these make the wall-clock."""


def show_uses(what: str, head: Sequence[str], rows: Iterable[tuple[Sequence[object], Mapping[str, float]]]) -> str:
    """Return a Markdown table of what `use_of_slots` told, with the sentence that explains it.

    Args:
        what: Begins the sentence.
        head: Headings of the first columns.
        rows: Cells of the first columns, and what was told.
    """
    uses = table([*head, *USES.values()], ((*first, *(f"{told[use]:.1f}" for use in USES)) for first, told in rows))
    return (
        f"{what}, from Spark's event log; between the first task with a model and the last one, slot-seconds divided "
        f"by slots:\n\n{uses}"
    )


def event_log_settings(folder: Path) -> dict[str, str]:
    """Return the Spark settings that make a session leave its events in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.absolute().as_uri(),
        "spark.eventLog.compress": "false",
    }


def use_of_slots(folder: Path, slots: int, began: float, ended: float) -> dict[str, float]:
    """Account for a span of wall-clock time.

    Args:
        folder: The event log's, of a session that was stopped.
        slots: Tasks at a time.
        began: Beginning of the span, seconds since the epoch.
        ended: Its end.

    Returns:
        Seconds of wall-clock: `before`, until the first task with a model began; `after`, from the end of the last one;
        `between`, what is left of it, the sum of the three that follow: slot-seconds divided by slots: `model`,
        tasks with a model; `small`, any other tasks; `empty`, no task.
    """
    tasks = [
        (max(began, start), min(ended, end), model)
        for start, end, model in _tasks(folder)
        if end > began and start < ended
    ]
    models = [(start, end) for start, end, model in tasks if model]
    if not models:
        return {
            "before": round(ended - began, 2),
            "after": 0.0,
            "between": 0.0,
            "model": 0.0,
            "small": 0.0,
            "empty": 0.0,
        }
    first, last = min(start for start, _ in models), max(end for _, end in models)
    within = [(max(first, start), min(last, end), model) for start, end, model in tasks if end > first and start < last]
    spent = {wanted: sum(end - start for start, end, model in within if model is wanted) for wanted in (True, False)}
    return {
        "before": round(first - began, 2),
        "between": round(last - first, 2),
        "model": round(spent[True] / slots, 2),
        "small": round(spent[False] / slots, 2),
        "empty": round(last - first - (spent[True] + spent[False]) / slots, 2),
        "after": round(ended - last, 2),
    }


def _tasks(folder: Path) -> Iterator[tuple[float, float, bool]]:
    """Yield every task's start and end, in seconds since the epoch, and whether it ran a model."""
    with_model: set[int] = set()
    for event in events(folder):
        if event["Event"] == "SparkListenerStageSubmitted":
            stage = event["Stage Info"]
            if any(MODEL_OPERATOR in rdd.get("Scope", "") for rdd in stage["RDD Info"]):
                with_model.add(stage["Stage ID"])
        elif event["Event"] == "SparkListenerTaskEnd":
            times = event["Task Info"]
            yield times["Launch Time"] / 1000, times["Finish Time"] / 1000, event["Stage ID"] in with_model


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what an event log's folder, of a session that was stopped, holds."""
    (path,) = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
