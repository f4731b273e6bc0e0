"""What an ingest of as many posts as the challenge has takes without pictures, again, and before it read by columns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.bench import Bench
from benchmarks.contents import REPOSITORY
from benchmarks.made_posts import write_posts
from benchmarks.results import table

CONTENTS = "made-up posts without pictures, half of them lists of records and half objects of columns"

TRAIN, TEST = 305_613, 180_581
"""The posts of the challenge: 486,194 together."""
COMPARED = (15_000, 9_000)
"""Posts of each half that two versions scan by turns."""
TURNS = 3
BEFORE = "8938744"
"""The commit that read one row after the other, number by number."""
MOST_GIB = 8
TIMES_AS_FAST = 3
INTERVAL_S = 0.5
GIB = 2**30


def measure(bench: Bench) -> dict[str, Any]:
    """Ingest twice, each in a process of its own; let two versions scan a part by turns."""
    work = bench.work / "ingest"
    shutil.rmtree(work, ignore_errors=True)
    write_posts(work / "part", *(bench.posts(posts) for posts in COMPARED))
    scans = _by_turns(work, 1 if bench.quick else TURNS)
    shutil.rmtree(work / "part")
    write_posts(work / "posts", bench.posts(TRAIN), bench.posts(TEST))
    size = sum(path.stat().st_size for path in (work / "posts").rglob("*") if path.is_file())
    runs = [_ingest(work / "posts", work / "lake") for _ in range(2)]
    shutil.rmtree(work)
    return {"posts": runs[0]["wanted"], "source_gib": round(size / GIB, 2), "runs": runs, "scans": scans}


def _by_turns(work: Path, turns: int) -> dict[str, Any]:
    """Scan one folder with this version and, where the checkout has it, with `BEFORE`, alternately."""
    checkouts = {"now": REPOSITORY, "before": work / "before"}
    made = subprocess.run(
        ["git", "worktree", "add", "--detach", str(checkouts["before"]), BEFORE],
        cwd=REPOSITORY, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        del checkouts["before"]
    try:
        scans = [(name, _scan(checkout, work / "part")) for _ in range(turns) for name, checkout in checkouts.items()]
    finally:
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(work / "before")],
            cwd=REPOSITORY, capture_output=True, check=False,
        )  # fmt: skip
    return {
        name: {
            "rows": scans[0][1]["rows"],
            **{
                f"{what}_ms_per_row": round(
                    median(1000 * each[key] / each["rows"] for of, each in scans if of == name), 3
                )
                for what, key in (("wall", "seconds"), ("cpu", "cpu_seconds"))
            },
        }
        for name in checkouts
    }


def _scan(checkout: Path, folder: Path) -> dict[str, Any]:
    script = REPOSITORY / "benchmarks" / "scan_rows.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def _ingest(posts: Path, root: Path) -> dict[str, Any]:
    """Run the command; return its seconds, the most memory that its processes held together, and what it said."""
    arguments = ["ingest", "--root", str(root), "--set", f"source.path={posts}", "--allow-removal"]
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "smp_features.cli", *arguments],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        peak = _Peak(process.pid)
        said = process.communicate()[0]
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"smp ingest ended with status {process.returncode}.")
    wanted = int(said.partition(" source rows")[0].split()[-1].replace(",", ""))
    return {
        "wanted": wanted,
        "seconds": round(seconds, 1),
        "peak_gib": round(peak.stop() / GIB, 2),
        "wrote_nothing": "Nothing has changed" in said,
    }


class _Peak:
    """Samples the resident memory of a process and all below it; shared pages count once for each that has them."""

    def __init__(self, pid: int) -> None:
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the most bytes seen."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _watch(self, pid: int) -> None:
        while not self._ended.wait(INTERVAL_S):
            held = 0
            try:
                top = psutil.Process(pid)
                for process in (top, *top.children(recursive=True)):
                    held += process.memory_info().rss
            except psutil.Error:
                pass  # one of them ended while it was looked at
            self._most = max(self._most, held)


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section."""
    first, again = figures["runs"]
    now, before = figures["scans"]["now"], figures["scans"].get("before")
    goals = [
        (
            "memory of all processes of the first run, GiB",
            f"at most {MOST_GIB}",
            f"{first['peak_gib']:.1f}",
            "met" if first["peak_gib"] <= MOST_GIB else "**missed**",
        )
    ]
    scans = [("now", now)]
    if before is not None:
        times = before["wall_ms_per_row"] / now["wall_ms_per_row"]
        met = "met" if times >= TIMES_AS_FAST else "**missed**"
        goals.append(("scan, times as fast as before", f"at least {TIMES_AS_FAST}", f"{times:.1f}", met))
        scans.append((f"before, commit {BEFORE}", before))
    runs = table(
        ("run", "seconds", "all processes, GiB", "wrote"),
        (
            (name, f"{run['seconds']:,.0f}", f"{run['peak_gib']:.1f}", "nothing" if run["wrote_nothing"] else "all")
            for name, run in (("first", first), ("second", again))
        ),
    )
    compared = table(
        ("version", "rows", "ms of wall-clock time per row", "ms of processor time per row"),
        (
            (name, f"{scan['rows']:,}", f"{scan['wall_ms_per_row']:.3f}", f"{scan['cpu_ms_per_row']:.3f}")
            for name, scan in scans
        ),
    )
    return f"""## Ingest

`smp ingest` of {figures["posts"]:,} posts without pictures, {figures["source_gib"]:.1f} GiB of files. Every post has
both profile vectors, 799 numbers as text. Train posts are lists of records, test posts objects of columns. The second
run finds nothing new; it reads every row to tell, since the files of a source carry no digest.

{runs}
The scan alone, which is what an ingest does before Spark has anything to do, each version by turns on the same
files; the median counts:

{compared}
{table(("goal", "", "measured", ""), goals)}"""
