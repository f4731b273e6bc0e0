"""Tables written by several at once, compacted and vacuumed in between, and damaged from outside."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from extraction_bench import key_of

from smp_features.errors import SmpError
from smp_features.stages import run_stage

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def texts_of(lakehouse, *names):
    rows = [(key_of(name), key_of(name)[0], name) for name in names]
    return lakehouse.session.createDataFrame(rows, "text_key string, shard string, text string")


def test_appends_merges_and_compaction_at_once_lose_and_double_nothing(lakehouse):
    rounds, writers = 3, 2
    together = threading.Barrier(writers + 2)

    def append(_):
        for number in range(rounds):
            together.wait()
            lakehouse.append("attempts", [{"stage": "s", "status": "timeout", "run": f"r{number}", "at": NOW}])

    def merge(writer):
        for number in range(rounds):
            together.wait()
            # One text that both insert, and one of each writer's own.
            lakehouse.insert_new("texts", texts_of(lakehouse, f"both {number}", f"{writer} {number}"))

    def compact(_):
        for _ in range(rounds):
            together.wait()
            lakehouse.optimize("texts")

    with ThreadPoolExecutor(writers + 2) as pool:
        running = [pool.submit(append, 0), pool.submit(compact, 0), *(pool.submit(merge, w) for w in range(writers))]
        for each in running:
            each.result(timeout=300)
    held = sorted(row["text"] for row in lakehouse.read("texts").collect())
    assert held == sorted([f"both {n}" for n in range(rounds)] + [f"{w} {n}" for w in range(writers) for n in range(3)])
    assert lakehouse.read("attempts").count() == rounds


def _log(tables: Path, table: str) -> list[Path]:
    return sorted((tables / table / "_delta_log").glob("*.json"))


def _without_data(tables: Path) -> None:
    for file in (tables / "texts").rglob("*.parquet"):
        file.unlink()


def _cut_data(tables: Path) -> None:
    for file in (tables / "texts").rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])


def _cut_data_of_a_store(tables: Path) -> None:
    _cut_data(tables)
    _without_checksums(tables)


def _cut_log(tables: Path) -> None:
    last = _log(tables, "texts")[-1]
    last.write_bytes(last.read_bytes()[:200])


def _cut_log_of_a_store(tables: Path) -> None:
    _cut_log(tables)
    _without_checksums(tables)


def _without_checksums(tables: Path) -> None:
    for file in (tables / "texts").rglob(".*.crc"):
        file.unlink()


def _without_first_log(tables: Path) -> None:
    _log(tables, "texts")[0].unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _without_data,
        _cut_data,
        _cut_data_of_a_store,
        _cut_log,
        _cut_log_of_a_store,
        _without_first_log,
        lambda tables: shutil.rmtree(tables / "texts"),
    ],
    ids=[
        "data file gone",
        "data file cut",
        "data file cut, no checksums",
        "last commit cut",
        "last commit cut, no checksums",
        "first commit gone",
        "folder gone",
    ],
)
def test_a_damaged_table_is_one_line_that_names_it_and_harms_no_other(bench, damage):
    bench.post_titles("one", "two")
    tables = Path(bench.config.root, "tables")
    versions = {name: len(_log(tables, name)) for name in ("posts", "text_embeddings", "perplexities")}
    damage(tables)
    with pytest.raises(SmpError) as caught:
        run_stage(bench.lakehouse.session, bench.config, "extract", names=["perplexity"])
    assert "texts" in caught.value.message
    assert "\n" not in str(caught.value)
    assert "java" not in str(caught.value)
    assert "org.apache" not in str(caught.value)
    assert caught.value.hint
    assert {name: len(_log(tables, name)) for name in versions} == versions
