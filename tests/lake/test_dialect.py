"""Users' SQL without Spark: what DuckDB is let answer, it answers as Spark does; all else is refused."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plain_lake import write_lake
from smp_features.config import Config, load_config
from smp_features.errors import UsageError
from smp_features.lake.dialect import understand
from smp_features.lake.query import ask

# Each is asked of both engines, over rows that hold nulls, empty texts and lists, NaN and infinities.

POSTS = [
    "title", "category", "latitude", "geo_accuracy", "image_size", "is_public", "event_ts", "image_modified_at",
    "upper(title)", "lower(title)", "trim(title)", "ltrim(title)", "rtrim(title)", "length(title)",
    "char_length(title)", "character_length(title)", "reverse(title)", "concat(title, category)",
    "concat(title, '-', geo_accuracy)", "title ", " category", "substring(title, 2, 3)", "substr(title, 2)",
    "substring(title, -2, 2)", "left(title, 2)", "right(title, 2)", "instr(title, 'a')", "locate('a', title)",
    "position('a' IN title)", "replace(title, 'a', 'b')", "regexp_replace(title, '[aeiou]', '_')",
    "regexp_extract(title, '(\\w+) (\\w+)', 2)", "regexp_extract(title, '(\\w+)')", "title RLIKE '^[a-c]'",
    "title LIKE '%a%'", "title LIKE 'a_c%'", "title ILIKE '%A%'", "title REGEXP 'a'", "split(title, ' ')",
    "size(split(title, ' '))", "split(title, ' ')[0]", "split(title, ' ')[5]", "split(title, '[ab]')",
    "split_part(title, ' ', 2)", "concat_ws('-', title, category)", "lpad(title, 8, '*')", "rpad(title, 8, '*')",
    "ascii(title)", "translate(title, 'ab', 'xy')", "startswith(title, 'a')", "endswith(title, 'a')",
    "contains(title, 'a')", "repeat(title, 2)", "md5(title)", "sha2(title, 256)", "coalesce(category, 'none')",
    "nvl(category, 'none')", "ifnull(category, 'none')", "nullif(category, 'x')", "nvl2(category, 1, 2)",
    "if(category IS NULL, 1, 2)", "CASE WHEN latitude > 0 THEN 'n' WHEN latitude < 0 THEN 's' ELSE '?' END",
    "CASE category WHEN 'x' THEN 1 ELSE 0 END", "category <=> NULL", "category = 'x'", "category <> 'x'",
    "category != 'x'", "NOT is_public", "is_public AND latitude > 0", "is_public OR latitude > 0",
    "latitude IN (1.5, 2)", "category NOT IN ('x')", "latitude BETWEEN -1 AND 50", "latitude + 1",
    "latitude - longitude", "latitude * 2", "latitude / longitude", "latitude / 0", "geo_accuracy / 2", "1 / 2",
    "7 / 2 * 2", "geo_accuracy / geo_accuracy", "geo_accuracy % 3", "-7 % 3", "geo_accuracy DIV 2", "-7 DIV 2",
    "mod(geo_accuracy, 3)", "- geo_accuracy", "abs(latitude)", "round(latitude)", "round(latitude, 1)", "round(2.5)",
    "round(-2.5)", "cbrt(latitude)", "exp(latitude / 100)", "power(latitude, 2)", "pow(2, geo_accuracy)",
    "sin(latitude)", "cos(latitude)", "tan(latitude)", "asin(latitude / 90)", "acos(latitude / 90)", "atan(latitude)",
    "atan2(latitude, longitude)", "radians(latitude)", "degrees(latitude)", "pi()", "greatest(latitude, longitude)",
    "least(latitude, longitude)", "greatest(latitude, geo_accuracy, 3)", "isnan(latitude)", "cast('12' AS int)",
    "cast('1.5' AS double)", "cast('abc' AS double)", "cast(geo_accuracy AS double)", "cast(geo_accuracy AS string)",
    "cast(is_public AS int)", "cast(is_public AS string)", "cast(event_ts AS date)", "cast(event_ts AS string)",
    "cast('2016-03-01' AS date)", "cast('2016-03-01 10:00:00' AS timestamp)", "cast('nonsense' AS timestamp)",
    "double(geo_accuracy)", "string(geo_accuracy)", "date(event_ts)", "year(event_ts)", "quarter(event_ts)",
    "month(event_ts)", "day(event_ts)", "dayofmonth(event_ts)", "dayofyear(event_ts)", "weekofyear(event_ts)",
    "hour(event_ts)", "minute(event_ts)", "second(event_ts)", "extract(YEAR FROM event_ts)",
    "extract(HOUR FROM event_ts)", "date_trunc('month', event_ts)", "date_trunc('hour', event_ts)",
    "date_trunc('week', event_ts)", "date_trunc('year', event_ts)", "date_trunc('day', event_ts)",
    "date_format(event_ts, 'yyyy-MM-dd')", "date_format(event_ts, 'yyyy-MM')", "date_format(event_ts, 'HH:mm:ss')",
    "to_date(event_ts)", "to_date('2016-03-01')", "to_timestamp('2016-03-01 00:00:00')",
    "datediff(event_ts, image_modified_at)", "date_diff(event_ts, image_modified_at)", "last_day(event_ts)",
    "event_ts + INTERVAL 1 DAY", "event_ts - INTERVAL 2 HOURS", "event_ts > '2016-03-01'",
    "event_ts >= TIMESTAMP '2016-03-01 00:00:00'", "event_ts > DATE '2016-03-01'",
    "event_ts BETWEEN '2015-01-01' AND '2016-12-31'", "hex(title)", "array(1, 2, 3)", "array(1, 2, 3)[0]",
    "array('a', category)", "try_divide(1, 0)", "image_size & 7", "image_size | 1", "image_size ^ 3",
    "~ geo_accuracy", "'it\\'s'", '"double"', "'a''b'", "1.5", "1e3", "true", "null",
    "row_number() OVER (ORDER BY pid)", "rank() OVER (ORDER BY category)", "dense_rank() OVER (ORDER BY category)",
    "percent_rank() OVER (ORDER BY pid)", "cume_dist() OVER (ORDER BY pid)", "ntile(2) OVER (ORDER BY pid)",
    "lag(title) OVER (ORDER BY pid)", "lead(title, 1, 'z') OVER (ORDER BY pid)",
    "first_value(title) OVER (ORDER BY pid)", "last_value(title) OVER (ORDER BY pid)",
    "sum(latitude) OVER (PARTITION BY category ORDER BY pid)", "count(*) OVER ()",
    "avg(latitude) OVER (ORDER BY pid ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "row_number() OVER (ORDER BY latitude DESC, pid)", "rank() OVER (ORDER BY latitude DESC NULLS FIRST)",
    "latitude = 1.5", "geo_accuracy = 3.0", "geo_accuracy > '3'", "pid = 5", "latitude > '1'", "'a' < 'B'",
    "title < category", "cast(latitude AS decimal(10,2))", "uid IN (SELECT uid FROM posts WHERE latitude > 0)",
    "EXISTS (SELECT 1 FROM labels)", "(SELECT count(*) FROM posts)", "len(title)", "regexp_like(title, 'a')",
    "regexp_count(title, 'a')", "regexp_extract_all(title, '(a)')", "chr(65)", "char(65)", "lcase(title)",
    "ucase(title)", "equal_null(category, 'x')", "sinh(latitude / 90)", "cosh(latitude / 90)", "tanh(latitude / 90)",
]  # fmt: skip

VECTORS = [
    "description_vector", "size(description_vector)", "description_vector[0]", "description_vector[9]",
    "element_at(description_vector, 1)", "element_at(description_vector, 9)", "array_contains(description_vector, 1)",
    "array_max(description_vector)", "array_min(description_vector)", "array_sort(description_vector)",
    "sort_array(description_vector)", "sort_array(description_vector, false)", "slice(description_vector, 1, 2)",
    "slice(description_vector, -2, 2)", "transform(description_vector, v -> v + 1)",
    "filter(description_vector, v -> v > 1)", "aggregate(description_vector, 0D, (a, v) -> a + v)",
    "reduce(description_vector, 0D, (a, v) -> a + v)", "description_vector IS NULL",
    "description_vector = location_vector", "sqrt(aggregate(description_vector, 0D, (s, p) -> s + p * p))",
    "size(filter(description_vector, v -> v IS NOT NULL))", "isnan(description_vector[0])",
    "try_element_at(description_vector, 9)",
]  # fmt: skip

MAPS = [
    "seconds", "seconds['write']", "seconds['nothing']", "element_at(seconds, 'write')", "map_keys(seconds)",
    "map_values(seconds)", "seconds.write", "aggregate(map_values(seconds), 0D, (a, v) -> a + v)",
]  # fmt: skip

BYTES = [
    "bytes", "hex(bytes)", "sha2(bytes, 256)", "md5(bytes)",
]  # fmt: skip

NUMBERS = [
    "log_perplexity", "isnan(log_perplexity)", "log_perplexity > 1", "log_perplexity = log_perplexity",
    "log_perplexity <> log_perplexity", "greatest(log_perplexity, 1)", "least(log_perplexity, 1)",
    "rank() OVER (ORDER BY log_perplexity, text_key)", "rank() OVER (ORDER BY log_perplexity DESC, text_key)",
    "log_perplexity IN (1)", "round(log_perplexity, 1)", "exp(log_perplexity)", "log_perplexity + 1",
    "log_perplexity / 0", "abs(log_perplexity)", "coalesce(log_perplexity, 0)", "nullif(log_perplexity, 1)",
]  # fmt: skip

AGGREGATES = [
    "count(*)", "count(category)", "count(1)", "count(DISTINCT category)", "count(DISTINCT category, latitude)",
    "sum(latitude)", "sum(geo_accuracy)", "sum(geo_accuracy) / count(*)", "avg(latitude)", "mean(latitude)",
    "avg(geo_accuracy)", "min(title)", "max(title)", "min(event_ts)", "max(event_ts)", "min(latitude)",
    "stddev(latitude)", "stddev_samp(latitude)", "stddev_pop(latitude)", "variance(latitude)", "var_samp(latitude)",
    "var_pop(latitude)", "covar_samp(latitude, longitude)", "covar_pop(latitude, longitude)", "median(latitude)",
    "percentile(latitude, 0.5)", "percentile(latitude, 0.25)", "percentile(latitude, array(0.25, 0.75))",
    "approx_count_distinct(category)", "count_if(latitude > 0)", "sum(latitude) FILTER (WHERE latitude > 0)",
    "count(*) FILTER (WHERE category IS NULL)", "max_by(title, latitude)", "min_by(title, latitude)",
    "bool_and(is_public)", "bool_or(is_public)", "array_sort(collect_list(category))",
    "array_sort(collect_set(category))", "sort_array(collect_set(category))", "size(collect_list(latitude))",
    "size(collect_set(title))", "array_agg(pid)", "sum(DISTINCT geo_accuracy)", "count(DISTINCT title)",
    "sum(if(latitude > 0, 1, 0))", "sum(CASE WHEN category = 'x' THEN 1 ELSE 0 END)", "round(avg(latitude), 2)",
    "max(length(title))", "avg(size(split(title, ' ')))", "collect_list(pid)", "percentile(geo_accuracy, 0.5)",
]  # fmt: skip

NUMBER_AGGREGATES = [
    "sum(log_perplexity)", "avg(log_perplexity)", "min(log_perplexity)", "max(log_perplexity)",
    "count(log_perplexity)", "count(DISTINCT log_perplexity)", "median(log_perplexity)", "stddev(log_perplexity)",
    "array_sort(collect_set(log_perplexity))", "percentile(log_perplexity, 0.5)",
]  # fmt: skip

QUERIES = [
    "SELECT pid FROM posts ORDER BY latitude, pid",
    "SELECT pid FROM posts ORDER BY latitude DESC, pid",
    "SELECT pid, title AS t FROM posts WHERE category IS NULL ORDER BY t",
    "SELECT category AS c, count(*) AS n FROM posts GROUP BY c HAVING n > 0 ORDER BY n DESC, c",
    "SELECT category, count(*) AS n FROM posts GROUP BY ALL ORDER BY ALL",
    "SELECT DISTINCT category FROM posts ORDER BY category",
    "SELECT p.pid, l.popularity FROM posts p LEFT JOIN labels l ON p.pid = l.pid ORDER BY p.pid",
    "SELECT pid, popularity FROM posts JOIN labels USING (pid) ORDER BY pid",
    "SELECT pid FROM posts p LEFT ANTI JOIN labels l ON p.pid = l.pid ORDER BY pid",
    "SELECT pid FROM posts p LEFT SEMI JOIN labels l ON p.pid = l.pid ORDER BY pid",
    "SELECT pid FROM posts WHERE pid NOT IN (SELECT pid FROM labels) ORDER BY pid",
    "WITH w AS (SELECT uid, count(*) AS n FROM posts GROUP BY uid) SELECT * FROM w ORDER BY uid",
    "SELECT pid, word FROM posts LATERAL VIEW explode(split(title, ' ')) x AS word ORDER BY pid, word",
    "SELECT pid, explode(split(title, ' ')) AS word FROM posts ORDER BY pid, word",
    "SELECT pid, pos, word FROM posts LATERAL VIEW posexplode(split(title, ' ')) x AS pos, word ORDER BY pid, pos",
    "SELECT pid FROM posts UNION ALL SELECT pid FROM labels ORDER BY pid",
    "SELECT category FROM posts INTERSECT SELECT 'x' ORDER BY 1",
    "SELECT category FROM posts EXCEPT SELECT 'x' ORDER BY 1",
    "SELECT category, split, count(*) AS n FROM posts GROUP BY CUBE(category, split) ORDER BY category, split, n",
    "SELECT category, count(*) AS n FROM posts GROUP BY GROUPING SETS ((category), ()) ORDER BY category, n",
    "SELECT pid FROM posts ORDER BY pid LIMIT 2 OFFSET 1",
    "SELECT `pid`, title AS `a title` FROM posts ORDER BY `a title`, pid",
    "SELECT PID, Title FROM POSTS ORDER BY pid",
    "FROM posts SELECT count(*) AS n",
    "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t(n, s) ORDER BY n",
    "SELECT p.pid, (SELECT max(popularity) FROM labels l WHERE l.pid = p.pid) AS m FROM posts p ORDER BY pid",
    "SELECT count(*) AS n FROM smp.posts",
    "SELECT * FROM posts CROSS JOIN labels ORDER BY posts.pid, labels.pid LIMIT 3",
    "SELECT title, length(title) AS n, n * 2 AS twice FROM posts ORDER BY title, pid",
    "SELECT max(title) FROM posts",
    "SELECT count(*) FROM posts",
    "SELECT upper(title) FROM posts ORDER BY pid",
    "SELECT pid, latitude + 1 FROM posts ORDER BY pid",
    "SELECT 1",
]

TABLES = {
    "posts": ("pid", POSTS),
    "user_profiles": ("uid", VECTORS),
    "runs": ("run", MAPS),
    "images": ("image_key", BYTES),
    "perplexities": ("text_key", NUMBERS),
}


def _key(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _rows() -> dict[str, list[dict[str, Any]]]:
    titles = [
        "abc def",
        "",
        "Ünïcode 😀 cat",
        'it\'s a "q"',
        "a\\b",
        "banana  split",
        " lead trail ",
        "12",
        "Abc, x",
        "ZEBRA",
    ]
    categories = ["x", None, "y", "x", None, "a b", "x", "x", "x", ""]
    latitudes = [1.5, None, -3.25, 0.0, 89.9, -0.5, 2.55, None, 45.0, 10.0]
    times = [datetime(2016, 2, 27, 10, 30, 15, 123456, UTC) + timedelta(days=40 * n, hours=n) for n in range(10)]
    posts = [
        {
            "pid": str(n), "split": "train" if n % 3 else "test", "uid": f"u{n % 4}", "event_ts": times[n],
            "known_at": times[n], "title": titles[n], "title_key": _key(titles[n]), "tags": "a b",
            "category": categories[n], "latitude": latitudes[n], "longitude": None if n == 3 else n - 4.0,
            "geo_accuracy": None if n == 2 else 3 * n + 1, "image_size": None if n == 4 else 1000 * n,
            "image_modified_at": None if n == 5 else times[n] + timedelta(days=3, hours=-2),
            "is_public": [True, False, None][n % 3], "image_status": "ok", "source_row": str(n), "row_hash": str(n),
        }
        for n in range(10)
    ]  # fmt: skip
    nan, inf = math.nan, math.inf
    vectors = [[1.0, 2.0, 3.5], [], None, [None, 1.0], [nan, 2.0, 2.0], [-1.0]]
    others = [[1.0, 9.0], [], [1.0], [2.0, 2.0], None, [0.5, 0.5, 0.5]]
    maps = [[("write", 1.5), ("read", 2.0)], [], [("write", 0.5)]]
    return {
        "posts": posts,
        "labels": [{"pid": str(n), "popularity": n + 0.5, "known_at": times[n]} for n in range(0, 8, 2)],
        "user_profiles": [
            {"uid": f"u{n}", "known_at": times[0], "origin": "user_data", "photo_count": n if n < 3 else None,
             "description_vector": vectors[n], "location_vector": others[n]}
            for n in range(6)
        ],
        "runs": [{"run": f"r{n}", "stage": "ingest", "started_at": times[0], "seconds": maps[n]} for n in range(3)],
        "images": [
            {"shard": _key(name)[0], "image_key": _key(name), "bytes": content, "status": "ok"}
            for name, content in (("a", b"a"), ("b", b"\xff\x00\xfe"), ("c", b""))
        ],
        "perplexities": [
            {"shard": _key(str(n))[0], "text_key": _key(str(n)), "log_perplexity": number, "status": "not_finite"}
            for n, number in enumerate([nan, inf, -inf, 1.0, None, 0.0, -2.55])
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root: Path = write_lake(tmp_path_factory.mktemp("dialect") / "lake", _rows())
    return load_config(None, [], root=str(root))


def _alike(value: Any) -> Any:
    """Return a value in which two that are written differently and mean the same are equal."""
    if isinstance(value, list | tuple):
        return [_alike(below) for below in value]
    if isinstance(value, dict):
        return {name: _alike(below) for name, below in value.items()}
    if isinstance(value, float | Decimal):
        return "NaN" if math.isnan(value) else float(f"{value:.9g}")
    return bytes(value) if isinstance(value, bytearray) else value


def _columns(key: str, expressions: list[str]) -> str:
    return ", ".join([key, *(f"{each} AS c{place}" for place, each in enumerate(expressions))])


def _asked() -> dict[str, list[str]]:
    """What is asked, as few queries of many columns: query to what its columns hold."""
    asked = {f"SELECT {_columns(key, each)} FROM {name} ORDER BY {key}": each for name, (key, each) in TABLES.items()}
    none = "'-' AS k"
    asked[f"SELECT {_columns(none, AGGREGATES)} FROM posts"] = AGGREGATES
    asked[f"SELECT {_columns(none, AGGREGATES)} FROM posts WHERE pid = 'none'"] = AGGREGATES
    asked[f"SELECT {_columns('category', AGGREGATES)} FROM posts GROUP BY category ORDER BY category"] = AGGREGATES
    asked[f"SELECT {_columns(none, NUMBER_AGGREGATES)} FROM perplexities"] = NUMBER_AGGREGATES
    return asked


def test_duckdb_answers_as_spark_does(spark, lake):
    for query, expressions in _asked().items():
        ours, theirs = _alike(ask(None, lake, query)), _alike(ask(spark, lake, query))
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            different = [
                f"{expressions[int(name[1:])]}: {one[name]!r}, in Spark {other[name]!r}"
                for name in one
                if name[0] == "c" and name[1:].isdecimal() and one[name] != other[name]
            ]
            assert not different, different
    for query in QUERIES:
        ours, theirs = ask(None, lake, query), ask(spark, lake, query)
        assert _alike([list(row.values()) for row in ours]) == _alike([list(row.values()) for row in theirs]), query


@pytest.mark.parametrize(
    "expression",
    [
        "substring(title, 0, 2)", "hash(title)", "cast(latitude AS int)", "cast(2.5 AS int)", "int(latitude)",
        "cast(title AS int)", "cast(latitude AS string)", "cast(event_ts AS bigint)", "dayofweek(event_ts)",
        "weekday(event_ts)", "extract(DOW FROM event_ts)", "date_add(event_ts, 3)", "add_months(event_ts, 1)",
        "months_between(event_ts, known_at)", "base64(cast(title AS binary))", "format_string('%d', geo_accuracy)",
        "typeof(latitude)", "regexp_instr(title, 'a')", "array_size(split(title, ' '))", "floor(latitude)",
        "ceil(latitude)", "sign(latitude)", "latitude || 'x'", "concat('x', latitude)", "concat_ws(',', latitude / 2)",
        "split(title, ' ')[geo_accuracy]", "split(title, ' ')[-1]", "title LIKE 'a\\\\_b'", "title LIKE category",
        "date_format(event_ts, 'EEE q')", "date_trunc('quarterly', event_ts)", "percentile_approx(latitude, 0.5)",
        "skewness(latitude)", "corr(latitude, longitude)", "max(struct(latitude, title))", "first(title)",
        "exists(split(title, ' '), w -> w = 'a')", "transform(split(title, ' '), (w, i) -> w)",
        "array_distinct(array(1))",
        "aggregate(array(1), 0, (a, v) -> a + v, a -> a * 2)", "collect_list(pid) OVER ()",
        "array_join(array(1.5), ',')",
    ],
)  # fmt: skip
def test_what_duckdb_would_answer_otherwise_is_refused_with_the_way_to_ask_spark(expression):
    kinds = {"title": "string", "category": "string", "latitude": "double", "longitude": "double",
             "event_ts": "timestamp", "known_at": "timestamp", "geo_accuracy": "int", "pid": "string"}  # fmt: skip
    with pytest.raises(UsageError, match=r"is not known to answer .* as Spark does\. `--engine spark` asks Spark\."):
        understand(f"SELECT {expression} FROM posts", ["posts"], "smp", lambda _: kinds)


def test_columns_without_a_name_get_the_one_that_spark_gives_them():
    sql = understand("SELECT count(*), upper(title), pid FROM posts GROUP BY ALL", ["posts"], "smp").sql
    assert 'AS "count(1)"' in sql and 'AS "upper(title)"' in sql


def test_deeply_nested_queries_are_one_line():
    with pytest.raises(UsageError) as caught:
        understand("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, [], "smp")
    assert "\n" not in str(caught.value)
