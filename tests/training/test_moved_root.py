"""A lake that was moved to another path: nothing is made again, and nothing reads or writes the old place."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from smp_features.analysis.report import report
from smp_features.config import load_config
from smp_features.errors import RootLockedError
from smp_features.scoring.stage import score
from smp_features.scoring.submission import write_submission
from smp_features.training import ablate as ablates
from smp_features.training import train as trains
from smp_features.training.ablate import ablate
from smp_features.training.registry import Registry, promote
from smp_features.training.relocation import relocate, was_moved
from smp_features.training.train import train


@pytest.fixture(scope="module")
def moved(make_lake, tmp_path_factory):
    """A lake with a model, predictions, a report and an ablation, moved; the configuration of its new place."""
    lake = make_lake(
        labelled=120, unlabelled=10, seed=6, overrides=("training.leave_out=[]", "features.groups=[image,user]")
    )
    train(lake.session, lake.config, run="run-1")
    score(lake.session, lake.config, run="run-1")
    report(lake.session, lake.config, run="run-1")
    ablate(lake.session, lake.config)
    old, new = Path(lake.config.root), tmp_path_factory.mktemp("moved") / "lake"
    shutil.move(old, new)
    utils._artifact_repos_cache.clear()  # a process that knew the old place goes with it
    return lake, old, lake.config.model_copy(update={"root": str(new)})


@pytest.mark.spark
def test_a_moved_lake_is_not_trained_scored_or_measured_again(moved, monkeypatch, tmp_path, caplog):
    lake, old, config = moved
    caplog.set_level("INFO", "smp_features")
    monkeypatch.setattr(trains, "_compute", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(ablates, "run_ablation", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr("smp_features.analysis.laboratory.movement.measure", lambda *_: pytest.fail("measured again"))
    assert train(lake.session, config, run="run-2").outcome == "nothing_to_do"
    assert caplog.text.count("the root was moved") == 1
    assert score(lake.session, config, run="run-2").outcome == "nothing_to_do"
    assert report(lake.session, config, run="run-2").outcome == "done"
    assert not ablate(lake.session, config).made_now
    assert write_submission(lake.session, config, tmp_path / "submission.json") == 10
    assert "version 1 is champion" in promote(config, "1")
    assert caplog.text.count("the root was moved") == 1
    assert not old.exists()


@pytest.mark.spark
def test_what_is_made_later_is_made_in_the_new_place(moved):
    lake, old, config = moved
    assert score(lake.session, config, run="run-3", where="split = 'train'").computed == 120
    registry = Registry(config)
    run = registry.client.create_run(registry.experiment)
    assert run.info.artifact_uri.startswith(Path(config.root).as_uri())
    assert not old.exists()


@pytest.mark.spark
def test_a_moved_lake_with_another_writer_is_left_as_it_is(moved, tmp_path):
    *_, config = moved
    other = load_config(None, [], root=str(tmp_path / "other"))
    shutil.copytree(config.root, other.root)
    held = (
        "import sys, time\nfrom smp_features.lake.lock import writing\n"
        "with writing(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", held, other.root], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RootLockedError):
            Registry(other)
    finally:
        holder.kill()
        holder.wait()
    Registry(other)


def test_only_addresses_below_the_old_folder_change(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE runs (artifact_uri TEXT)")
        store.execute("CREATE TABLE experiments (artifact_location TEXT, name TEXT)")
        kept = ["file:///old/mlflow-artifacts-2/x", "s3://bucket/old/mlflow-artifacts/x", None, "mlruns"]
        rows = ["file:///old/mlflow-artifacts/r1/artifacts", *kept]
        store.executemany("INSERT INTO runs VALUES (?)", [(row,) for row in rows])
        store.execute("INSERT INTO experiments VALUES ('file:///old/mlflow-artifacts', 'file:///old/mlflow-artifacts')")
    relocate(path, "file:///old/mlflow-artifacts", "file:///a/new/mlflow-artifacts")
    with sqlite3.connect(path) as store:
        found = [row[0] for row in store.execute("SELECT artifact_uri FROM runs")]
        assert found == ["file:///a/new/mlflow-artifacts/r1/artifacts", *kept]
        expected = ("file:///a/new/mlflow-artifacts", "file:///old/mlflow-artifacts")
        assert store.execute("SELECT * FROM experiments").fetchall() == [expected]


def test_an_experiment_of_somebody_elses_place_was_not_moved():
    present = "file:///new/mlflow-artifacts"
    assert was_moved("file:///old/mlflow-artifacts", present)
    assert not was_moved(present, present)
    assert not was_moved("file:///shared/artifacts", present) and not was_moved("s3://b/mlflow-artifacts", present)
