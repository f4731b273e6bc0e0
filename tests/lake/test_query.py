"""SQL over the tables through Spark: reading answers, anything else is refused, and DuckDB answers the same."""

from __future__ import annotations

import pytest

from smp_features.config import Config
from smp_features.errors import UsageError
from smp_features.lake.plans import refuse_all_but_reading
from smp_features.lake.query import ask, describe_tables
from smp_features.redaction import redacted
from smp_features.runs import Summary

WRITES = [
    "DROP TABLE posts",
    "INSERT INTO texts SELECT * FROM texts",
    "DELETE FROM posts",
    "UPDATE posts SET title = ''",
    "WITH t AS (SELECT 1) INSERT INTO texts SELECT * FROM t",
    "CREATE TABLE x AS SELECT 1",
    "SET spark.x=1",
    "MERGE INTO posts USING labels ON posts.pid = labels.pid WHEN MATCHED THEN DELETE",
    "EXPLAIN DROP TABLE posts; DROP TABLE posts",
    "EXPLAIN DROP TABLE posts",
    "INSERT OVERWRITE DIRECTORY '/tmp/never' SELECT 1",
    "FROM posts INSERT OVERWRITE DIRECTORY '/tmp/never' SELECT 1",
    "CREATE TEMPORARY VIEW v USING csv OPTIONS (path '/etc/passwd')",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CACHE TABLE posts",
    "ADD JAR '/tmp/x.jar'",
    "ADD FILE '/etc/passwd'",
    "LOAD DATA INPATH '/x' INTO TABLE posts",
    "USE other",
    "RESET",
    "REFRESH TABLE posts",
    "ANALYZE TABLE posts COMPUTE STATISTICS",
    "TRUNCATE TABLE posts",
    "OPTIMIZE posts",
    "VACUUM posts",
    "ALTER TABLE posts ADD COLUMNS (x int)",
    "CREATE FUNCTION f AS 'x'",
]

ELSEWHERE = [
    "SELECT * FROM parquet.`/etc/passwd`",
    "SELECT * FROM text.`/etc/passwd`",
    "SELECT * FROM csv.`/etc/passwd`",
    "SELECT * FROM delta.`/tmp`",
    "SELECT * FROM json.`/x`",
    "SELECT * FROM binaryFile.`/etc`",
    "SELECT * FROM default.posts",
    "SELECT * FROM other.posts",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM text.`/etc/passwd`)",
    "WITH t AS (SELECT * FROM text.`/etc/passwd`) SELECT * FROM t",
    "SELECT (SELECT max(value) FROM text.`/etc/passwd`)",
    "SELECT pid FROM posts WHERE pid IN (SELECT value FROM text.`/etc/passwd`)",
    "SELECT * FROM posts, text.`/etc/passwd`",
    "SELECT pid FROM posts UNION SELECT value FROM text.`/etc/passwd`",
    "EXPLAIN SELECT * FROM text.`/etc/passwd`",
    "SELECT * FROM read_files('/etc/passwd')",
    "DESCRIBE text.`/etc/passwd`",
    "SHOW CREATE TABLE posts",
    "SHOW TABLES IN other",
    "SELECT TRANSFORM(pid) USING 'cat' AS x FROM posts",
    "SELECT reflect('java.lang.System', 'getenv', 'HOME')",
    "SELECT java_method('java.lang.Math', 'abs', 1)",
    "SELECT pid FROM posts WHERE reflect('a', 'b') = 'c'",
    "SELECT count(*) FILTER (WHERE reflect('a', 'b') = 'c') FROM posts",
    "SELECT max(reflect('a', 'b')) OVER () FROM posts",
    "SELECT transform(array(1), x -> reflect('a', 'b'))",
    "SELECT my_udf(pid) FROM posts",
    "SELECT other.upper(pid) FROM posts",
    "SELECT * FROM posts LATERAL VIEW other.explode(array(1)) t AS x",
    "SELECT input_file_name() FROM posts",
    "SELECT xpath_string(title, 'a') FROM posts",
    "SELECT '${env:HOME}'",
    "SELECT '${system:user.home}'",
]


@pytest.mark.parametrize("query", [*WRITES, *ELSEWHERE])
def test_what_is_not_a_select_over_the_tables_is_refused(spark, query):
    with pytest.raises(UsageError) as caught:
        refuse_all_but_reading(spark, query, ["posts", "labels", "texts"], Config())
    assert "\n" not in str(caught.value)


def test_what_is_refused_is_not_run(spark, lakehouse, config):
    before = lakehouse.versions(lakehouse.specs)
    for query in ("DROP TABLE posts", "INSERT INTO texts SELECT * FROM texts", "SELECT * FROM text.`/etc/passwd`"):
        with pytest.raises(UsageError, match="Only "):
            ask(spark, config, query)
    assert lakehouse.versions(lakehouse.specs) == before


