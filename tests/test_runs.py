"""The lock on a local root: one writing process, readers free, gone with its holder however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from smp_features.errors import RootError, RootLockedError
from smp_features.runs import Phases, Summary, is_local, new_run_id, writing

HOLD = """
import sys, time
from smp_features.runs import writing
with writing(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_writes(holder, tmp_path):
    with (
        pytest.raises(RootLockedError, match=f"written by process {holder.pid} on .* since 20") as caught,
        writing(str(tmp_path)),
    ):
        pass
    assert caught.value.exit_status == 1


def test_the_lock_goes_with_a_killed_holder(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with writing(str(tmp_path)):
        assert (tmp_path / ".lock").exists()


def test_one_process_may_nest_the_lock(tmp_path):
    with writing(str(tmp_path)), writing(str(tmp_path)):
        pass
    with writing(str(tmp_path)):
        pass


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RootError, match="cannot be written"), writing(str(tmp_path / "file")):
        pass


def test_object_stores_are_told_from_folders():
    assert [is_local(root) for root in ("lake", "/a/b", "s3://bucket/x", "abfss://c@a/x")] == [True, True, False, False]


def test_a_summary_reconciles_only_when_every_row_is_accounted_for():
    assert Summary("s", wanted=4, ok=1, failed=1, left=1, given_up=1).reconciles
    assert not Summary("s", wanted=4, ok=1, failed=1, left=1).reconciles


def test_phases_add_up():
    phases = Phases()
    with phases("write"):
        pass
    phases.add("write", 2.0)
    assert phases.seconds["write"] >= 2.0
    assert new_run_id() != new_run_id()
