"""A decoder that hangs, crashes or takes all memory costs its own file, in time, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from picture_files import encode, scan_bomb
from PIL import Image

from smp_features.errors import StageError
from smp_features.images import inspect_image
from smp_features.images.inspector import Inspector
from smp_features.ingest import image_intake

GOOD = encode(Image.new("RGB", (6, 4), "red"), "PNG")


@pytest.fixture(scope="module")
def stuck() -> Iterator[Inspector]:
    with Inspector(deadline_s=2.0, max_memory=1 << 30, program="stuck_decoder") as inspector:
        inspector.inspect(GOOD)
        yield inspector


@pytest.mark.parametrize(
    ("data", "status"), [(b"hang", "timeout"), (b"crash", "worker_lost"), (b"swallow", "out_of_memory")]
)
def test_a_decoder_that_does_not_come_back_costs_its_own_file(stuck: Inspector, data: bytes, status: str) -> None:
    began = time.monotonic()
    facts = stuck.inspect(data)
    assert (facts.status, facts.width) == (status, None)
    assert facts.error
    assert time.monotonic() - began < 5
    assert stuck.inspect(GOOD) == inspect_image(GOOD)


def test_a_real_decoder_that_is_slow_is_ended_at_the_deadline() -> None:
    slow = scan_bomb(7_900, 80)
    with Inspector(deadline_s=0.5) as inspector:
        inspector.inspect(b"")
        began = time.monotonic()
        assert inspector.inspect(slow).status == "timeout"
        assert time.monotonic() - began < 1.5
        assert inspector.inspect(GOOD).status == "ok"


def test_a_process_that_was_stopped_is_ended_at_the_deadline() -> None:
    with Inspector(deadline_s=1.0) as inspector:
        inspector.inspect(GOOD)
        assert inspector._process is not None
        os.kill(inspector._process.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert inspector.inspect(bytes(1 << 20)).status == "timeout"  # more than a pipe holds
        assert time.monotonic() - began < 2
        assert inspector.inspect(GOOD).status == "ok"


def test_it_says_what_inspecting_says() -> None:
    with Inspector() as inspector:
        for data in (GOOD, b"", b"<html>", GOOD[:-30], scan_bomb(64, 200), bytes(10 << 20)):
            assert inspector.inspect(data) == inspect_image(data)


def test_a_process_that_ended_between_two_pictures_is_started_again() -> None:
    with Inspector() as inspector:
        inspector.inspect(GOOD)
        assert inspector._process is not None
        os.kill(inspector._process.pid, signal.SIGKILL)
        inspector._process.wait()
        assert inspector.inspect(GOOD).status == "ok"


def test_a_process_that_does_not_start_is_no_picture_s_fault() -> None:
    with pytest.raises(StageError, match="No module named"):
        Inspector(program="smp_features.no_such_module").inspect(GOOD)


PARENT = """
import sys
from smp_features.images.inspector import Inspector
inspector = Inspector(deadline_s=1.0, program="stuck_decoder")
inspector.inspect(b"")
print(inspector._process.pid, flush=True)
inspector.inspect(b"hang" if sys.argv[1] == "hang" else b"")
sys.stdin.read()
"""


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("doing", ["hang", "wait"])
def test_a_killed_worker_leaves_no_decoder_behind(doing: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, doing],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    assert within(6, lambda: is_gone(child))
    for pipe in (parent.stdin, parent.stdout):
        assert pipe is not None
        pipe.close()


def test_ingest_reads_the_files_around_one_that_hangs(
    stuck: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_intake, "_inspector", (os.getpid(), stuck))
    contents = {"a": GOOD, "b": b"hang", "c": b"crash", "d": GOOD, "e": b"<html>"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    manifest = pa.RecordBatch.from_pylist(
        [{"image_file": str(tmp_path / name), "image_folder": str(tmp_path)} for name in contents]
    )
    rows = [row for batch in image_intake._read_files([manifest]) for row in batch.to_pylist()]
    assert [row["read_status"] for row in rows] == ["ok", "timeout", "worker_lost", "ok", "not_an_image"]
    # Without a key nothing is stored of it, and the next run tries again.
    assert [row["read_key"] is None for row in rows] == [False, True, True, False, False]
    assert [row["bytes"] is None for row in rows] == [False, True, True, False, False]
