"""`smp extract` as a process, how far it is, and ways to kill it or an executor of it at random."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contents import REPOSITORY
from smp_features.config import read_models
from smp_features.extraction.watchdog import RECORD_BYTES
from smp_features.extractors import build_extractors

DEMO = REPOSITORY / "conf" / "demo.yaml"
POLL_S = 0.1
COURSE_POLL_S = 0.5
NOTES_PER_ROW = 4
"""Of an input: preparing began and ended, computing began and ended."""

MOST_STARTS = 15
SMALL_CHUNKS = "extraction.first_chunk_rows=25"
"""So that kills fall between publishes, too."""

LAST = 0.9
"""Kills come within this share of the time from the first row in flight to the end: in the rest nothing is computed."""

Course = list[tuple[float, int]]
"""How an extraction went: seconds after computing began, and the rows done by then."""

Moment = tuple[int, float]
"""When a kill is due: once so many rows are done, after so many seconds more."""


class Command:
    """A running `smp`, in a session of its own, so that all below it can be found and ended.

    Args:
        root: Of the lakehouse.
        arguments: The subcommand and what follows it.
        settings: Given with `--set`.
    """

    def __init__(self, root: Path, *arguments: str, settings: Sequence[str] = ()) -> None:
        self.root = root
        self._before = set(_notes(root))
        options = [word for setting in settings for word in ("--set", setting)]
        smp = [sys.executable, "-m", "smp_features.cli"]
        root.parent.mkdir(parents=True, exist_ok=True)
        self._log = root.parent / f"{root.name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*smp, *arguments, "--conf", str(DEMO), "--root", str(root), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            SystemExit: It ended badly.
        """
        if self.process.wait():
            raise SystemExit(f"A command failed:\n{self.output()}")

    def output(self) -> str:
        """The end of what it and its predecessors on this root printed."""
        return self._log.read_text(errors="replace")[-2000:]

    def executors(self) -> list[psutil.Process]:
        """Return the living executor JVMs below it."""
        return executors_below(self.process.pid)

    def computing(self) -> str | None:
        """Return which table workers are computing rows for, or None."""
        fresh = [path for path in _notes(self.root) if path not in self._before]
        return fresh[-1].relative_to(self.root / "staging").parts[0] if fresh else None

    def rows_done(self) -> int:
        """Return the rows published, and roughly those that its workers have computed in chunks in flight."""
        size = 0
        for path in _notes(self.root):
            if path not in self._before:
                with suppress(FileNotFoundError):  # its chunk was published just now
                    size += path.stat().st_size
        return published_rows(self.root) + size // (RECORD_BYTES * NOTES_PER_ROW)

    def wait_until_computing(self) -> bool:
        """Wait until workers compute; return whether it came to that before the end."""
        while self.running and self.computing() is None:
            time.sleep(POLL_S)
        return self.running

    def kill(self) -> int:
        """End it and all below it at once; return how many processes that ended."""
        below = _below(self.process.pid)
        os.killpg(self.process.pid, signal.SIGKILL)
        for each in below:  # executors and Python workers have process groups of their own
            _kill(each)
        self.process.wait()
        return 1 + len(below)


def undisturbed(root: Path) -> tuple[dict[str, Any], Course]:
    """Extract; return seconds, also those from the first row in flight, with the rows; and how far it was when."""
    started = time.monotonic()
    command = Command(root, "extract", settings=(SMALL_CHUNKS,))
    command.wait_until_computing()
    began, course = time.monotonic(), [(0.0, 0)]
    while command.running:
        course.append((time.monotonic() - began, max(course[-1][1], command.rows_done())))
        time.sleep(COURSE_POLL_S)
    command.finish()
    ended = time.monotonic()
    rows = published_rows(root)
    told = {
        "seconds": round(ended - started, 1),
        "computing_seconds": round(ended - began, 1),
        "rows": rows,
    }
    return told, [(seconds, min(done, rows)) for seconds, done in course]  # while a chunk is published it counts twice


def draw_moments(course: Course, kills: int, chance: random.Random) -> list[Moment]:
    """Draw when to kill: the time of an undisturbed run in equal parts, and a moment at random in each.

    A run that is killed takes longer, so a moment is told by how far the undisturbed run was.

    Args:
        course: Of the undisturbed run, from 0 seconds on.
        kills: How many.
        chance: Draws.
    """
    moments = []
    for number in range(kills):
        at = LAST * course[-1][0] * (number + chance.random()) / kills
        rows = max(done for seconds, done in course if seconds <= at)
        moments.append((rows, at - min(seconds for seconds, done in course if done == rows)))
    return moments


