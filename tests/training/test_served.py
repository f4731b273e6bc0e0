"""One model, three ways to ask it, and one answer; then predictions, kept up row by row."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from smp_features.errors import FingerprintError, ModelError, StageError, UsageError
from smp_features.scoring.evaluation import evaluate
from smp_features.scoring.stage import score
from smp_features.scoring.submission import write_submission
from smp_features.stages import run_stage
from smp_features.training.digests import DIGESTS_TAG
from smp_features.training.registry import Registry
from smp_features.training.train import train

pytestmark = pytest.mark.spark

WIDTH = 16
"""Of the vectors of `trained`."""


@pytest.fixture(scope="module")
def champion(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    return lake, registry, registry.champion()


@pytest.fixture(scope="module")
def scored(trained):
    lake, _ = trained
    return lake, score(lake.session, lake.config, run="score-1")


def predictions(lake) -> pd.DataFrame:
    return lake.lakehouse.read("predictions").toPandas().sort_values("pid").reset_index(drop=True)


def test_in_process_pyfunc_and_spark_udf_scores_are_the_same(champion, scored):
    lake, registry, version = champion
    features = lake.lakehouse.read("post_features").where("split = 'test'").toPandas().sort_values("pid")
    assert features["image_embedding"].isna().any() and (features["title"] == "").any()
    by_udf = predictions(lake)["prediction"].to_numpy()
    in_process = registry.predictor(version).predict(features)
    mlflow.set_tracking_uri(registry.uri)
    by_pyfunc = mlflow.pyfunc.load_model(f"models:/{version.model}@champion").predict(features)
    assert np.abs(in_process - by_pyfunc).max() < 1e-9
    assert np.abs(in_process - by_udf).max() < 1e-9
    assert np.ptp(by_udf) > 0.5


def test_a_column_left_out_is_null_and_a_broken_vector_refused_by_pyfunc_and_spark_udf_alike(champion):
    lake, registry, version = champion
    features = lake.lakehouse.read("post_features").where("split = 'test'").limit(8).toPandas()
    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(version.uri)
    names = [name for name in model.metadata.get_input_schema().input_names() if name != "user_photo_count"]
    expected = model.predict(features.assign(user_photo_count=None))
    assert np.array_equal(model.predict(features[names]), expected)
    assert not np.array_equal(model.predict(features), expected)
    assert model.predict(features.head(0)).shape == (0,)
    broken = features.assign(image_embedding=[[float("nan")] * WIDTH] * len(features))
    with pytest.raises(ModelError, match="image_embedding, row 0: a vector with NaN or infinity in it"):
        registry.predictor(version).predict(broken)
    with pytest.raises(Exception, match="image_embedding, row 0: a vector with NaN or infinity in it"):
        model.predict(broken)

    udf = mlflow.pyfunc.spark_udf(lake.session, version.uri, result_type="double", env_manager="local")
    table = lake.lakehouse.read("post_features").where(F.col("pid").isin(list(features["pid"])))
    asked = table.select("pid", udf(F.struct(*names)).alias("prediction")).toPandas().set_index("pid")
    assert np.abs(asked.loc[features["pid"], "prediction"].to_numpy() - expected).max() < 1e-9
    assert table.where("false").select(udf(F.struct(*names))).collect() == []
    nan = F.array(*[F.lit(float("nan")).cast("float")] * WIDTH)
    with pytest.raises(Exception, match="a vector with NaN or infinity in it"):
        table.withColumn("image_embedding", nan).select(udf(F.struct(*names))).collect()


def test_training_time_scores_are_those_of_the_served_model(champion):
    lake, registry, version = champion
    gate = registry.predictions(version, "gate").sort_values("pid")
    features = lake.lakehouse.read("post_features").toPandas().set_index("pid").loc[gate["pid"]].reset_index()
    assert np.abs(registry.predictor(version).predict(features) - gate["predicted"].to_numpy()).max() < 1e-9


def test_the_model_holds_no_pickle(champion):
    version = champion[2]
    folder = Path(mlflow.artifacts.download_artifacts(version.uri))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.json", "lightgbm.txt", "adapters.safetensors", "served_model.py"}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".bin", ".cloudpickle")]
    for path in files:  # a pickle of protocol 2 or later starts with these bytes and ends with a full stop
        content = path.read_bytes()
        assert not re.match(rb"\x80[\x02-\x05]", content), path
    flavor = (folder / "MLmodel").read_text()
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in flavor and "python_model:" not in flavor


def test_the_signature_names_the_columns_used_and_the_fingerprints(champion):
    _, _, version = champion
    columns = {each.name: each for each in mlflow.models.get_model_info(version.uri).signature.inputs.inputs}
    assert str(columns["image_embedding"].type) == "Array(double)" and not columns["image_embedding"].required
    assert str(columns["event_hour"].type) == "DataType.double" and not columns["event_hour"].required
    assert columns["clip_image_extractor"].required
    assert not {"pid", "uid", "title", "popularity", "event_ts"} & set(columns)


def test_every_unlabelled_post_has_a_prediction(scored):
    lake, summary = scored
    found = predictions(lake)
    assert sorted(found["pid"]) == sorted(str(row["pid"]) for row in lake.posts if row["popularity"] is None)
    assert summary.outcome == "done" and summary.reconciles and summary.computed == len(found)
    assert set(found["model_version"]) == {"1"} and np.isfinite(found["prediction"]).all()
    assert not list(Path(lake.lakehouse.folder("staging")).glob("predictions/*"))


def test_scoring_again_loads_no_model_and_writes_nothing(scored, monkeypatch):
    lake, _ = scored
    version = lake.lakehouse.version("predictions")
    monkeypatch.setattr("mlflow.pyfunc.spark_udf", lambda *_, **__: pytest.fail("a model was loaded"))
    again = score(lake.session, lake.config, run="score-2")
    assert again.outcome == "nothing_to_do" and again.ok == again.wanted == 40
    assert lake.lakehouse.version("predictions") == version


def test_submissions_in_both_formats_hold_the_predictions(scored, tmp_path):
    lake, _ = scored
    expected = {row.pid: row.prediction for row in predictions(lake).itertuples()}
    as_json, as_csv = tmp_path / "submission.json", tmp_path / "submission.csv"
    assert write_submission(lake.session, lake.config, as_json) == 40
    assert write_submission(lake.session, lake.config, as_csv) == 40
    content = json.loads(as_json.read_text())
    assert set(content) == {"version", "result", "external_data"} and content["external_data"]["used"] is False
    found = {entry["post_id"]: entry["popularity_score"] for entry in content["result"]}
    assert found == {f"post{pid}": pytest.approx(value, abs=5e-5) for pid, value in expected.items()}
    with as_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["post_id"]: float(row["popularity_score"]) for row in rows} == found
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(expected))
    [row] = evaluate(as_json, labels).rows
    assert row["n"] == 40 and row["src"] == pytest.approx(1, abs=1e-4) and row["mae"] == pytest.approx(0, abs=1e-4)


def test_a_submission_declares_the_counts_behind_it_with_the_date_of_their_crawl(scored, monkeypatch, tmp_path):
    lake, _ = scored
    tables = lake.lakehouse
    champion = Registry(lake.config).champion()
    out = tmp_path / "submission.json"

    def declared() -> dict[str, object]:
        write_submission(lake.session, lake.config, out)
        return json.loads(out.read_text())["external_data"]

    assert declared() == {
        "used": False,
        "details": "No data beside the challenge's own. Pretrained, not trained further: "
        "caption-1, clip_image-1, clip_text-1, perplexity-1.",
    }
    crawl = {"uid": "1@N", "origin": "external", "assumed": False, "followers": 3, "row_hash": "x"}
    clip = {"extractor": "clip_image-1", "name": "clip_image"}
    clip["description"] = json.dumps({"model": "timm/clip", "architecture": "ViT-L-14-quickgelu", "tag": "openai"})
    for table, row in (("user_profiles", crawl), ("extractors", clip)):
        schema, row = tables.schema(table), row | dict.fromkeys(("known_at", "first_used_at"), datetime(2018, 5, 1))
        tables.insert_new(table, lake.session.createDataFrame([tuple(map(row.get, schema.names))], schema))

    # Posts made after the crawl know its counts under strict rules too, though no train post did.
    counts = F.when(F.col("pid").isin("p300", "p301"), 3.0)
    features = tables.read("post_features").where("split = 'test'").withColumn("external_followers", counts)
    monkeypatch.setattr("smp_features.scoring.submission.unlabelled", lambda *_: features)
    said = declared()
    assert said["used"] is True
    for words in ("crawled 2018-05-01", "strict time rules", "2 of 40", "was not trained", "ViT-L-14-quickgelu openai"):
        assert words in said["details"], said
    monkeypatch.undo()

    trained_on = replace(champion, tags={**champion.tags, "external_used": "true"})
    monkeypatch.setattr(Registry, "champion", lambda _: trained_on)
    said = declared()
    assert said["used"] is True and "0 of 40" in said["details"] and "1 was trained on" in said["details"]


def test_a_submission_of_another_kind_is_refused(scored, tmp_path):
    lake, _ = scored
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        write_submission(lake.session, lake.config, tmp_path / "submission.xml")


def test_a_changed_post_is_scored_again_and_only_that(trained, scored, tmp_path):
    lake, _ = trained
    before = predictions(lake)
    pid = before["pid"][0]
    table = lake.lakehouse.read("post_features").where(F.col("pid") == pid)
    path = str(tmp_path / "changed")
    changed = table.withColumns({"user_photo_count": F.lit(-9.0), "features_key": F.lit("f" * 64)})
    changed.write.parquet(path)
    lake.lakehouse.synchronise("post_features", lake.session.read.parquet(path), "features_key")
    with pytest.raises(StageError, match="1 of 40 unlabelled posts have no current prediction"):
        write_submission(lake.session, lake.config, tmp_path / "submission.csv")
    assert score(lake.session, lake.config, run="score-3").computed == 1
    after = predictions(lake)
    assert after["prediction"][0] != before["prediction"][0] and after["features_key"][0] == "f" * 64
    pd.testing.assert_frame_equal(after[1:], before[1:])


def test_posts_of_a_condition_are_scored_labelled_ones_too(trained, scored):
    lake, _ = trained
    before = predictions(lake)
    uid = next(row["uid"] for row in lake.posts if row["popularity"] is not None)
    where = f"uid = '{uid}'"
    mine = {str(row["pid"]) for row in lake.posts if row["uid"] == uid}
    new = mine - set(before["pid"])
    summary = score(lake.session, lake.config, run="score-6", where=where)
    assert (summary.wanted, summary.ok, summary.computed) == (len(mine), len(mine), len(new)) and new
    assert where in summary.message
    after = predictions(lake).set_index("pid")
    assert set(after.index) == set(before["pid"]) | mine
    features = lake.lakehouse.read("post_features").where(where).toPandas()
    registry = Registry(lake.config)
    expected = registry.predictor(registry.champion()).predict(features)
    assert np.abs(after.loc[features["pid"], "prediction"].to_numpy() - expected).max() < 1e-9
    pd.testing.assert_frame_equal(after.loc[before["pid"]].reset_index(), before)
    assert score(lake.session, lake.config, run="score-7", where=where).outcome == "nothing_to_do"
    assert score(lake.session, lake.config, run="score-8").outcome == "nothing_to_do"
    nobody = score(lake.session, lake.config, run="score-9", where="uid = 'nobody'")
    assert (nobody.outcome, nobody.wanted) == ("nothing_to_do", 0) and "there are no posts" in nobody.message


def test_a_champion_that_was_changed_or_has_no_digests_is_not_scored_with(make_lake, monkeypatch):
    lake = make_lake(labelled=120, unlabelled=10, seed=8, overrides=("training.leave_out=[]",))
    train(lake.session, lake.config, run="run-1")
    registry = Registry(lake.config)
    before = lake.lakehouse.version("predictions")
    [code] = Path(lake.config.root).glob("mlflow-artifacts/models/*/artifacts/served_model.py")
    genuine = code.read_text()
    code.write_text(genuine + "\nraise SystemExit('this code ran')\n")
    with (
        monkeypatch.context() as unread,
        pytest.raises(ModelError, match=r"served_model\.py of .* version 1 was changed"),
    ):
        unread.setattr("mlflow.pyfunc.spark_udf", lambda *_, **__: pytest.fail("a model was loaded"))
        score(lake.session, lake.config, run="run-2")
    code.write_text(genuine)
    registry.client.delete_model_version_tag(registry.model, "1", DIGESTS_TAG)
    with pytest.raises(ModelError, match=r"version 1 was registered without digests.*Run `smp train`"):
        score(lake.session, lake.config, run="run-3")
    assert lake.lakehouse.version("predictions") == before


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("uidd = 'u'", "uidd"),
        ("uid = ", "PARSE_SYNTAX_ERROR"),
        ("user_photo_count + 1", "BOOLEAN"),
        ("1; SELECT 2", ";"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_is_written(trained, monkeypatch, where, said):
    lake, _ = trained
    versions = lake.lakehouse.versions(("predictions", "runs"))
    monkeypatch.setattr("mlflow.pyfunc.spark_udf", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match="is no condition over post_features") as raised:
        run_stage(lake.session, lake.config, "score", where=where)
    assert said in str(raised.value) and "\n" not in str(raised.value) and raised.value.exit_status == 2
    assert lake.lakehouse.versions(("predictions", "runs")) == versions


def test_features_of_other_models_are_not_scored(champion, monkeypatch):
    lake, _, version = champion
    other = replace(version, number="2", tags={**version.tags, "clip_text_extractor": "clip_text-2"})
    monkeypatch.setattr(Registry, "champion", lambda _: other)
    monkeypatch.setattr("mlflow.pyfunc.spark_udf", lambda *_, **__: pytest.fail("a model was loaded"))
    before = lake.lakehouse.version("predictions")
    with pytest.raises(FingerprintError, match="clip_text_extractor clip_text-2, and post_features holds clip_text-1"):
        score(lake.session, lake.config, run="score-4")
    assert lake.lakehouse.version("predictions") == before


def test_features_under_other_time_rules_are_not_scored(champion, monkeypatch):
    lake, _, version = champion
    other = replace(version, number="2", tags={**version.tags, "time_rules": "challenge"})
    monkeypatch.setattr(Registry, "champion", lambda _: other)
    with pytest.raises(FingerprintError, match="time_rules challenge, and post_features holds strict"):
        score(lake.session, lake.config, run="score-5")


def test_without_a_champion_there_is_nothing_to_score_with(lakehouse, mlflow_store):
    shutil.copy(mlflow_store, Path(lakehouse.config.root) / "mlflow.db")
    with pytest.raises(StageError, match="Run `smp train` first"):
        score(lakehouse.session, lakehouse.config, run="score-1")
    assert lakehouse.read("predictions").count() == 0
