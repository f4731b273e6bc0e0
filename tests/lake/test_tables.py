"""Tables: created once, keys inserted once, nothing written when nothing changed, constraints kept."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
from deltalake import DeltaTable as OutsideTable
from deltalake import QueryBuilder
from pyspark.sql import functions as F

from smp_features.config import load_config
from smp_features.errors import StageError
from smp_features.lake.specs import Column
from smp_features.lake.tables import Lakehouse, literal, quoted

NOW = datetime(2026, 1, 2, 3, 4, 5)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(text: str) -> dict[str, object]:
    return {"text_key": _key(text), "shard": _key(text)[0], "text": text}


def test_creating_twice_creates_nothing_the_second_time(lakehouse):
    assert lakehouse.create() == ()


def test_a_table_of_an_older_version_gets_its_new_columns_and_keeps_its_rows(lakehouse, frame, monkeypatch):
    lakehouse.insert_new("texts", frame("texts", _text("a")))
    spec = lakehouse.spec("texts")
    newer = replace(spec, columns=(*spec.columns, Column("language", "string", "what it is written in")))
    monkeypatch.setitem(lakehouse.specs, "texts", newer)
    rows = frame("texts", _text("a"), {**_text("b"), "language": "en"})
    for write in (lakehouse.insert_new, lambda table, rows: lakehouse.synchronise(table, rows, None)):
        with pytest.raises(StageError, match=r"has no column language.*`smp ingest` first"):
            write("texts", rows)
    assert lakehouse.create() == ()
    assert lakehouse.insert_new("texts", rows) is True
    found = {row["text"]: row["language"] for row in lakehouse.read("texts").collect()}
    assert found == {"a": None, "b": "en"}
    described = lakehouse.session.sql(f"DESCRIBE {lakehouse.identifier('texts')}").collect()
    assert {row["col_name"]: row["comment"] for row in described}["language"] == "what it is written in"


def test_inserting_known_keys_writes_no_version(lakehouse, frame):
    rows = frame("texts", _text("a"), _text("b"))
    assert lakehouse.insert_new("texts", rows) is True
    assert lakehouse.insert_new("texts", rows) is False
    assert lakehouse.read("texts").count() == 2


def test_duplicate_source_keys_become_one_row_whatever_their_order(lakehouse, frame):
    first = {"image_key": _key("x"), "shard": _key("x")[0], "extractor": "f", "status": "ok", "computed_at": NOW}
    rows = [first | {"caption": text, "text_key": _key(text)} for text in ("b", "a", "c")]
    lakehouse.insert_new("captions", frame("captions", *rows))
    assert [r.caption for r in lakehouse.read("captions").collect()] == ["a"]


def test_synchronise_writes_only_changed_rows_and_nothing_when_none_changed(lakehouse, frame):
    def label(pid, popularity):
        return {"pid": pid, "popularity": popularity, "known_at": NOW}

    posts = [
        {
            "pid": pid, "split": "train", "uid": "u", "event_ts": NOW, "known_at": NOW, "title": "t", "title_key": "k",
            "tags": "", "image_status": "missing", "source_row": "train:1", "row_hash": pid,
        }
        for pid in ("1", "2")
    ]  # fmt: skip
    assert lakehouse.synchronise("posts", frame("posts", *posts), "row_hash") == {
        "inserted": 2, "updated": 0, "deleted": 0,
    }  # fmt: skip
    version = lakehouse.version("posts")
    lakehouse.synchronise("posts", frame("posts", *posts), "row_hash")
    assert lakehouse.version("posts") == version
    changed = [posts[0] | {"row_hash": "new", "title": "other"}]
    counts = lakehouse.synchronise("posts", frame("posts", *changed), "row_hash", delete_missing=True)
    assert counts == {"inserted": 0, "updated": 1, "deleted": 1}
    assert [(r.pid, r.title) for r in lakehouse.read("posts").collect()] == [("1", "other")]


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("labels", {"pid": "1", "popularity": float("nan"), "known_at": NOW}),
        ("texts", {"text_key": _key("a"), "shard": "x", "text": "a"}),
        (
            "text_embeddings",
            {
                "text_key": _key("a"), "shard": _key("a")[0], "extractor": "f", "status": "ok",
                "embedding": [1.0, float("nan")], "computed_at": NOW,
            },
        ),
    ],
)  # fmt: skip
def test_constraints_refuse_bad_rows(lakehouse, frame, table, row):
    with pytest.raises(Exception, match="DELTA_VIOLATE_CONSTRAINT"):
        lakehouse.insert_new(table, frame(table, row))
    assert lakehouse.read(table).count() == 0


def test_an_outside_reader_opens_every_table(lakehouse, frame):
    lakehouse.insert_new("texts", frame("texts", _text("a")))
    for name in lakehouse.specs:
        table = OutsideTable(lakehouse.folder("tables", name))
        counted = QueryBuilder().register("t", table).execute("SELECT count(*) AS n FROM t").read_all()
        assert counted["n"][0].as_py() == lakehouse.read(name).count()


def test_a_missing_table_is_named_with_the_command_that_makes_it(spark, config):
    with pytest.raises(StageError, match=r"Table posts does not exist.*smp ingest"):
        Lakehouse(spark, config).read("posts")


def test_names_and_literals_are_quoted():
    assert quoted("a`b", "c.d") == "`a``b`.`c.d`"
    assert literal("it's \\ ; --") == "'it\\'s \\\\ ; --'"


def test_a_root_with_every_odd_character_works(spark, tmp_path, empty_tables):
    root = tmp_path / "it's `a` lake.v2; -- größe"
    shutil.copytree(empty_tables, root / "tables")
    lakehouse = Lakehouse(spark, load_config(None, [], root=str(root)))
    text = "`; DROP TABLE texts; -- '\" größe"
    rows = spark.createDataFrame([("a" * 64, text)], "text_key string, text string")
    assert lakehouse.insert_new("texts", rows)
    assert [tuple(row) for row in lakehouse.read("texts").select("text_key", "text").collect()] == [("a" * 64, text)]
    assert lakehouse.version("texts") == 1
    assert lakehouse.exists("texts")
    assert lakehouse.delete("texts", F.col("text") == text)
    assert lakehouse.read("texts").count() == 0