def test_a_function_that_somebody_registered_is_refused(spark, lakehouse, config):
    spark.udf.register("harmless", lambda value: value)
    with pytest.raises(UsageError, match="The function harmless is none of those that only compute"):
        ask(spark, config, "SELECT harmless(pid) FROM posts")


def test_tables_are_asked_by_their_plain_names(spark, lakehouse, config):
    assert ask(spark, config, "SELECT count(*) AS n FROM posts JOIN labels USING (pid)") == [{"n": 0}]
    assert ask(spark, config, "SELECT count(*) AS n FROM smp.posts VERSION AS OF 0") == [{"n": 0}]
    assert {"col_name": "pid"}.items() <= ask(spark, config, "DESCRIBE posts")[0].items()
    assert len(ask(spark, config, "SHOW TABLES")) >= len(lakehouse.specs)
    assert len(ask(spark, config, "EXPLAIN SELECT * FROM posts")) == 1


def test_what_reads_only_the_tables_is_allowed_however_it_is_put(spark, lakehouse, config):
    for query in (
        "WITH w AS (SELECT uid, count(*) AS n FROM posts GROUP BY uid HAVING n > 1) SELECT * FROM w ORDER BY n LIMIT 2",
        "SELECT pid, row_number() OVER w FROM posts WINDOW w AS (PARTITION BY uid ORDER BY event_ts)",
        "SELECT pid, word FROM posts LATERAL VIEW explode(split(title, ' ')) t AS word",
        "SELECT pid FROM posts WHERE pid IN (SELECT pid FROM labels) UNION ALL SELECT 'a' EXCEPT SELECT 'b'",
        "SELECT * FROM posts PIVOT (count(pid) FOR split IN ('train', 'test'))",
        "SELECT category, count(*) FROM posts GROUP BY CUBE (category)",
        "SELECT sum(popularity) FILTER (WHERE popularity > 1) FROM labels TABLESAMPLE (50 PERCENT)",
        "SELECT id FROM range(0)", "SELECT p.pid FROM posts p LEFT ANTI JOIN labels l ON p.pid = l.pid",
    ):  # fmt: skip
        assert len(ask(spark, config, query)) <= 1
    assert ask(spark, config, "SELECT * FROM VALUES (1), (2) AS t(n) ORDER BY n") == [{"n": 1}, {"n": 2}]


def test_a_second_question_registers_nothing_again_and_sees_what_has_changed(spark, lakehouse, config, monkeypatch):
    assert ask(spark, config, "SELECT count(*) AS n FROM texts") == [{"n": 0}]
    spark.sql(f"ALTER TABLE {lakehouse.identifier('texts')} ADD COLUMNS (language string)")
    said: list[str] = []
    real = spark.sql
    monkeypatch.setattr(spark, "sql", lambda query, *rest: said.append(query) or real(query, *rest))
    assert ask(spark, config, "SELECT language FROM texts") == []
    assert not [query for query in said if query.startswith(("DROP", "CREATE TABLE"))]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT titel FROM posts", "There is no column 'titel' in posts. Did you mean 'title'?"),
        ("SELECT * FROM post", "There is no table 'post'. Did you mean 'posts'?"),
        ("SELEC 1", "The query is not valid SQL in Spark"),
        ("SELECT 1; SELECT 2", "The query is not valid SQL in Spark"),
        ("SELECT date_add(pid) FROM posts", "The query failed in Spark"),
    ],
)
def test_a_mistake_is_one_line_without_a_stack_trace(spark, lakehouse, config, query, said):
    with pytest.raises(UsageError) as caught:
        ask(spark, config, query)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "at org.apache" not in str(caught.value)


def test_a_root_without_tables_says_so(spark, config):
    with pytest.raises(UsageError, match=r"There are no tables under .*smp run"):
        ask(spark, config, "SELECT 1")


def test_every_table_is_listed_alike_by_both_engines(spark, lakehouse, config):
    listed = describe_tables(spark, config)
    assert [row["table"] for row in listed] == list(lakehouse.specs)
    assert describe_tables(None, config) == listed
    described = ask(None, config, "DESCRIBE runs")
    assert described == [row for row in ask(spark, config, "DESCRIBE runs") if row in described]
    assert len(described) == len(lakehouse.spec("runs").columns)


def test_no_secret_stands_in_runs(lakehouse):
    from datetime import UTC, datetime

    now = datetime(2026, 1, 2, tzinfo=UTC)
    failed = Summary("train", "failed", message="MLflow at https://me:hush@host failed: token=hush.")
    assert lakehouse._recorded("r", failed, now, now)["message"] == redacted(failed.message)
    assert "hush" not in str(lakehouse._recorded("r", failed, now, now))
