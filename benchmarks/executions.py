"""What Spark was asked to do while a stage ran, read from its event log: the profile of work that is mostly waiting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import table
from benchmarks.slots import MODEL_OPERATOR, events

MERGE, MODEL, RECORD, KEYS, NOTHING = "merge", "model", "record", "keys", "nothing"

PURPOSES = {
    MERGE: "MERGEs into Delta tables",
    MODEL: "the chunks' jobs with a model",
    KEYS: "queries on keys: plan, stage, count",
    RECORD: "rows in `runs`",
    NOTHING: "no query: Python, Spark's analysis, files",
}
"""What wall-clock goes to, with headings. Of queries that run at once the first one here gets it."""

_OPERATORS = {"MergeIntoCommand": MERGE, MODEL_OPERATOR: MODEL, "SaveIntoDataSourceCommand": RECORD}
_SQL = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecution"


@dataclass
class _Query:
    purpose: str = KEYS
    start: float = float("inf")
    end: float = float("-inf")
    jobs: dict[int, list[float]] = field(default_factory=dict)
    tasks_s: float = 0.0


def use_of_queries(folder: Path, began: float, ended: float) -> dict[str, dict[str, float]]:
    """Account for a span of wall-clock time by what Spark's queries were for.

    Args:
        folder: The event log's, of a session that was stopped.
        began: Beginning of the span, seconds since the epoch.
        ended: Its end.

    Returns:
        For each of `PURPOSES`: `seconds` of wall-clock, which add up to the span; of these, `jobless`, seconds in which
        no job ran; `queries` and `jobs` begun; `tasks`, the seconds of their tasks, summed over slots.
    """
    queries = [query for query in _queries(folder) if query.end > began and query.start < ended]
    told: dict[str, dict[str, float]] = {}
    taken: list[tuple[float, float]] = []
    jobs = _merged([(start, end) for query in queries for start, end in query.jobs.values()], began, ended)
    for purpose in PURPOSES:
        own = [query for query in queries if query.purpose == purpose]
        spans = [(began, ended)] if purpose == NOTHING else [(query.start, query.end) for query in own]
        before, taken = taken, _merged([*taken, *spans], began, ended)
        with_jobs = _length(_merged([*before, *jobs], began, ended))
        seconds = _length(taken) - _length(before)
        told[purpose] = {
            "seconds": round(seconds, 2),
            "jobless": round(_length(_merged([*taken, *jobs], began, ended)) - with_jobs, 2),
            "queries": len(own),
            "jobs": sum(len(query.jobs) for query in own),
            "tasks": round(sum(query.tasks_s for query in own), 2),
        }
    return told


def show_queries(what: str, head: Sequence[str], rows: Iterable[tuple[Sequence[object], Mapping[str, Any]]]) -> str:
    """Return a Markdown table of what `use_of_queries` told, with the sentence that explains it.

    Args:
        what: Begins the sentence.
        head: Headings of the first columns.
        rows: Cells of the first columns, and what was told.
    """

    def cells(told: Mapping[str, Any]) -> list[str]:
        spent = [told[purpose] for purpose in PURPOSES]
        jobless, tasks = (sum(found[name] for found in spent) for name in ("jobless", "tasks"))
        times = [f"{found['seconds']:.1f}" + (f" ({found['jobs']:,})" if found["jobs"] else "") for found in spent]
        return [*times, f"{jobless:.1f}", f"{tasks:.1f}"]

    columns = (*PURPOSES.values(), "all seconds without a job", "all tasks' seconds, summed over slots")
    return (
        f"{what}, from Spark's event log, in brackets the number of Spark jobs; of queries that run at once the one "
        f"further left has the seconds:\n\n{table([*head, *columns], [[*first, *cells(told)] for first, told in rows])}"
    )


def _queries(folder: Path) -> list[_Query]:
    """Return the outermost SQL executions, with all jobs below them; jobs outside any are a query each."""
    queries: dict[object, _Query] = {}
    roots: dict[int, int] = {}
    stages: dict[int, _Query] = {}
    jobs: dict[int, _Query] = {}
    for event in events(folder):
        kind = event["Event"]
        if kind == f"{_SQL}Start":
            root = roots[event["executionId"]] = event.get("rootExecutionId", event["executionId"])
            query = queries.setdefault(root, _Query())
            query.start = min(query.start, event["time"] / 1000)
            if root == event["executionId"]:
                plan = event["physicalPlanDescription"]
                query.purpose = next((to for name, to in _OPERATORS.items() if name in plan), KEYS)
        elif kind == f"{_SQL}End":
            query = queries[roots[event["executionId"]]]
            query.end = max(query.end, event["time"] / 1000)
        elif kind == "SparkListenerJobStart":
            # A query's first jobs, Delta's look at its files, run while it is planned, before it is said to start.
            within = event["Properties"].get("spark.sql.execution.root.id")
            key = f"job {event['Job ID']}" if within is None else int(within)
            query = jobs[event["Job ID"]] = queries.setdefault(key, _Query())
            started = event["Submission Time"] / 1000
            query.jobs[event["Job ID"]] = [started, started]
            query.start, query.end = min(query.start, started), max(query.end, started)
            stages |= dict.fromkeys(event["Stage IDs"], query)
        elif kind == "SparkListenerJobEnd":
            query, finished = jobs[event["Job ID"]], event["Completion Time"] / 1000
            query.jobs[event["Job ID"]][1] = finished
            query.end = max(query.end, finished)
        elif kind == "SparkListenerTaskEnd" and event["Stage ID"] in stages:
            times = event["Task Info"]
            stages[event["Stage ID"]].tasks_s += (times["Finish Time"] - times["Launch Time"]) / 1000
    return list(queries.values())


def _merged(spans: Iterable[Sequence[float]], began: float, ended: float) -> list[tuple[float, float]]:
    """Return spans as disjoint ones, in order, within limits."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((max(began, start), min(ended, end)) for start, end in spans):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _length(spans: Iterable[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)
