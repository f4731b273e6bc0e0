"""Temporary folders go with their block, and those of killed processes with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from smp_features.scratch import scratch, scratch_base, scratch_until_exit

HOLD = """
import time
from smp_features.scratch import scratch
with scratch("ingest") as folder:
    (folder / "spilled.sqlite").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""
LEAVE = """
from smp_features.scratch import scratch_until_exit
folder = scratch_until_exit("snapshot")
(folder / "copy").touch()
print(folder, flush=True)
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_a_folder_goes_with_its_block():
    with scratch("ingest") as folder:
        (folder / "file").touch()
        assert os.stat(folder.parent).st_mode & 0o777 == 0o700
    assert os.listdir(scratch_base()) == []


def test_a_killed_process_leaves_nothing_that_the_next_does_not_remove():
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    left = holder.stdout.readline().strip()
    with scratch("ingest"):
        assert os.path.exists(f"{left}/spilled.sqlite")  # its process lives
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert os.path.exists(left)
    with scratch("features") as folder:
        assert set(os.listdir(scratch_base())) == {folder.name, folder.name + ".lock"}


def test_what_is_kept_until_exit_goes_then():
    done = subprocess.run([sys.executable, "-c", LEAVE], stdout=subprocess.PIPE, text=True, check=True)
    assert not os.path.exists(done.stdout.strip())
    assert os.path.isdir(scratch_until_exit("snapshot"))
