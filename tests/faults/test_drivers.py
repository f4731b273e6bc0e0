"""Drivers that are killed, meet each other, or run out of disk: the same command again completes the same tables."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from extraction_bench import slow

pytestmark = [pytest.mark.fleet, pytest.mark.slow]


def test_a_driver_killed_between_stage_and_publish_is_taken_up_without_loading_a_model(fleet, tmp_path):
    texts = [f"title {n}" for n in range(20)]
    fleet.bench.post_titles(*texts)
    held = tmp_path / "held"
    driver = fleet.start("--hold", str(held))
    driver.wait_until(held.exists)
    driver.kill()
    assert fleet.bench.rows("text_embeddings") == []
    assert fleet.bench.staging() != []
    loads = len(fleet.lines("load"))
    assert loads > 0
    (summary,) = fleet.start().finish()
    assert (summary["ok"], summary["left"], summary["model_loads"]) == (20, 0, 0)
    assert "published what an earlier run had computed" in summary["message"]
    assert len(fleet.lines("load")) == loads
    fleet.bench.check_text_vectors(texts)
    assert fleet.bench.staging() == []


def test_a_process_tree_killed_at_random_again_and_again_completes_the_same_tables(fleet):
    texts = slow(90)
    fleet.bench.post_titles(*texts)
    chance = random.Random(7)
    # Chunks of about two seconds, so that kills fall on planning, computing, staging and publishing alike.
    settings = {"first_chunk_rows": 10, "chunk_minutes": 0.03}
    done = []
    for _ in range(3):
        driver = fleet.start(**settings)
        before = len(fleet.lines("run"))
        driver.wait_until(lambda before=before: len(fleet.lines("run")) > before)
        time.sleep(chance.uniform(0.0, 5.0))
        driver.kill()
        done.append(len(fleet.bench.rows("text_embeddings", "text_key")))
    assert done == sorted(done)  # nothing published is ever lost again
    (summary,) = fleet.start(**settings).finish()
    assert (summary["ok"], summary["left"]) == (90, 0)
    fleet.bench.check_text_vectors(texts)
    assert fleet.bench.staging() == []


def test_the_same_job_twice_at_once_is_refused_the_second_time(fleet):
    texts = slow(40)
    fleet.bench.post_titles(*texts)
    first = fleet.start()
    first.wait_until(lambda: fleet.lines("run"))
    second = fleet.start()
    assert second.process.wait(120) == 1
    assert f"is being written by process {first.process.pid}" in second.output()
    (summary,) = first.finish()
    assert summary["ok"] == 40
    fleet.bench.check_text_vectors(texts)


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("mount -t tmpfs -o size=64k tmpfs {root}/staging", "No space left on device"),
        ("mount --bind {root} {root} && mount -o remount,bind,ro {root}", "cannot be written: Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_a_full_or_read_only_disk_is_a_clear_error_and_harms_no_table(fleet, mount, expected):
    texts = [f"title {n}" for n in range(400)]
    fleet.bench.post_titles(*texts)
    root = fleet.bench.config.root
    Path(root, "staging").mkdir(exist_ok=True)
    versions = fleet.bench.versions()
    # The mount is seen by the driver alone, and goes with it.
    own = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount.format(root=root) + ' && exec "$@"', "sh")
    assert subprocess.run([*own, "true"], check=False).returncode == 0, "this kernel lets no one mount"
    driver = fleet.start(prefix=own, first_chunk_rows=100)
    assert driver.process.wait(180) != 0
    assert expected in driver.output()
    assert "Traceback" not in driver.output()
    assert "\tat " not in driver.output()
    assert len(driver.output().strip().splitlines()) == 1
    after = fleet.bench.versions()
    assert {name for name in after if after[name] != versions[name]} <= {"runs", "extractors"}
    assert fleet.bench.rows("text_embeddings") == []
    (summary,) = fleet.start().finish()  # on a good disk again
    assert (summary["ok"], summary["left"]) == (400, 0)
    fleet.bench.check_text_vectors(texts)
