"""What `smp status` and `smp errors` say of extraction and ingest."""

from __future__ import annotations

from datetime import timedelta

import pytest
from extraction_bench import NOW, key_of

from smp_features.errors import UsageError
from smp_features.extraction.plan import make_plans, read_versions, scope_of
from smp_features.runs import Summary
from smp_features.status import errors_of, status_of


def test_status_counts_every_stage_in_order_and_shows_its_last_run(bench):
    bench.post(("red cat", "oom 1"), (None, ""))
    bench.configure(max_attempts=1)
    bench.extract("perplexity")
    bench.lakehouse.record("run-1", [Summary("ingest", wanted=5, ok=4, failed=1, message="read")], NOW, NOW)
    rows = {row["stage"]: row for row in status_of(bench.lakehouse.session, bench.config)}
    assert list(rows) == [
        "ingest", "extract/caption", "extract/clip_image", "extract/clip_text", "extract/perplexity", "features",
        "training-set", "train", "score", "report",
    ]  # fmt: skip
    counts = ("wanted", "ok", "failed", "left", "given_up")
    assert [rows["extract/perplexity"][c] for c in counts] == [2, 0, 1, 0, 1]
    assert [rows["extract/caption"][c] for c in counts] == [1, 0, 0, 1, 0]
    assert [rows["ingest"][c] for c in counts] == [5, 4, 1, 0, 0]
    assert (rows["ingest"]["last_run"], rows["ingest"]["message"]) == ("run-1", "read")
    assert rows["train"]["wanted"] is None
    _check_counts(bench)


def _check_counts(bench) -> None:
    """DuckDB and Spark count the same, and what extraction itself plans by, which counts in another way."""
    session, config = bench.lakehouse.session, bench.config
    status = status_of(None, config)
    assert status == status_of(session, config)
    assert errors_of(None, config) == errors_of(session, config)
    extractors = bench.extractors
    versions = read_versions(bench.lakehouse, extractors.values(), extractors)
    scopes = [scope_of(each, extractors, versions, config.extraction.max_attempts) for each in extractors.values()]
    for plan in make_plans(bench.lakehouse, scopes, listing=False).values():
        [row] = [row for row in status if row["stage"] == plan.scope.extractor.stage]
        ledger = plan.ledger
        counted = (ledger.wanted, ledger.ok, ledger.failed, ledger.to_do, ledger.given_up)
        assert tuple(row[name] for name in ("wanted", "ok", "failed", "left", "given_up")) == counted


def test_both_engines_count_what_is_tried_again_reset_or_without_content_as_extraction_does(bench):
    bench.configure(max_attempts=2, max_error_share=1.0)
    bench.post(
        ("red cat", "oom 1"), ("blue", "oom 2"), (None, "oom 3"), (None, "fine"), (None, ""), ("red cat", "fine")
    )
    bench.post(("broken", "raise 1"), image_status="truncated")
    fingerprint = bench.extractors["perplexity"].fingerprint

    def note(text: str | None, status: str, minute: int, extractor: str | None = fingerprint) -> dict[str, object]:
        key = None if text is None else key_of(text)
        at = NOW + timedelta(minutes=minute)
        return {"stage": "perplexity", "key": key, "extractor": extractor, "status": status, "run": "r", "at": at}

    timeouts = [note(text, "timeout", minute) for text in ("oom 1", "oom 2", "oom 3") for minute in (1, 2)]
    bench.lakehouse.append("attempts", [*timeouts, note("fine", "timeout", 1, "another extractor")])
    _check_counts(bench)
    assert _given_up(bench) == 3
    bench.lakehouse.append(
        "attempts", [note("oom 1", "reset", 2), note("oom 2", "reset", 3), note("oom 2", "timeout", 4)]
    )
    _check_counts(bench)
    assert _given_up(bench) == 1  # its own reset is not earlier than its last failure
    bench.lakehouse.append("attempts", [note(None, "reset", 5, None), note("oom 3", "timeout", 6)])
    _check_counts(bench)
    assert _given_up(bench) == 0
    bench.extract("caption", "perplexity")
    _check_counts(bench)


def _given_up(bench) -> int:
    return next(row["given_up"] for row in status_of(None, bench.config) if row["stage"] == "extract/perplexity")


def test_errors_are_typed_counted_and_quote_no_content(bench, frame):
    bench.post(*((None, text) for text in ("raise 1", "raise 2", "raise 3", "raise 4", "nan 1", "oom 1", "fine")))
    bench.post(("broken", "fine"), image_status="truncated")
    bench.extract("perplexity")
    bench.lakehouse.insert_new(
        "quarantine", frame("quarantine", {"source_row": "train:9", "reason": "no_pid", "run": "r"})
    )
    rows = errors_of(bench.lakehouse.session, bench.config)
    assert [(row["stage"], row["kind"], row["status"], row["rows"]) for row in rows] == [
        ("ingest", "image", "missing", 7),
        ("ingest", "image", "truncated", 1),
        ("ingest", "refused", "no_pid", 1),
        ("extract/perplexity", "permanent", "model_error", 4),
        ("extract/perplexity", "permanent", "not_finite", 1),
        ("extract/perplexity", "transient", "out_of_memory", 1),
    ]
    assert rows[2]["keys"] == "train:9"
    assert rows[3]["keys"] == ", ".join(sorted(key_of(f"raise {n}") for n in (1, 2, 3, 4))[:3])
    assert "secret" not in str(rows)
    _check_counts(bench)
    one = errors_of(bench.lakehouse.session, bench.config, "extract/perplexity")
    assert one == rows[3:]
    assert errors_of(bench.lakehouse.session, bench.config, "caption") == []
    with pytest.raises(UsageError, match="Did you mean 'perplexity'"):
        errors_of(bench.lakehouse.session, bench.config, "perplexty")
