"""A stage that is killed when it has staged everything leaves nothing that the next run does not remove."""

from __future__ import annotations

import os
import tempfile

import pytest

from smp_features.demo.generate import generate
from smp_features.scratch import scratch_base
from smp_features.stages import run_stage

pytestmark = [pytest.mark.fleet, pytest.mark.slow]


@pytest.mark.parametrize("stage", ["ingest", "features", "score"])
def test_a_killed_stage_leaves_nothing_that_the_next_run_does_not_remove(fleet, tmp_path, monkeypatch, stage):
    bench, session = fleet.bench, fleet.bench.lakehouse.session
    spilled = tmp_path / "tmp"
    spilled.mkdir()
    monkeypatch.setenv("TMPDIR", str(spilled))
    monkeypatch.setattr(tempfile, "tempdir", str(spilled))
    options = ()
    bench.lakehouse.create()  # the columns of the fakes
    if stage == "ingest":
        generate(50, tmp_path / "posts", seed=1)
        options = ("--source", str(tmp_path / "posts"))
    else:
        bench.post_titles("one", "two")
        if stage == "score":
            run_stage(session, bench.config, "features")
    versions = bench.versions()
    held = tmp_path / "held"
    driver = fleet.start_stage(stage, str(held), *options)
    driver.wait_until(held.exists)
    driver.kill()
    root = bench.lakehouse.files.local_folder()
    assert bench.staging() != []
    spills = os.listdir(scratch_base()) if scratch_base().exists() else []
    assert any(name.startswith("ingest-") for name in spills) == (stage == "ingest")

    killed = bench.versions()
    assert {name for name in killed if killed[name] != versions[name]} <= {"images", "texts", "quarantine"}

    run_stage(session, bench.config, "features")  # whichever stage that writes comes next

    assert not (root / "staging").exists()
    assert not scratch_base().exists() or os.listdir(scratch_base()) == []
