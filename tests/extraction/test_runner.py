"""The stage: each key once, nothing to do means nothing done, every key accounted for."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from extraction_bench import key_of
from extraction_fakes import vector
from pyspark.sql import functions as F

from smp_features.errors import ModelError, UsageError
from smp_features.extraction import chunk_jobs, in_flight, plan, retry, runner, staging
from smp_features.extraction.runner import ExtractionFailed
from smp_features.stages import run_stage


def test_each_key_is_computed_once_and_a_second_run_does_nothing(bench):
    bench.post(("red cat", "my cat"), ("blue dog", "my cat"), (None, "no picture"))
    done = bench.extract()
    assert {name: (s.outcome, s.wanted, s.ok, s.left) for name, s in done.items()} == {
        "caption": ("done", 2, 2, 0),
        "clip_image": ("done", 2, 2, 0),
        "clip_text": ("done", 4, 4, 0),
        "perplexity": ("done", 2, 2, 0),
    }
    captions = bench.rows("captions", "image_key", "caption", "text_key", "status")
    assert captions == sorted(
        (key_of(image), text, key_of(text), "ok")
        for image, text in (("red cat", "a picture of red"), ("blue dog", "a picture of blue"))
    )
    encoded = dict(bench.rows("text_embeddings", "text_key", "embedding"))
    for text in ("my cat", "no picture", "a picture of red", "a picture of blue"):
        np.testing.assert_array_equal(np.float32(encoded[key_of(text)]), vector("1", text))
    assert bench.rows("perplexities", "text_key", "log_perplexity", "token_count", "truncated") == sorted(
        (key_of(text), len(text) / 10, 2, False) for text in ("my cat", "no picture")
    )
    assert bench.staging() == []
    assert {name for name, _ in bench.rows("extractors", "name", "description")} == set(done)
    versions, log = bench.versions(), bench.log()
    # The same again: nothing is computed, loaded or written.
    again = bench.extract()
    assert {summary.outcome for summary in again.values()} == {"nothing_to_do"}
    assert all(s.computed == s.model_loads == 0 and not s.versions_written for s in again.values())
    assert bench.versions() == versions
    assert bench.log() == log  # not even a check
    assert bench.staging() == []
    # One new post computes exactly its content.
    bench.post(("green bird", "my cat"))
    third = bench.extract()
    assert {name: summary.computed for name, summary in third.items()} == {
        "caption": 1, "clip_image": 1, "clip_text": 1, "perplexity": 0,
    }  # fmt: skip


def test_another_model_computes_everything_beside_the_old_rows(bench):
    bench.post(("red cat", "my cat"))
    bench.extract("perplexity")
    bench.use(seed="2")
    assert bench.extract("perplexity")["perplexity"].computed == 1
    assert len(bench.rows("perplexities")) == 2


def test_one_model_under_two_names_computes_nothing_twice(bench):
    bench.add_model("twin", **{**bench.config.models["clip"].model_dump(), "kind": "fake_clip"})
    bench.post(("red cat", "my cat"), ("blue dog", "my dog"))
    done = bench.extract("clip", "twin")
    assert {name: (summary.outcome, summary.ok, summary.computed) for name, summary in done.items()} == {
        "clip_image": ("done", 2, 2),
        "clip_text": ("done", 2, 2),
        "twin_image": ("nothing_to_do", 2, 0),
        "twin_text": ("nothing_to_do", 2, 0),
    }
    assert [len(bench.rows(table)) for table in ("image_embeddings", "text_embeddings")] == [2, 2]


def test_every_captioner_makes_texts_for_those_who_read_them_and_models_share_tables(bench):
    given = bench.config.models["caption"].model_dump() | {"seed": "2"}
    bench.add_model("other", **given)
    bench.add_model("second", **given | {"kind": "fake_clip"})
    bench.post(("red cat", "my cat"))
    done = bench.extract()
    assert list(done) == ["caption", "other", "clip_image", "clip_text", "perplexity", "second_image", "second_text"]
    # The other captioner says the same of this picture: one more row, no further text.
    assert {row[0] for row in bench.rows("captions", "extractor")} == {
        bench.extractors[name].fingerprint for name in ("caption", "other")
    }
    assert [done[name].computed for name in ("clip_text", "second_text", "perplexity")] == [2, 2, 1]
    encoded = {(row[0], row[1]): row[2] for row in bench.rows("text_embeddings", "text_key", "extractor", "embedding")}
    for seed, name in (("1", "clip_text"), ("2", "second_text")):
        for text in ("my cat", "a picture of red"):
            found = encoded[key_of(text), bench.extractors[name].fingerprint]
            np.testing.assert_array_equal(np.float32(found), vector(seed, text))
    again = bench.extract()
    assert {summary.outcome for summary in again.values()} == {"nothing_to_do"}


def test_pictures_unusable_at_ingest_get_their_row_without_a_model(bench):
    bench.post(("broken", "a"), image_status="truncated")
    done = bench.extract("caption", "clip_image")
    assert bench.rows("captions", "image_key", "status", "error", "caption") == [
        (key_of("broken"), "truncated", "It cannot be used.", None)
    ]
    assert bench.log("load") == []
    assert (done["clip_image"].failed, done["clip_image"].left) == (1, 0)


def test_each_way_to_fail_is_a_status_that_never_quotes_the_content(bench):
    bench.post(*((None, text) for text in ("fine", "", "refused 1", "unprepared 1", "nan 1", "raise 1", "oom 1")))
    summary = bench.extract("clip_text")["clip_text"]
    expected = {
        key_of("fine"): "ok",
        key_of(""): "empty",
        key_of("refused 1"): "truncated",
        key_of("unprepared 1"): "prepare_error",
        key_of("nan 1"): "not_finite",
        key_of("raise 1"): "model_error",
    }
    assert bench.statuses("text_embeddings", "text_key") == expected
    assert bench.rows("attempts", "stage", "key", "status") == [("clip_text", key_of("oom 1"), "out_of_memory")]
    assert (summary.wanted, summary.ok, summary.failed, summary.left) == (7, 1, 5, 1)
    assert not any("secret" in str(row) for row in bench.rows("text_embeddings"))
    # Named failures can be forgotten.
    retry(bench.lakehouse.session, bench.config, "extract/clip_text", ["model_error"], run="r")
    del expected[key_of("raise 1")]
    assert bench.statuses("text_embeddings", "text_key") == expected
    with pytest.raises(UsageError, match="not failures"):
        retry(bench.lakehouse.session, bench.config, "clip_text", ["ok"], run="r")


def test_too_many_errors_fail_the_stage_after_publishing(bench):
    bench.configure(max_error_share=0.19)
    bench.post(*((None, text) for text in ("fine 1", "fine 2", "nan 1", "", " ")))
    with pytest.raises(ExtractionFailed, match="1 of 5 in error") as caught:
        bench.extract("perplexity")
    assert [summary.outcome for summary in caught.value.summaries] == ["failed"]
    assert len(bench.rows("perplexities")) == 5
    bench.configure(max_error_share=0.2)  # empty titles are facts, not errors
    assert bench.extract("perplexity")["perplexity"].outcome == "nothing_to_do"


def test_a_key_is_given_up_after_so_many_tries_until_retry(bench):
    bench.configure(max_attempts=2)
    bench.post((None, "oom 1"), (None, "fine"))
    first, second, third = (bench.extract("perplexity")["perplexity"] for _ in range(3))
    assert [(s.left, s.given_up, s.computed) for s in (first, second, third)] == [(1, 0, 2), (0, 1, 1), (0, 1, 0)]
    message = retry(bench.lakehouse.session, bench.config, "perplexity", run="r").message
    assert "smp extract perplexity" in message
    assert bench.extract("perplexity")["perplexity"].left == 1


def test_failures_are_given_up_and_forgotten_though_the_clock_is_set_back(bench, monkeypatch):
    bench.configure(max_attempts=2)
    bench.post((None, "oom 1"))

    class SetBack:
        hours = 0
        fromtimestamp = datetime.fromtimestamp

        @classmethod
        def now(cls, zone):
            cls.hours += 1
            return datetime.now(zone) - timedelta(hours=cls.hours)

    monkeypatch.setattr("smp_features.extraction.attempts.datetime", SetBack)
    for _ in range(2):  # each later moment is an hour earlier by the clock
        left = [bench.extract("perplexity")["perplexity"].left for _ in range(2)]
        assert left == [1, 0]
        retry(bench.lakehouse.session, bench.config, "perplexity", run="r")


def test_inputs_that_only_fail_transiently_fail_the_stage_as_do_those_given_up(bench):
    bench.configure(max_attempts=1, max_error_share=0.5)
    bench.post((None, "oom 1"), (None, "oom 2"), (None, "fine"))
    for _ in range(2):  # found in this run, and counted by one that has nothing left to try
        with pytest.raises(ExtractionFailed, match=r"2 of 3 in error .2 timed out, ran out of memory or lost"):
            bench.extract("perplexity")
    assert len(bench.rows("perplexities")) == 1


def test_a_model_that_cannot_load_fails_before_any_write(bench):
    bench.post(("red cat", "my cat"))
    bench.use(broken=True)
    versions = bench.versions()
    with pytest.raises(ModelError, match="broken"):
        bench.extract()
    assert bench.versions() == versions
    assert bench.staging() == []


def test_a_model_that_fails_for_every_input_is_blamed_instead_of_them(bench):
    bench.post(*((None, f"raise {n}") for n in range(80)))
    with pytest.raises(ExtractionFailed, match="raised ValueError for each of the first"):
        bench.extract("perplexity")
    assert bench.rows("perplexities") == []


def test_what_was_done_before_a_model_fails_in_its_workers_is_noted(bench):
    bench.post(("red cat", "raise 0"), *((None, f"raise {n}") for n in range(1, 80)))
    (before,) = bench.lakehouse.versions(["runs"]).values()
    with pytest.raises(ExtractionFailed, match="raised ValueError for each of the first") as caught:
        run_stage(bench.lakehouse.session, bench.config, "extract", names=["caption", "perplexity"])
    assert caught.value.exit_status == 1  # the captions are published: not "refused before anything was written"
    noted = bench.rows("runs", "stage", "outcome", "wanted", "computed", "model_loads")
    assert noted == [("extract/caption", "done", 1, 1, 1), ("extract/perplexity", "failed", 80, 0, 0)]
    assert bench.lakehouse.versions(["runs"]) == {"runs": before + 1}  # a commit each would cost more than planning


def test_a_failure_of_the_file_system_lets_the_other_chunks_be_published(bench, monkeypatch):
    bench.post(*((None, f"title {n}") for n in range(40)))
    bench.configure(first_chunk_rows=10, chunks_in_flight=2)
    mark = staging.mark
    marked = []

    def refused(lakehouse, marker):
        marked.append(marker.chunk)
        if len(marked) == 1:  # below a file there can be no folder
            Path(bench.config.root, "file").touch()
            lakehouse.files.put("file/marker.json", "{}")
        mark(lakehouse, marker)

    monkeypatch.setattr(chunk_jobs, "mark", refused)
    with pytest.raises(
        ExtractionFailed, match=r"file/marker\.json cannot be written: (Not a directory|File exists)"
    ) as caught:
        bench.extract("perplexity")
    (summary,) = caught.value.summaries
    assert summary.computed == len(bench.rows("perplexities")) == 20
    assert set(summary.seconds) >= {"plan", "compute", "publish"}


def test_contents_that_posts_refer_to_and_nobody_holds_fail_the_stage(bench):
    bench.post((None, "fine"), (None, "gone"))
    bench.lakehouse.delete("texts", F.col("text_key") == key_of("gone"))
    with pytest.raises(ExtractionFailed, match="1 keys that posts refer to are not in texts"):
        bench.extract("perplexity")
    assert bench.statuses("perplexities", "text_key") == {key_of("fine"): "ok"}


def test_many_chunks_of_keys_written_down_come_to_the_same_as_one_of_keys_listed(bench, monkeypatch):
    written = []

    def stage_work(lakehouse, name, run, work):
        written.append(staging.stage_work(lakehouse, name, run, work))
        return written[-1]

    monkeypatch.setattr(runner, "stage_work", stage_work)
    bench.post(("the first", "the first"))
    bench.extract("clip_image")
    assert len(written) == 1  # the table was empty: what is left may be much
    bench.post(*((f"picture {n}", f"title {n}") for n in range(16)))
    bench.post(("cut off", "cut off"), image_status="truncated")
    bench.extract("clip_image")
    assert len(written) == 1
    whole = bench.rows("image_embeddings")
    bench.lakehouse.delete("image_embeddings", F.col("image_key") != key_of("the first"))
    bench.configure(first_chunk_rows=5, chunk_minutes=10)
    monkeypatch.setattr(plan, "LISTED", 0)
    summary = bench.extract("clip_image")["clip_image"]
    assert len(written) == 2
    assert bench.rows("image_embeddings") == whole
    assert (summary.computed, summary.ok, summary.failed, summary.left) == (17, 17, 1, 0)
    assert summary.model_loads <= 4


def test_the_first_chunk_is_as_large_as_the_speed_of_the_last_run_lets_it_be(bench, monkeypatch):
    monkeypatch.setitem(in_flight.FIRST_ROWS, "text", 2)

    def commits_for(*titles: str) -> int:
        bench.post_titles(*titles)
        (before,) = bench.lakehouse.versions(["perplexities"]).values()
        (summary,) = run_stage(bench.lakehouse.session, bench.config, "extract", names=["perplexity"])
        assert summary.left == 0
        return bench.lakehouse.version("perplexities") - before

    first = [f"title {n}" for n in range(20)]
    assert commits_for(*first) > 1  # two rows per slot, as long as no speed is known
    assert commits_for(*(f"{title} again" for title in first)) == 1


def test_an_unknown_extractor_is_named_with_the_nearest(bench):
    with pytest.raises(UsageError, match="Did you mean 'caption'"):
        bench.extract("captions")
