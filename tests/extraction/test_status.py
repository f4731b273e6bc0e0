"""What `smp status` and `smp errors` say of extraction and ingest."""

from __future__ import annotations

import pytest
from extraction_bench import NOW, key_of

from smp_features.errors import UsageError
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
    one = errors_of(bench.lakehouse.session, bench.config, "extract/perplexity")
    assert one == rows[3:]
    assert errors_of(bench.lakehouse.session, bench.config, "caption") == []
    with pytest.raises(UsageError, match="Did you mean 'perplexity'"):
        errors_of(bench.lakehouse.session, bench.config, "perplexty")
