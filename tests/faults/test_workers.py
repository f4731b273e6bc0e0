"""Workers and drivers that die, hang or meet each other: the tables come out as if nothing had happened."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from extraction_bench import key_of

from smp_features.errors import ReconciliationError
from smp_features.extraction import chunk_jobs, in_flight, runner, staging
from smp_features.lake.lock import writing
from smp_features.lake.staging import DEAD_AFTER_S, running
from smp_features.runs import new_run_id


def _titles(count: int) -> list[tuple[None, str]]:
    return [(None, f"title {n}") for n in range(count)]


def test_hung_inputs_become_timeouts_and_whoever_shared_their_batch_is_computed(bench, tmp_path):
    stuck = ("hang", "spin")  # waiting for ever, and computing on the interpreter's lock
    bench.configure(deadline_s=4.0, first_chunk_rows=16)  # long enough for a neighbour on a busy machine; two tasks
    # In one micro-batch, which is in the order of keys, it must come first: after another it would first run alone.
    first = min(map(key_of, stuck))
    once = next(text for n in count() if key_of(text := f"hang_once {tmp_path / f'hung{n}'}") < first)
    bench.post(*((None, text) for text in stuck), (None, once), *_titles(30))
    summary = bench.extract("clip_text")["clip_text"]
    assert (summary.ok, summary.left) == (31, 2)
    assert bench.rows("attempts", "key", "status") == sorted((key_of(text), "timeout") for text in stuck)
    loads = bench.log("load")
    # Each of the three ended a worker that had loaded a model.
    assert len({line.split()[-1] for line in loads}) == len(loads) >= 3
    assert summary.model_loads == len(loads)  # those of the ended ones are counted too


def test_a_worker_killed_or_stopped_in_mid_batch_changes_nothing(bench, tmp_path):
    bench.configure(deadline_s=4.0)  # long enough for a busy machine; a stopped worker is killed at twice that and more
    deadly = [f"kill_once {tmp_path / 'killed'}", f"stop_once {tmp_path / 'stopped'}"]
    bench.post(*((None, text) for text in deadly), *_titles(40))
    summary = bench.extract("clip_text")["clip_text"]
    assert (tmp_path / "killed").exists()
    assert (tmp_path / "stopped").exists()
    assert (summary.ok, summary.left, summary.computed) == (42, 0, 42)
    bench.check_text_vectors([*deadly, *(title for _, title in _titles(40))])


def test_deadly_inputs_are_told_apart_even_more_of_them_than_spark_forgives_a_task(bench):
    bench.configure(slots=1)
    deadly = [f"exit {n}" for n in range(5)]
    bench.post(*((None, text) for text in deadly), *_titles(60))
    summary = bench.extract("clip_text")["clip_text"]
    assert (summary.ok, summary.left) == (60, 5)
    assert bench.rows("attempts", "key", "status") == sorted((key_of(text), "worker_lost") for text in deadly)


def _kill_after_staging(bench, monkeypatch, *names):
    """Run until everything is staged, and stop as a driver does that is killed before it publishes."""

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(in_flight, "publish", die)
        with pytest.raises(Killed):
            bench.extract(*names)


def test_stages_of_a_killed_driver_are_published_without_loading_a_model(bench, monkeypatch):
    bench.post(("red cat", "my cat"), ("blue dog", "my dog"))
    _kill_after_staging(bench, monkeypatch, "caption")
    assert bench.rows("captions") == []
    loads = len(bench.log("load"))
    summary = bench.extract("caption")["caption"]
    assert len(bench.log("load")) == loads
    assert (summary.outcome, summary.ok, summary.model_loads) == ("done", 2, 0)
    assert "published" in summary.message
    assert {text for _, text in bench.rows("texts", "text_key", "text")} >= {"a picture of red", "a picture of blue"}
    assert bench.staging() == []


def test_a_kill_between_publishing_and_cleaning_up_repeats_harmlessly(bench, monkeypatch):
    bench.post((None, "oom 1"), (None, "fine"))

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(staging, "_remove", die)
        with pytest.raises(Killed):
            bench.extract("perplexity")
    versions = bench.versions()
    bench.configure(max_attempts=1)
    assert bench.extract("perplexity")["perplexity"].given_up == 1
    assert bench.versions() == versions  # neither the row nor the attempt came twice
    assert bench.staging() == []


def _stage_by_hand(bench, rows: list[tuple], promised: int, **changed) -> Path:
    """Write a complete stage for `perplexity`."""
    extractor = bench.extractors["perplexity"]
    folder = staging.chunk_folder(bench.lakehouse, "perplexity", "earlier", "00000-0")
    schema = staging.staged_schema(bench.lakehouse, extractor)
    bench.lakehouse.session.createDataFrame(rows, schema).coalesce(1).write.parquet(f"{folder}/all-0")
    fields = {
        "name": "perplexity", "extractor": "f", "run": "earlier", "chunk": "00000-0", "parts": ("all-0",),
        "rows": promised, "transient": (), "shards": tuple("0123456789abcdef"),
        "spec": staging.spec_version(bench.lakehouse, extractor),
    }  # fmt: skip
    staging.mark(bench.lakehouse, staging.Marker(**fields | changed))
    return Path(folder)


def _row(text: str, value: float) -> tuple:
    return (key_of(text), value, 1, False, "ok", None, datetime(2026, 1, 1, tzinfo=UTC))


def test_duplicate_staged_rows_become_one_row_always_the_same(bench):
    _stage_by_hand(bench, [_row("a", 2.0), _row("a", 1.0), _row("b", 3.0)], promised=2)
    (marker,) = staging.marked(bench.lakehouse, ["perplexity"])
    extractor = bench.extractors["perplexity"]
    assert staging.publish(bench.lakehouse, extractor, marker) is True
    assert bench.rows("perplexities", "text_key", "log_perplexity") == sorted([(key_of("a"), 1.0), (key_of("b"), 3.0)])
    assert staging.publish(bench.lakehouse, extractor, marker) is False  # nor does it matter that somebody was faster


def test_a_stage_that_lost_rows_or_was_made_for_other_columns_is_removed_unpublished(bench):
    extractor = bench.extractors["perplexity"]
    folder = _stage_by_hand(bench, [_row("a", 2.0)], promised=2)
    with pytest.raises(ReconciliationError, match="holds 1 keys, and its marker promises 2"):
        staging.publish(bench.lakehouse, extractor, *staging.marked(bench.lakehouse, ["perplexity"]))
    assert not folder.exists()
    folder = _stage_by_hand(bench, [_row("a", 2.0)], promised=1, spec="older")
    assert staging.publish(bench.lakehouse, extractor, *staging.marked(bench.lakehouse, ["perplexity"])) is False
    assert not folder.exists()
    assert bench.rows("perplexities") == []


def test_unfinished_stages_are_swept_only_when_their_run_is_dead(bench):
    folder = _stage_by_hand(bench, [_row("a", 2.0)], promised=1)
    marker, files = Path(str(folder) + ".json"), bench.lakehouse.files
    with writing(bench.config.root), running(files, "another"):
        pass
    assert folder.exists()  # it is complete
    marker.unlink()
    with running(files, "another"):  # nobody holds the root, so that its run may be alive elsewhere
        pass
    assert folder.exists()
    with writing(bench.config.root), running(files, "another"):
        assert not folder.parent.exists()


def _keys_of_the_earlier_run(bench) -> Path:
    """Write the keys that a run computes, as it does before its first chunk."""
    keys = bench.lakehouse.session.createDataFrame([(key_of("a"), key_of("a"))], "key string, content string")
    staging.stage_work(bench.lakehouse, "perplexity", "earlier", keys)
    return Path(staging.chunk_folder(bench.lakehouse, "perplexity", "earlier", staging.KEYS))


def test_the_keys_of_a_run_that_lives_are_left_to_it(bench):
    _stage_by_hand(bench, [_row("a", 2.0)], promised=1)
    keys = _keys_of_the_earlier_run(bench)
    with writing(bench.config.root):
        with running(bench.lakehouse.files, "earlier"):
            bench.extract("perplexity")  # publishes what waits
            assert len(bench.rows("perplexities")) == 1
            assert keys.exists()
        assert not keys.exists()
        keys = _keys_of_the_earlier_run(bench)
        _stage_by_hand(bench, [_row("b", 2.0)], promised=1)
        bench.extract("perplexity")
        assert not keys.exists()
    assert len(bench.rows("perplexities")) == 2


def test_where_no_lock_keeps_other_drivers_out_keys_are_swept_by_the_heartbeat_of_their_run(bench):
    keys = _keys_of_the_earlier_run(bench)
    files = bench.lakehouse.files
    files.put("staging/earlier.alive", "{}")
    beat = files.local_folder("staging", "earlier.alive")
    old = time.time() - 2 * DEAD_AFTER_S
    for path in keys.iterdir():
        os.utime(path, (old, old))
    bench.extract("perplexity")
    assert keys.exists()
    os.utime(beat, (old, old))
    bench.extract("perplexity")
    assert not keys.parent.exists()
    assert bench.staging() == []


def test_two_threads_of_one_driver_write_no_key_twice(bench):
    bench.post(*_titles(40))
    bench.configure(first_chunk_rows=15)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            bench.extract("perplexity", run=new_run_id())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    keys = [row[0] for row in bench.rows("perplexities", "text_key")]
    assert len(keys) == len(set(keys)) == 40
    assert bench.staging() == []


def test_a_failing_chunk_keeps_what_the_others_computed(bench, monkeypatch):
    bench.post(*_titles(40))
    bench.configure(first_chunk_rows=10, chunks_in_flight=2)
    compute = chunk_jobs.compute_chunk

    def failing(lakehouse, job, chunk):
        if chunk.number == 0:
            raise runner.StageError("The disk is full.")
        time.sleep(0.5)
        return compute(lakehouse, job, chunk)

    monkeypatch.setattr(in_flight, "compute_chunk", failing)
    with pytest.raises(runner.ExtractionFailed, match="The disk is full") as caught:
        bench.extract("perplexity")
    assert [summary.outcome for summary in caught.value.summaries] == ["failed"]
    assert 0 < len(bench.rows("perplexities")) < 40
