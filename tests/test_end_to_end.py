"""The whole pipeline on generated posts: run, run again, add one post, and ask outside readers whether they agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable as OutsideTable
from deltalake import QueryBuilder
from notebook_runs import executed, pictures_in

from smp_features.config import Config, load_config
from smp_features.demo.generate import generate
from smp_features.demo.walkthrough import demo_configuration
from smp_features.demo.walkthrough import test_scores as scores_on_test_posts
from smp_features.images import inspect_image
from smp_features.lake.schema import Schema
from smp_features.lake.tables import Lakehouse
from smp_features.stages import STAGES, run_all
from smp_features.status import errors_of, status_of

pytestmark = pytest.mark.slow

POSTS = 300
TABLES = tuple(Schema.of(Config()).specs)
FEATURE_TABLES = [name for name in TABLES if name != "runs"]
QUICK = ["training.folds=3", "training.bootstrap=100", "training.regressor.rounds=60", "training.adapter.epochs=3"]


class PipelineRun:
    """A source folder, its lakehouse, and what running all stages on it said."""

    def __init__(self, spark, folder: Path) -> None:
        self.spark = spark
        self.source = folder / "posts"
        generate(POSTS, self.source, seed=5)
        settings = [f"source.path={self.source}", *QUICK]
        self.config = load_config(demo_configuration(), settings, str(folder / "lake"))
        self.lakehouse = Lakehouse(spark, self.config)
        self.first = self.run()

    def run(self):
        return {summary.stage: summary for summary in run_all(self.spark, self.config)}

    def versions(self):
        return self.lakehouse.versions(FEATURE_TABLES)


@pytest.fixture(scope="module")
def pipeline(spark, tmp_path_factory):
    return PipelineRun(spark, tmp_path_factory.mktemp("pipeline"))


def test_every_stage_reconciles_and_is_recorded(pipeline):
    assert {stage.split("/")[0] for stage in pipeline.first} == set(STAGES)
    assert all(summary.reconciles for summary in pipeline.first.values())
    assert pipeline.first["ingest"].wanted == POSTS
    recorded = {row.stage for row in pipeline.lakehouse.read("runs").collect()}
    assert recorded == set(pipeline.first)


def test_every_source_row_becomes_a_post_with_features(pipeline):
    stated = sum(
        len((pipeline.source / f"{split}_allmetadata_json" / f"{split}_img_filepath.txt").read_text().splitlines())
        for split in ("train", "test")
    )
    assert stated == POSTS
    assert pipeline.lakehouse.read("posts").count() + pipeline.lakehouse.read("quarantine").count() == POSTS
    assert pipeline.lakehouse.read("post_features").count() == pipeline.lakehouse.read("posts").count()


def test_every_unlabelled_post_gets_a_prediction(pipeline):
    truth = json.loads((pipeline.source / "truth.json").read_text())["test_labels"]
    predicted = {row.pid for row in pipeline.lakehouse.read("predictions").collect()}
    assert predicted == set(truth)


def test_broken_pictures_are_rows_with_a_status_and_show_up_as_errors(pipeline):
    by_status = {row["status"] for row in errors_of(pipeline.spark, pipeline.config)}
    assert by_status & {"truncated", "not_an_image", "empty", "missing"}
    assert status_of(pipeline.spark, pipeline.config)[0]["stage"] == "ingest"


def test_the_demo_compares_the_model_with_oracle_and_median(pipeline):
    model, oracle, median = scores_on_test_posts(pipeline.spark, pipeline.config, pipeline.source)
    assert oracle["SRC"] == json.loads((pipeline.source / "truth.json").read_text())["oracle"]["src"]
    assert model["posts"] == oracle["posts"] == median["posts"]
    assert model["MAE"] < median["MAE"]


def test_an_outside_reader_counts_the_same_rows(pipeline):
    for name in TABLES:
        table = OutsideTable(pipeline.lakehouse.folder("tables", name))
        counted = QueryBuilder().register("t", table).execute("SELECT count(*) AS n FROM t").read_all()
        assert counted["n"][0].as_py() == pipeline.lakehouse.read(name).count(), name


def test_the_registered_model_predicts_in_another_process(pipeline, tmp_path):
    rows = pipeline.lakehouse.read("post_features").limit(5).toPandas()
    features = tmp_path / "features.json"
    columns = {
        name: [v.tolist() if hasattr(v, "tolist") else v for v in rows[name]] for name in rows if name != "event_ts"
    }
    features.write_text(json.dumps(columns, default=str))
    program = (
        "import json, sys, pandas, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/smp_popularity@champion')\n"
        "print(json.dumps([float(v) for v in model.predict(pandas.DataFrame(json.load(open(sys.argv[2]))))]))\n"
    )
    store = f"sqlite:///{Path(pipeline.config.root).absolute() / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", program, store, str(features)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    predictions = json.loads(done.stdout.splitlines()[-1])
    made = {row.pid: row.prediction for row in pipeline.lakehouse.read("predictions").collect()}
    expected = [made.get(pid) for pid in rows["pid"]]
    assert len(predictions) == 5
    assert all(want is None or abs(want - got) < 1e-9 for want, got in zip(expected, predictions, strict=True))


def test_the_notebook_of_the_papers_figures_runs_and_draws_them(pipeline, tmp_path, monkeypatch):
    outputs = executed("paper.ipynb", pipeline.config.root, tmp_path, monkeypatch)
    assert len(pictures_in(outputs)) == 5  # cleaning, similarity, perplexity, correlations, adaptation


def test_running_again_loads_nothing_and_writes_no_version(pipeline):
    before = pipeline.versions()
    again = pipeline.run()
    assert pipeline.versions() == before
    assert {s.outcome for stage, s in again.items() if stage != "report"} == {"nothing_to_do"}
    assert sum(summary.model_loads for summary in again.values()) == 0


def test_one_new_post_computes_exactly_its_own_content(pipeline):
    _append_post(pipeline.source, pid="999999999", title="a lonely sentence that nobody wrote before")
    added = pipeline.run()
    assert {stage: added[stage].computed for stage in added if stage.startswith("extract/")} == {
        "extract/caption": 1,
        "extract/clip_image": 1,
        "extract/clip_text": 1,  # its title; the caption says what another picture's says
        "extract/perplexity": 1,
    }
    assert added["features"].computed == 1
    assert added["train"].outcome == "nothing_to_do"  # an unlabelled post does not retrain
    assert added["score"].computed == 1


def _append_post(source: Path, pid: str, title: str) -> None:
    folder = source / "test_allmetadata_json"
    for path in folder.glob("*.json"):
        records = json.loads(path.read_text())
        twin = dict(records[-1])
        twin["Pid"] = pid
        if "Alltags" in twin:
            twin.pop("Tile", None)
            twin["Title"] = title
        path.write_text(json.dumps([*records, twin]))
    paths = folder / "test_img_filepath.txt"
    lines = paths.read_text().splitlines()
    user = lines[-1].strip("'\" ").split("/")[1]
    paths.write_text("\n".join([*lines, f"test/{user}/{pid}.jpg"]) + "\n")
    # The same picture in other bytes: what follows the end of a JPEG is no part of it.
    picture = next(
        path for path in sorted((source / "images").rglob("*.jpg")) if inspect_image(path.read_bytes()).status == "ok"
    )
    target = source / "images" / "test" / user / f"{pid}.jpg"
    target.write_bytes(picture.read_bytes() + b"another file")
