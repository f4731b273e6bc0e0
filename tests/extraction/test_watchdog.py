"""Notes tell what a dead worker held; the watch ends a worker that is stuck, even on the interpreter's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from smp_features.errors import StageError
from smp_features.extraction.watchdog import EXIT_OVERDUE, Notes, Watch, left_behind, loads_beside

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def die(notes):
    """Let go of the notes as the end of a process does."""
    os.close(notes.file)


def test_a_dead_worker_held_what_it_began_and_did_not_end(tmp_path):
    notes = Notes(str(tmp_path), 3, 100)
    notes.began([A, B, C])
    notes.ended([A])
    die(notes)
    found = left_behind(str(tmp_path), 3)
    assert (found.of(A), found.of(B), found.of(C)) == (None, "worker_lost", "worker_lost")
    assert left_behind(str(tmp_path), 4).status == {}


def test_when_it_was_ended_on_purpose_only_the_overdue_are_suspected(tmp_path):
    notes = Notes(str(tmp_path), 0, 1)
    notes.began([A])
    notes.began([B])
    notes.overdue([A])
    die(notes)
    assert left_behind(str(tmp_path), 0).status == {A[:16]: "timeout"}


def test_the_notes_of_a_worker_that_ended_well_accuse_nobody(tmp_path):
    with Watch(Notes(str(tmp_path), 0, 1), 60) as watch, watch.over([A]):
        pass
    assert left_behind(str(tmp_path), 0, [str(tmp_path)]).status == {}


def test_notes_that_cannot_be_written_are_the_machines_failure():
    class Full(Notes):
        """On a disk without room, as Linux has one."""

        def __init__(self):
            self.file = os.open("/dev/full", os.O_WRONLY)
            self._path = Path("/dev/full")

    with pytest.raises(StageError, match=r"could not note what it works on .No space left on device"):
        Full().began([A])


def test_a_twin_that_lives_accuses_nobody(tmp_path):
    notes = Notes(str(tmp_path), 0, 1)
    notes.began([A])
    assert left_behind(str(tmp_path), 0).status == {}
    die(notes)
    assert left_behind(str(tmp_path), 0).status == {A[:16]: "worker_lost"}


def test_notes_of_a_failed_job_count_for_every_task(tmp_path):
    notes = Notes(str(tmp_path / "first"), 7, 1)
    notes.began([A])
    die(notes)
    found = left_behind(str(tmp_path / "second"), 0, [str(tmp_path / "first")])
    assert found.of(A) == "worker_lost"


def test_the_driver_counts_the_loads_of_attempts_that_told_it_nothing(tmp_path):
    folder = tmp_path / "all-0"
    killed = Notes(str(folder), 0, 11)
    killed.loaded()
    killed.began([A])
    with Watch(Notes(str(folder), 0, 12, keep=True), 60) as told:
        told.loaded()
    with Watch(Notes(str(tmp_path / "solo-0"), 0, 13, keep=True), 60) as broken_off:
        broken_off.loaded()
    assert loads_beside(str(tmp_path), {12}) == 2
    assert left_behind(str(folder), 0).status == {}  # the killed one's notes are held still
    die(killed)
    assert loads_beside(str(tmp_path), {12}) == 2


@pytest.mark.parametrize(
    ("stuck", "status", "suspicion"),
    [
        ("time.sleep(60)", EXIT_OVERDUE, "timeout"),
        # One C call that never lets go of the interpreter's lock: no Python thread can end this.
        ("re.match('(a+)+$', 'a' * 60 + 'b')", 1, "timeout"),
        # A stopped process, whose threads stand still with it, is killed from outside; that is no fault of the input.
        ("os.kill(os.getpid(), signal.SIGSTOP)", -signal.SIGKILL, "worker_lost"),
    ],
)
@pytest.mark.parametrize("before_s", [0.0, 0.2])  # at once, and after the watch has looked
def test_a_stuck_process_ends_and_says_over_what(tmp_path, stuck, status, suspicion, before_s):
    script = f"""
        import os, re, signal, time
        from smp_features.extraction.watchdog import Notes, Watch
        with Watch(Notes({str(tmp_path)!r}, 0, 1), 0.3) as watch:
            with watch.over(["{A}"]):
                pass
            time.sleep({before_s})
            with watch.over(["{B}"]):
                {stuck}
    """
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=False)
    assert done.returncode == status
    assert left_behind(str(tmp_path), 0).status == {B[:16]: suspicion}
    assert time.monotonic() - started < 30
