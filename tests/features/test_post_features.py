"""post_features: one row per post from its content, recomputed only where something it was made from changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from smp_features import catalogue
from smp_features.catalogue import Feature
from smp_features.errors import ConfigError, ReconciliationError
from smp_features.features import metadata, post_features
from smp_features.features.history import HISTORY
from smp_features.features.metadata import tag_statistics, time_parts, title_statistics
from smp_features.features.post_features import features
from smp_features.lake.tables import Lakehouse


@pytest.fixture
def refresh(spark, config, posts):
    """Run the stage again; returns its summary and the pids whose rows were made by it."""

    def run():
        before = posts.features()
        summary = features(spark, config, run="again")
        after = posts.features()
        return summary, {pid for pid, row in after.items() if pid not in before or row != before[pid]}

    return run


def test_every_post_has_a_row_whose_values_follow_from_its_content(posts):
    rows = posts.features()
    assert sorted(rows) == ["1", "2", "3", "4", "5"]
    for pid, post in posts.rows.items():
        row, title = rows[pid].asDict(), post["title"]
        wanted = title_statistics(title) | tag_statistics("sea sun") | time_parts(post["event_ts"])
        assert {name: row[name] for name in wanted} == wanted
        assert row["title_log_perplexity"] == (len(title) / 4 if title else None)
        assert row["title_token_count"] == (len(title) or None)
        assert row["category"] == "Travel" and row["image_status"] == post["image_status"]
    boat, caption, title = (np.array(posts.vector_of(text)) for text in ("boat", "a red boat", "A red boat"))
    one = rows["1"]
    assert one.caption == "a red boat"
    assert one.caption_embedding == pytest.approx(caption) and one.image_embedding == pytest.approx(boat)
    assert one.caption_title_similarity == pytest.approx(caption @ title, abs=1e-6)
    assert one.image_title_similarity == pytest.approx(boat @ title, abs=1e-6)
    assert one.image_caption_similarity == pytest.approx(boat @ caption, abs=1e-6)
    assert (one.has_place, one.latitude, one.longitude, one.user_has_alias) == (1.0, 1.5, 2.5, 1.0)
    assert (one.user_photo_count, one.user_is_pro, rows["2"].user_photo_count) == (10.0, 1.0, 10.0)
    assert (rows["3"].has_place, rows["3"].user_has_alias, rows["3"].user_photo_count) == (0.0, 0.0, None)
    assert (one.clip_text_extractor, one.time_rules) == ("txt1", "strict")
    assert [rows[pid].title_script for pid in "123"] == ["Latin", "Latin", None] and one.title_script_share == 1.0
    assert (one.history_post_count, one.history_days_since_last) == (0.0, None)
    assert [rows["2"][name] for name in HISTORY] == [1.0, 1.0, 0.0, None, None]  # post 1's label takes 30 days


def test_missing_pictures_and_empty_titles_leave_nulls_not_gaps(posts):
    rows = posts.features()
    for pid in ("4", "5"):
        row = rows[pid]
        assert (row.caption, row.image_embedding, row.caption_embedding, row.image_title_similarity) == (None,) * 4
        assert row.title_embedding is not None
    assert rows["3"].title_embedding is None and rows["3"].caption_title_similarity is None
    assert rows["3"].image_caption_similarity is not None


def test_a_second_run_computes_nothing_and_writes_no_version(spark, config, posts):
    version = posts.lakehouse.version("post_features")
    summary = features(spark, config, run="again")
    assert (summary.outcome, summary.computed, summary.wanted, summary.ok) == ("nothing_to_do", 0, 5, 5)
    assert posts.lakehouse.version("post_features") == version and summary.versions_written == {}
    assert summary.reconciles and not Path(posts.lakehouse.folder("staging", "post_features", "again")).exists()
    assert "pictures: ok 3, missing 1, truncated 1" in summary.details
    assert "with caption–title similarity: 2 of 5 (40.0%)" in summary.details


def test_only_posts_whose_inputs_changed_are_made_again(posts, refresh):
    posts.rows["2"] |= {"title": "A red boat", "title_key": posts.key_of("A red boat")}
    posts.rows["1"]["image_path"] = "moved.jpg"  # no feature is made of it
    posts.write_posts()
    bob = {"photo_count": 7, "timezone_name": "Asia/Tokyo", "timezone_offset_minutes": 0}
    posts.profile("bob", 2.5, **bob)  # after post 3, before post 4
    posts.profile("cat", 5, photo_count=8)  # after her only post
    posts.profile("ann", 400, "external", external_views=1000)  # crawled long after her posts
    summary, changed = refresh()
    assert changed == {"2", "4"} and (summary.computed, summary.outcome) == (2, "done")
    rows = posts.features()
    assert rows["2"].caption_title_similarity == rows["1"].caption_title_similarity
    assert [rows[pid].user_photo_count for pid in "12345"] == [10.0, 10.0, None, 7.0, None]
    assert rows["1"].external_views is None
    assert (rows["4"].event_hour, rows["4"].local_hour, rows["3"].local_hour) == (12.0, 21.0, None)


def test_a_new_post_recomputes_the_posts_whose_history_it_changes_and_no_others(posts, refresh):
    first = posts.rows["1"]["event_ts"]
    new = {"event_ts": first + timedelta(days=40), "split": "test"}
    posts.rows["6"] = posts.rows["1"] | new | {"pid": "6"}
    posts.rows["7"] = posts.rows["1"] | new | {"pid": "7"}  # the same instant
    posts.write_posts()
    _, changed = refresh()
    rows = posts.features()
    assert changed == {"6", "7"}  # nobody else posted later
    for pid in "67":
        assert [rows[pid][name] for name in HISTORY] == [2.0, 39.0, 2.0, 2.0, 2.5]

    between = {"pid": "8", "event_ts": first + timedelta(days=0.5)}
    posts.rows["8"] = posts.rows["1"] | between
    posts.write_posts()
    summary, changed = refresh()
    rows = posts.features()
    assert changed == {"2", "6", "7", "8"} and (summary.computed, summary.outcome) == (4, "done")
    assert [rows["2"][name] for name in HISTORY] == [2.0, 0.5, 0.0, None, None]
    assert [rows["6"][name] for name in HISTORY] == [3.0, 39.0, 2.0, 2.0, 2.5]
    assert refresh()[0].outcome == "nothing_to_do"


def test_a_label_recomputes_the_posts_made_after_it_was_known(posts, refresh):
    posts.rows["6"] = posts.rows["1"] | {"pid": "6", "event_ts": posts.rows["1"]["event_ts"] + timedelta(days=40)}
    posts.write_posts()
    refresh()
    posts.labels |= {"2": 8.0, "4": 1.0, "6": 9.0}  # bob made no later post, and no post sees its own label
    posts.write_labels()
    summary, changed = refresh()
    assert changed == {"6"} and summary.versions_read["labels"] == posts.lakehouse.version("labels")
    assert [posts.features()["6"][name] for name in HISTORY] == [2.0, 39.0, 2.0, 4.75, 8.0]


def test_other_rules_or_models_make_every_row_again_and_going_back_gives_the_same_keys(posts, refresh, recipe):
    posts.profile("ann", 400, "external", external_views=1000)
    before = {pid: row.features_key for pid, row in posts.features().items()}
    assert len(set(before.values())) == 5
    recipe("challenge", perplexity="lm2")
    _, changed = refresh()
    rows = posts.features()
    assert changed == set("12345")
    assert [rows[pid].external_views for pid in "123"] == [1000.0, 1000.0, None]
    assert {(row.perplexity_extractor, row.time_rules) for row in rows.values()} == {("lm2", "challenge")}
    assert {row.title_log_perplexity for row in rows.values()} == {None}
    recipe()
    refresh()
    assert {pid: row.features_key for pid, row in posts.features().items()} == before


def test_a_new_post_has_a_row_before_its_content_and_a_post_that_left_has_none(posts, refresh):
    posts.rows["6"] = posts.rows["1"] | {"pid": "6", "title": "New", "title_key": posts.key_of("New")}
    posts.write_posts()
    posts.extract("perplexities")
    _, changed = refresh()
    row = posts.features()["6"]
    assert changed == {"6", "2"}  # post 2 of the same user has one earlier post more
    assert (row.title_log_perplexity, row.title_embedding) == (0.75, None)
    posts.extract()
    del posts.rows["5"]
    posts.write_posts()
    summary, changed = refresh()
    rows = posts.features()
    assert changed == {"6"} and rows["6"].image_title_similarity is not None
    assert sorted(rows) == ["1", "2", "3", "4", "6"]
    assert (summary.wanted, summary.ok, summary.computed, summary.outcome) == (5, 5, 1, "done")


def test_a_doubled_content_key_fails_before_anything_is_written(spark, config, posts, monkeypatch):
    posts.rows["1"]["title"] = "Other"
    posts.write_posts()
    version = posts.lakehouse.version("post_features")
    real = post_features.with_vectors
    monkeypatch.setattr(post_features, "with_vectors", lambda *given: real(*given).union(real(*given)))
    with pytest.raises(ReconciliationError, match="1 posts were to be recomputed"):
        features(spark, config, run="again")
    assert posts.lakehouse.version("post_features") == version


def test_a_feature_of_existing_columns_is_a_line_in_the_catalogue_and_its_formula(spark, config, posts, monkeypatch):
    feature = Feature("title_chars_per_tag", "density", "number", "characters of the title per tag")
    monkeypatch.setattr(catalogue, "BUILT_IN", (*catalogue.BUILT_IN, feature))
    known = metadata.post_columns
    formula = F.length("title") / F.size(F.split("tags", " "))
    monkeypatch.setattr(metadata, "post_columns", lambda profile: known(profile) | {feature.name: formula})
    Lakehouse(spark, config).create()
    assert features(spark, config, run="again").computed == 5
    assert {pid: row[feature.name] for pid, row in posts.features().items()} == {
        pid: len(post["title"]) / 2 for pid, post in posts.rows.items()
    }
    assert features(spark, config, run="again").outcome == "nothing_to_do"


def test_a_post_outcome_column_in_the_catalogue_is_refused(spark, config, posts, monkeypatch):
    leak = Feature("views_after_a_day", "title", "number", "a leak")
    monkeypatch.setattr(catalogue, "BUILT_IN", (*catalogue.BUILT_IN, leak))
    with pytest.raises(ConfigError, match="views_after_a_day"):
        features(spark, config, run="again")
