"""Reading a root without Spark: the tables rightly or not at all, nothing else, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake

from benchmarks.plain_lake import append, write_lake
from smp_features.config import Config, load_config
from smp_features.errors import StageError, UsageError
from smp_features.lake import specs
from smp_features.lake.query import ask, describe_tables
from smp_features.lake.readers import RootReader, distinct_names, open_reader, session_for
from smp_features.status import errors_of, status_of

SESSION: Any = object()
AT = datetime(2016, 3, 1, 10, 30, tzinfo=UTC)


def _post(pid: str, title: str, **fields: object) -> dict[str, object]:
    return {
        "pid": pid, "split": "train", "uid": "u", "event_ts": AT, "known_at": AT, "title": title, "title_key": pid * 64,
        "tags": "", "image_status": "ok", "source_row": f"train:{pid}", "row_hash": pid, **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three posts, read by all tests that change nothing."""
    posts = [_post("a", "red cat"), _post("b", "", latitude=1.5), _post("c", "blue dog", image_key="d" * 64)]
    return write_lake(
        tmp_path_factory.mktemp("root") / "lake",
        {
            "posts": posts,
            "labels": [{"pid": "a", "popularity": 2.5, "known_at": AT}],
            "texts": [{"shard": key, "text_key": key * 64, "text": "x"} for key in "abc"],
            "images": [{"shard": "d", "image_key": "d" * 64, "bytes": b"\xff\x00", "status": "ok"}],
            "runs": [{"run": "r", "stage": "ingest", "started_at": AT, "finished_at": AT, "outcome": "done",
                      "seconds": [("write", 1.5)], "message": "m"}],
        },
    )  # fmt: skip


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy of that lake, to be changed."""
    return Path(shutil.copytree(root, tmp_path / "lake"))


def _config(root: Path | str) -> Config:
    return load_config(None, [], root=str(root))


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_tables_are_asked_by_their_plain_names_in_any_case(root):
    config = _config(root)
    assert ask(None, config, "SELECT p.pid, popularity FROM Posts p JOIN smp.labels USING (PID)") == [
        {"pid": "a", "popularity": 2.5}
    ]
    assert ask(None, config, "SELECT event_ts, latitude FROM posts WHERE pid = 'b'") == [
        {"event_ts": AT.replace(tzinfo=None), "latitude": 1.5}
    ]
    assert ask(None, config, "SELECT shard, text_key FROM texts ORDER BY shard DESC LIMIT 1")[0]["shard"] == "c"
    assert ask(None, config, "SELECT a.pid, b.pid FROM posts a JOIN posts b ON a.pid = b.pid WHERE a.pid = 'a'") == [
        {"pid": "a", "pid_1": "a"}
    ]
    assert {"col_name": "pid", "data_type": "string", "comment": None} in ask(None, config, "DESCRIBE posts")
    assert [row["tableName"] for row in ask(None, config, "SHOW TABLES")] == list(RootReader(config).tables)


@pytest.mark.parametrize(
    "query",
    [
        # that write
        "INSERT OVERWRITE DIRECTORY '/tmp/x' SELECT * FROM posts", "INSERT INTO posts SELECT * FROM posts",
        "DROP TABLE posts", "DELETE FROM posts", "UPDATE posts SET title = ''", "CREATE TABLE x AS SELECT 1",
        "CREATE TEMPORARY VIEW v USING csv OPTIONS (path '/etc/passwd')", "MERGE INTO posts USING labels ON true",
        "COPY (SELECT 1) TO '/tmp/x'", "COPY INTO posts FROM '/x'", "EXPORT DATABASE '/tmp/x'", "TRUNCATE TABLE posts",
        "ALTER TABLE posts ADD COLUMNS (x int)", "OPTIMIZE posts", "VACUUM posts", "CACHE TABLE posts",
        "WITH t AS (SELECT 1) INSERT INTO posts SELECT * FROM t",
        # that read elsewhere
        "SELECT * FROM parquet.`/etc/passwd`", "SELECT * FROM csv.`/etc/passwd`", "SELECT * FROM delta.`/tmp`",
        "SELECT * FROM text.`/etc/passwd`", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_parquet('/x')", "SELECT * FROM glob('/*')",
        "SELECT * FROM read_files('/etc/passwd')", "SELECT * FROM parquet_scan('/x')", "SELECT * FROM sniff_csv('/x')",
        "SELECT * FROM read_blob('/etc/passwd')", "SELECT * FROM information_schema.tables",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('posts')", "SELECT * FROM pragma_version()",
        "SELECT getenv('HOME')", "SELECT current_setting('home_directory')", "SELECT '${env:HOME}'",
        "SELECT * FROM `table://0.parquet`", "SELECT * FROM other.posts", "SELECT * FROM a.smp.posts",
        "SELECT pid FROM posts WHERE pid IN (SELECT column0 FROM read_csv('/etc/passwd'))",
        "WITH t AS (SELECT * FROM csv.`/etc/passwd`) SELECT * FROM t",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "SELECT * FROM posts VERSION AS OF 0", "TABLE posts; SELECT 1",
        # that run or change something else
        "SELECT reflect('java.lang.System', 'getenv', 'HOME')", "SELECT java_method('java.lang.Math', 'abs', 1)",
        "SELECT TRANSFORM(pid) USING 'cat' FROM posts", "SET x = 1", "SET enable_external_access = true", "RESET x",
        "PRAGMA database_list", "ATTACH '/tmp/x.db'", "INSTALL httpfs", "LOAD httpfs", "ADD JAR '/tmp/x.jar'", "USE x",
        "CALL pragma_version()", "CREATE FUNCTION f AS 'x'", "SELECT my_udf(pid) FROM posts", "SELECT 1; SELECT 2", "",
        ";",
    ],
)  # fmt: skip
def test_what_is_not_a_select_over_the_tables_is_refused_and_does_nothing(root, query):
    before = _snapshot(root)
    with pytest.raises(UsageError) as caught:
        ask(None, _config(root), query)
    assert "\n" not in str(caught.value)
    assert _snapshot(root) == before


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{root}/tables/posts/x.parquet'", "COPY (SELECT 1) TO 'table://0.parquet'",
        "COPY (SELECT 1) TO 'table://x.parquet'", "EXPORT DATABASE '{root}/x'", "ATTACH '{root}/x.db'",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_text('{root}/tables/posts/_delta_log/*.json')",
        "SELECT * FROM '{root}/tables/posts/*.parquet'", "SELECT * FROM glob('/*')",
        "INSTALL httpfs", "SET enable_external_access = true", "SET allowed_directories = ['/']",
        "RESET allowed_directories",
    ],
)  # fmt: skip
def test_the_engine_itself_can_neither_write_nor_read_another_file(root, query):
    duck = RootReader(_config(root)).duck
    assert duck.rows("SELECT COUNT(*) AS n FROM posts", ["posts"]) == [{"n": 3}]
    before = _snapshot(root)
    with pytest.raises(duck.failures):
        duck.rows(query.format(root=root), [])
    assert _snapshot(root) == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT titel FROM posts", "There is no column 'titel' in posts. Did you mean 'title'?"),
        ("SELECT p.titel FROM posts p", "There is no column 'titel' in posts. Did you mean 'title'?"),
        ("SELECT * FROM post", "There is no table 'post'. Did you mean 'posts'?"),
        ("SELECT count(pid FROM posts", "The query is not valid SQL"),
        ("SELECT * FROM postes JOIN labels", "There is no table 'postes'. Did you mean 'posts'?"),
        ("DESCRIBE post", "There is no table 'post'"),
        ("SELECT xpath_string(title, 'a') FROM posts", "DuckDB, which reads this root, is not known to answer"),
        ("EXPLAIN SELECT 1", "`--engine spark` asks Spark."),
        ("SELECT title + 1 FROM posts", "The query failed in DuckDB"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_nearest_name_or_the_engine(root, query, said):
    with pytest.raises(UsageError) as caught:
        ask(None, _config(root), query)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_every_table_is_listed_with_its_rows_and_version(root):
    listed = {row["table"]: row for row in describe_tables(None, _config(root))}
    assert list(listed) == list(RootReader(_config(root)).specs)
    assert (listed["posts"]["rows"], listed["posts"]["version"], listed["attempts"]["rows"]) == (3, 1, 0)


COMMANDS = {
    "sql": lambda config: ask(None, config, "SELECT 1"),
    "status": lambda config: status_of(None, config),
    "errors": lambda config: errors_of(None, config),
    "tables": lambda config: describe_tables(None, config),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_root_that_is_none_is_refused_and_not_created(tmp_path, command):
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match=r"There are no tables under .*smp run"):
            command(_config(place))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("layout", "said"), [("1", "earlier version .* Run `smp migrate`"), ("3", "a later version")])
def test_a_lake_of_another_layout_is_refused_by_every_command(own, command, layout, said):
    log = own / "tables" / "extractors" / "_delta_log" / f"{0:020d}.json"
    log.write_text(log.read_text().replace('"smp.layout":"2"', f'"smp.layout":"{layout}"'))
    with pytest.raises(UsageError, match=said):
        command(_config(own))


def _change_metadata(root: Path, table: str, protocol: dict[str, object], **configuration: str) -> None:
    """Commit what another writer would: a higher protocol, and properties."""
    log = root / "tables" / table / "_delta_log"
    lines = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
    [metadata] = [line["metaData"] for line in lines if "metaData" in line]
    metadata["configuration"] |= configuration
    following = max(int(path.stem) for path in log.glob("*.json")) + 1
    (log / f"{following:020d}.json").write_text(
        "".join(json.dumps(line) + "\n" for line in ({"protocol": protocol}, {"metaData": metadata}))
    )


def _features(*names: str) -> dict[str, object]:
    return {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": list(names), "writerFeatures": list(names)}


@pytest.mark.parametrize(
    ("protocol", "configuration", "named"),
    [
        (_features("deletionVectors"), {"delta.enableDeletionVectors": "true"}, "deletionVectors"),
        (_features("columnMapping"), {"delta.columnMapping.mode": "name"}, "columnMapping"),
        ({"minReaderVersion": 2, "minWriterVersion": 5}, {"delta.columnMapping.mode": "name"}, "columnMapping"),
        (_features("typeWidening"), {}, "typeWidening"),
        (_features("ofTheFuture"), {}, "ofTheFuture"),
    ],
)
def test_a_table_whose_files_are_not_its_rows_is_refused_and_never_read_wrongly(own, protocol, configuration, named):
    _change_metadata(own, "posts", protocol, **configuration)
    with pytest.raises(StageError, match=r"posts .*" + named + r".*--engine spark") as caught:
        ask(None, _config(own), "SELECT count(*) FROM posts")
    assert "\n" not in str(caught.value)
    assert ask(None, _config(own), "SELECT count(*) AS n FROM labels") == [{"n": 1}]


def test_check_constraints_and_harmless_features_are_read(own):
    _change_metadata(own, "posts", _features("timestampNtz") | {"writerFeatures": ["timestampNtz", "checkConstraints"]},
                     **{"delta.constraints.pid_not_empty": "length(pid) > 0"})  # fmt: skip
    assert ask(None, _config(own), "SELECT count(*) AS n FROM posts") == [{"n": 3}]


def test_only_the_files_that_the_log_names_are_read(own):
    posts = own / "tables" / "posts"
    [file] = posts.glob("*.parquet")
    shutil.copy(file, posts / "part-99999.parquet")  # a killed writer's, or one that is deleted in the log
    write_deltalake(str(own / "tables" / "labels"), _labels("z"), mode="overwrite")
    assert ask(None, _config(own), "SELECT count(*) AS n FROM posts") == [{"n": 3}]
    assert ask(None, _config(own), "SELECT pid FROM labels") == [{"pid": "z"}]


def _labels(pid: str):
    import pyarrow as pa

    return pa.table(
        {"pid": [pid], "popularity": [1.0], "known_at": [AT]}, schema=specs.arrow_schema(specs.LABELS.columns)
    )


def test_a_column_that_was_added_is_null_in_the_files_of_before(own):
    import pyarrow as pa

    wider = _labels("z").append_column("note", pa.array(["new"]))
    write_deltalake(str(own / "tables" / "labels"), wider, mode="append", schema_mode="merge")
    assert ask(None, _config(own), "SELECT pid, note FROM labels ORDER BY pid") == [
        {"pid": "a", "note": None}, {"pid": "z", "note": "new"},
    ]  # fmt: skip


def test_partitions_come_from_the_log_and_not_from_the_path(root, tmp_path):
    place = tmp_path / "shard=x" / "pid=y" / "[a*?]'q\" ü"
    place.parent.mkdir(parents=True)
    shutil.copytree(root, place)
    config = _config(place)
    assert ask(None, config, "SELECT DISTINCT shard FROM texts ORDER BY shard") == [{"shard": key} for key in "abc"]
    assert ask(None, config, "SELECT shard, pid FROM texts JOIN posts ON title_key = text_key WHERE shard = 'b'") == [
        {"shard": "b", "pid": "b"}
    ]


def test_a_file_or_log_that_is_gone_is_named(own):
    [file] = (own / "tables" / "posts").glob("*.parquet")
    file.unlink()
    with pytest.raises(StageError, match=f"Table posts names a file that is not there: .*{file.name}"):
        ask(None, _config(own), "SELECT title FROM posts")
    log = own / "tables" / "labels" / "_delta_log"
    commits = sorted(log.glob("*.json"))
    commits[-1].write_text(commits[-1].read_text()[:40])
    with pytest.raises(StageError, match=r"Table labels under .* cannot be read") as caught:
        ask(None, _config(own), "SELECT * FROM labels")
    assert "\n" not in str(caught.value)
    shutil.rmtree(own / "tables" / "attempts")
    with pytest.raises(StageError, match=r"Table attempts does not exist under .* Run `smp ingest` first\."):
        status_of(None, _config(own))
    with pytest.raises(UsageError, match="There is no table 'attempts'"):
        ask(None, _config(own), "SELECT * FROM attempts")


@pytest.mark.parametrize(
    "elsewhere",
    [{"root": "s3://bucket/lake"}, {"root": "abfss://c@a.dfs.core.windows.net/lake"}, {"catalog": "main"}],
    ids=["s3", "abfss", "catalog"],
)
def test_an_object_store_and_a_catalog_are_read_through_spark(elsewhere):
    config = Config(**elsewhere)
    assert session_for(config, "auto", lambda _: SESSION) is SESSION
    with pytest.raises(UsageError, match=r"a folder.*--engine spark"):
        open_reader(config)


def test_a_folder_is_read_through_spark_only_when_asked():
    assert session_for(Config(root="lake"), "auto", lambda _: SESSION) is None
    assert session_for(Config(root="lake"), "duckdb", lambda _: SESSION) is None
    assert session_for(Config(root="lake"), "spark", lambda _: SESSION) is SESSION


BLOCKED = (
    "pyspark",
    "py4j",
    "delta",
    "torch",
    "mlflow",
    "transformers",
    "matplotlib",
    "open_clip",
    "sklearn",
    "pandas",
)

WITHOUT = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Blocked())
sys.argv = ["smp", *sys.argv[1:]]
from smp_features.cli import main
main()
"""


@pytest.mark.parametrize(
    "command", [["status", "--json"], ["errors"], ["tables"], ["sql", "SELECT count(*) AS n FROM posts"]]
)
def test_reading_commands_import_neither_spark_nor_a_model_library_and_no_java_is_started(root, tmp_path, command):
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": "/nowhere"}
    before = _snapshot(root)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command, "--root", str(root)],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert _snapshot(root) == before and not list(tmp_path.iterdir())


def test_columns_of_one_name_stay_apart_whatever_they_are_called():
    assert distinct_names(["a", "a", "a_1", "a"]) == ["a", "a_2", "a_1", "a_3"]


def test_many_versions_and_files_are_one_table(own):
    for number in range(12):
        append(own, specs.LABELS, [{"pid": f"n{number}", "popularity": float(number), "known_at": AT}])
    assert ask(None, _config(own), "SELECT count(*) AS n, max(popularity) AS top FROM labels") == [
        {"n": 13, "top": 11.0}
    ]
