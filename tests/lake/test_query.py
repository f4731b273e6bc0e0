"""SQL over the tables: reading answers, writing is refused, mistakes are one line."""

from __future__ import annotations

import csv
import io
import json

import pytest

from smp_features.errors import UsageError
from smp_features.lake.query import ask, describe_tables, render


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE posts",
        "INSERT INTO texts SELECT * FROM texts",
        "WITH t AS (SELECT 1) INSERT INTO texts SELECT * FROM t",
        "DELETE FROM posts",
        "UPDATE posts SET title = ''",
        "MERGE INTO posts USING labels ON posts.pid = labels.pid WHEN MATCHED THEN DELETE",
        "CREATE TABLE x AS SELECT 1",
        "EXPLAIN DROP TABLE posts; DROP TABLE posts",
        "SET spark.x=1",
    ],
)
def test_statements_that_write_are_refused(spark, lakehouse, config, query):
    with pytest.raises(UsageError):
        ask(spark, config, query)
    assert all(lakehouse.exists(name) for name in lakehouse.specs)


def test_tables_are_asked_by_their_plain_names(spark, lakehouse, config):
    assert ask(spark, config, "SELECT count(*) AS n FROM posts JOIN labels USING (pid)") == [{"n": 0}]
    assert {"col_name": "pid"}.items() <= ask(spark, config, "DESCRIBE posts")[0].items()


def test_a_second_question_registers_nothing_again_and_sees_what_has_changed(spark, lakehouse, config, monkeypatch):
    assert ask(spark, config, "SELECT count(*) AS n FROM texts") == [{"n": 0}]
    spark.sql(f"ALTER TABLE {lakehouse.identifier('texts')} ADD COLUMNS (language string)")
    said: list[str] = []
    real = spark.sql
    monkeypatch.setattr(spark, "sql", lambda query, *rest: said.append(query) or real(query, *rest))
    assert ask(spark, config, "SELECT language FROM texts") == []
    assert not [query for query in said if query.startswith(("DROP", "CREATE TABLE"))]


@pytest.mark.parametrize("query", ["SELECT nothing FROM posts", "SELECT * FROM post", "SELEC 1", "SELECT 1; SELECT 2"])
def test_a_mistake_is_one_line_without_a_stack_trace(spark, lakehouse, config, query):
    with pytest.raises(UsageError) as caught:
        ask(spark, config, query)
    assert "\n" not in str(caught.value)
    assert "at org.apache" not in str(caught.value)


def test_a_root_without_tables_says_so(spark, config):
    with pytest.raises(UsageError, match=r"There are no tables under .*smp run"):
        ask(spark, config, "SELECT 1")


def test_every_table_is_listed(spark, lakehouse, config):
    assert [row["table"] for row in describe_tables(spark, config)] == list(lakehouse.specs)


def test_rows_print_as_csv_json_and_a_table():
    rows = [{"pid": "1", "n": 2.5, "v": [1, 2]}, {"pid": 'a,"b', "n": None, "v": []}]
    assert json.loads(render(rows, "json")) == rows
    parsed = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert [row["pid"] for row in parsed] == ["1", 'a,"b']
    assert "null" in render(rows, "table")
    assert render([], "table") == "(no rows)\n"