def kill_executors(
    root: Path, master: str, moments: Sequence[Moment], before: dict[str, Any], chance: random.Random
) -> dict[str, Any]:
    """Extract on executors and kill one, chosen at random, at each moment; run again until every row is there."""
    due, done, starts = list(moments), [], 0
    settings = (f"spark.master={master}", SMALL_CHUNKS)
    started = time.monotonic()
    while published_rows(root) < before["rows"] and starts < MOST_STARTS:
        starts += 1
        command = Command(root, "extract", settings=settings)
        command.wait_until_computing()
        began, at_last_kill = time.monotonic(), -1
        # Not a row since: the next one would be killed in its cradle.
        while due and _wait_for(command, due[0], min(at_last_kill + 1, before["rows"])):
            alive = command.executors()
            note = _note(command, began, "an executor")
            if alive and _kill(chance.choice(alive)):
                done.append(note)
                due.pop(0)
                at_last_kill = command.rows_done()
        command.process.wait()
    return _told(root, starts, started, done, due, before)


def kill_commands(root: Path, moments: Sequence[Moment], before: dict[str, Any]) -> dict[str, Any]:
    """Extract, kill the command with all below it at each moment, and start it again until every row is there."""
    due, done, starts = list(moments), [], 0
    started = time.monotonic()
    while published_rows(root) < before["rows"] and starts < MOST_STARTS:
        starts += 1
        command = Command(root, "extract", settings=(SMALL_CHUNKS,))
        command.wait_until_computing()
        began = time.monotonic()
        if due and _wait_for(command, due[0]):
            due.pop(0)
            note = _note(command, began, "the command with all below it")
            done.append(note | {"processes": command.kill()})
        command.process.wait()
    return _told(root, starts, started, done, due, before)


def published_rows(root: Path) -> int:
    """Return the rows that the feature tables hold, by their Delta logs."""
    rows = 0
    for extractor in build_extractors(read_models({})).values():
        files: dict[str, int] = {}
        for commit in sorted((root / "tables" / extractor.table / "_delta_log").glob("*.json")):
            for action in map(json.loads, commit.read_text().splitlines()):
                if "add" in action:
                    files[action["add"]["path"]] = json.loads(action["add"].get("stats") or "{}").get("numRecords", 0)
                elif "remove" in action:
                    files.pop(action["remove"]["path"], None)
        rows += sum(files.values())
    return rows


def copy_lake(root: Path, copy: Path) -> Path:
    """Copy a lakehouse, whose files refer to each other by relative paths."""
    shutil.copytree(root, copy)
    return copy


def _note(command: Command, began: float, what: str) -> dict[str, Any]:
    return {
        "killed": what,
        "computing": command.computing(),
        "seconds_after_computing_began": round(time.monotonic() - began, 1),
        "rows_done": command.rows_done(),
    }


def _told(
    root: Path, starts: int, started: float, kills: list[dict[str, Any]], due: list[Moment], before: dict[str, Any]
) -> dict[str, Any]:
    if due:
        raise SystemExit(f"The extraction ended before {len(due)} of the kills, so nothing is kept: measure again.")
    return {
        "starts": starts,
        "seconds": round(time.monotonic() - started, 1),
        "kills": kills,
        "rows": published_rows(root),
        "of": before["rows"],
    }


def _wait_for(command: Command, moment: Moment, least: int = 0) -> bool:
    """Wait for a moment, and for this many rows at least; return whether it came before the end."""
    rows, seconds = moment
    while command.running and command.rows_done() < max(rows, least):
        time.sleep(POLL_S)
    deadline = time.monotonic() + seconds
    while command.running and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return command.running


def _notes(root: Path) -> list[Path]:
    """Return what workers note of the inputs in their hands, the latest last."""
    found = []
    for path in (root / "staging").glob("*/*/*/notes/*/*"):
        try:
            found.append((path.stat().st_mtime, path))
        except FileNotFoundError:
            continue
    return [path for _, path in sorted(found)]


def _kill(process: psutil.Process) -> bool:
    """Kill a process; return whether it was alive."""
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        process.kill()
        process.wait(10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return False
    return alive


def executors_below(process: int) -> list[psutil.Process]:
    """Return the living executor JVMs below a process."""
    return [each for each in _below(process) if _is_executor(each)]


def _below(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_executor(process: psutil.Process) -> bool:
    try:
        return any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    except psutil.Error:
        return False
