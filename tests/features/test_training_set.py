"""training_set: labelled posts with features as known at the post, users in one fold, zeros where no vector is."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import functions as F

from smp_features.config import load_config
from smp_features.errors import ReconciliationError, StageError
from smp_features.features import training_set as module
from smp_features.features.training_set import joined_rows, training_rows, training_set
from smp_features.lake.tables import Lakehouse
from smp_features.model.vectors import filled
from smp_features.splits import gate_users, identity_folds

VECTORS = ("image_embedding", "caption_embedding", "title_embedding")


@pytest.fixture
def rows(posts):
    return lambda: {row.pid: row for row in posts.lakehouse.read("training_set").collect()}


def test_labelled_posts_get_their_features_label_fold_and_filled_vectors(spark, config, posts, rows):
    summary = training_set(spark, config, run="r")
    made, sources = rows(), posts.features()
    assert {pid: row.popularity for pid, row in made.items()} == posts.labels
    assert (summary.wanted, summary.ok, summary.computed, summary.left) == (4, 4, 4, 0) and summary.reconciles
    uids = [row.uid for row in made.values()]
    gated = gate_users(uids, config.registry.gate.share)
    assert [row.fold for row in made.values()] == np.where(gated, -1, identity_folds(uids, 5, seed=7)).tolist()
    assert len({row.row_id for row in made.values()}) == 4
    for name in VECTORS:
        matrix, there = filled([sources[pid][name] for pid in made], 4)
        assert np.array_equal(np.array([row[name] for row in made.values()], np.float32), matrix)
        assert [row[f"has_{name}"] for row in made.values()] == there.tolist()
    assert (made["3"].has_title_embedding, made["4"].has_image_embedding, made["1"].has_image_embedding) == (0, 0, 1)
    for pid, row in made.items():
        assert (row.features_key, row.time_rules) == (sources[pid].features_key, "strict")
        assert row.title_log_perplexity == sources[pid].title_log_perplexity

    version = posts.lakehouse.version("training_set")
    again = training_set(spark, config, run="r")
    assert (again.outcome, again.computed, again.versions_written) == ("nothing_to_do", 0, {})
    assert posts.lakehouse.version("training_set") == version
    assert again.versions_read.keys() == {"post_features", "labels"}


def test_changed_and_withdrawn_labels_change_only_their_rows(spark, config, posts, rows):
    training_set(spark, config, run="r")
    before = rows()
    posts.labels["1"] = 9.0
    del posts.labels["2"]
    posts.labels["6"] = 4.0
    posts.rows["6"] = posts.rows["1"] | {"pid": "6"}
    posts.write_labels()
    summary = training_set(spark, config, run="r")
    after = rows()
    assert after["1"].popularity == 9.0 and sorted(after) == ["1", "3", "4"]
    assert (after["3"], after["4"]) == (before["3"], before["4"])
    assert (summary.wanted, summary.ok, summary.left) == (4, 3, 1) and summary.reconciles
    assert summary.computed == 1 and "1 labelled posts have no features yet, run `smp features`" in summary.message


def test_another_seed_moves_folds_and_leaves_the_gate(spark, config, posts):
    joined = joined_rows(posts.lakehouse.read("post_features"), posts.lakehouse.read("labels"))

    def folds(*settings):
        chosen = load_config(None, ["registry.gate.share=0.4", *settings], root=config.root)
        lakehouse = Lakehouse(spark, chosen)
        made = training_rows(lakehouse, joined, dict.fromkeys(VECTORS, 4)).select("uid", "fold", "row_hash").distinct()
        return {row.row_hash: (row.uid, row.fold) for row in made.collect()}

    one, other = folds("training.seed=1"), folds("training.seed=3")
    assert {uid for uid, fold in one.values() if fold == -1} == {uid for uid, fold in other.values() if fold == -1}
    assert {f for _, f in one.values()} != {f for _, f in other.values()} and one.keys() != other.keys()


def test_a_column_without_any_vector_is_one_zero_until_there_is_one(spark, config, posts, monkeypatch, rows):
    with monkeypatch.context() as patch:
        nothing = F.lit(None).cast("array<float>")
        patch.setattr(module, "joined_rows", lambda *given: joined_rows(*given).withColumn("image_embedding", nothing))
        training_set(spark, config, run="r")
    assert {(*row.image_embedding, row.has_image_embedding) for row in rows().values()} == {(0.0, 0.0)}
    assert training_set(spark, config, run="r").computed == 4
    assert {len(row.image_embedding) for row in rows().values()} == {4}


def test_features_of_other_models_or_time_rules_are_refused(spark, config, posts, recipe, rows):
    recipe(caption="cap2", time_rules="challenge")
    with pytest.raises(
        StageError, match=r"another caption_extractor \(4 rows\), time_rules \(4 rows\) than configured.*`smp features`"
    ):
        training_set(spark, config, run="r")
    assert rows() == {}


def test_no_labelled_post_with_features_is_an_error(spark, config, posts):
    posts.labels = {"9": 1.0}
    posts.rows["9"] = posts.rows["1"] | {"pid": "9"}
    posts.write_labels()
    with pytest.raises(StageError, match=r"nothing to train on\. Run `smp features` first"):
        training_set(spark, config, run="r")


def test_a_label_older_than_its_post_is_refused(spark, config, posts):
    labels = posts.lakehouse.read("labels")
    early = [row.asDict() | {"known_at": posts.rows["1"]["event_ts"], "popularity": 1.25} for row in labels.collect()]
    posts.lakehouse.synchronise("labels", posts.frame("labels", early), "popularity")
    with pytest.raises(StageError, match="3 labels are older than their post"):
        training_set(spark, config, run="r")


def test_two_posts_with_one_row_id_fail_the_run(spark, config, posts, monkeypatch, rows):
    monkeypatch.setattr(
        module, "joined_rows", lambda *given: joined_rows(*given).withColumn("row_id", F.lit(7).cast("bigint"))
    )
    with pytest.raises(ReconciliationError, match="4 labelled posts have 1 distinct row ids"):
        training_set(spark, config, run="r")
    assert rows() == {}


def test_vectors_of_two_lengths_under_one_extractor_are_refused(spark, config, posts, monkeypatch):
    def shortened(*given):
        joined = joined_rows(*given)
        short = F.slice("title_embedding", 1, 3)
        return joined.withColumn(
            "title_embedding", F.when(joined["pid"] == "1", short).otherwise(joined["title_embedding"])
        )

    monkeypatch.setattr(module, "joined_rows", shortened)
    with pytest.raises(StageError, match="title_embedding holds vectors of 3 and of 4 numbers"):
        training_set(spark, config, run="r")


def test_missing_vectors_become_zeros_and_a_wrong_length_is_an_error():
    matrix, there = filled([[1.0, 2.0], None], 2)
    assert matrix.tolist() == [[1.0, 2.0], [0.0, 0.0]] and matrix.dtype == np.float32
    assert there.tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="row 0: a vector of 2 numbers where 3"):
        filled([[1.0, 2.0]], 3)
