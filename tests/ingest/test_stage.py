"""Ingest makes the tables hold what the source says, reads only what changed, and refuses before it writes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from small_source import EVENT, EXTRA, POSTS, Source, everything_under, make_post, picture

from smp_features.config import load_config
from smp_features.errors import ReconciliationError, SourceError, StageError
from smp_features.ingest import image_intake, stage
from smp_features.ingest.scan import ScanResult
from smp_features.ingest.stage import (
    check_stored,
    external_profiles,
    ingest,
    own_profiles,
    reconcile,
)
from smp_features.ingest.staged import EXTERNAL_COUNTS, PROFILE_FIELDS
from smp_features.lake.specs import KNOWN_LATE, USER_PROFILES
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary


@pytest.fixture
def source(tmp_path: Path, lakehouse: Lakehouse) -> Source:
    """The folder, and an empty lakehouse to ingest it into."""
    return Source(tmp_path / "posts", lakehouse).make()


@pytest.fixture(scope="module")
def first_run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Summary]:
    """The folder, ingested once; tests read it and change copies of it."""
    base = tmp_path_factory.mktemp("ingested")
    lakehouse = Lakehouse(spark, load_config(None, [], root=str(base / "lake")))
    source = Source(base / "posts", lakehouse).make()
    return source, source.ingest()


@pytest.fixture
def ingested(first_run: tuple[Source, Summary], tmp_path: Path) -> Source:
    """A copy of the ingested folder and of its lakehouse."""
    original = first_run[0]
    shutil.copytree(original.folder.parent, tmp_path / "copy")  # keeps the times of the files
    config = load_config(None, [], root=str(tmp_path / "copy" / "lake"))
    return Source(tmp_path / "copy" / "posts", Lakehouse(original.lakehouse.session, config))


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of image files that each ingest read."""
    counted: list[int] = []

    def counting(lakehouse: Lakehouse, area: Any, todo: Any, files: int, size: int) -> None:
        counted.append(files)
        image_intake.read_images(lakehouse, area, todo, files, size)

    monkeypatch.setattr("smp_features.ingest.stage.read_images", counting)
    return counted


def at(seconds: float) -> datetime:
    """Return a time as Spark hands it to Python: naive, in the zone of the Python process."""
    return datetime.fromtimestamp(seconds)


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver in another time zone than the session's."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def test_the_tables_hold_what_the_source_says(first_run: tuple[Source, Summary]) -> None:
    source, summary = first_run
    assert (summary.wanted, summary.ok, summary.failed, summary.computed) == (12, 9, 3, 9)
    assert summary.reconciles and summary.outcome == "done"

    posts = source.rows("posts", "pid")
    assert {pid: post["image_status"] for pid, post in posts.items()} == {
        "1": "ok",
        "2": "ok",
        "3": "ok",
        "4": "empty",
        "5": "truncated",
        "6": "path_refused",
        "7": "missing",
        "11": "ok",
        "12": "ok",
    }
    assert posts["1"]["image_key"] == posts["3"]["image_key"] != posts["2"]["image_key"]
    assert [posts[pid]["image_key"] for pid in ("4", "6", "7")] == [None] * 3
    assert posts["1"]["event_ts"] == posts["1"]["known_at"] == at(EVENT + 1)
    assert posts["1"]["image_size"] == len(picture("red"))
    assert (posts["2"]["title"], posts["2"]["path_alias"]) == ("", None)

    images = source.rows("images", "image_key")
    assert len(images) == 5
    red = images[posts["1"]["image_key"]]
    assert (bytes(red["bytes"]), red["width"], red["height"], red["status"]) == (picture("red"), 8, 6, "ok")
    assert images[posts["5"]["image_key"]]["status"] == "truncated"

    texts = {row["text"] for row in source.rows("texts", "text_key").values()}
    assert texts == {"", "lone \ufffd surrogate", *(f"Title {n}" for n in (1, 4, 5, 6, 11, 12))}

    labels = source.rows("labels", "pid")
    assert {pid: row["popularity"] for pid, row in labels.items()} == {str(n): n + 0.5 for n in range(1, 8)}
    assert labels["1"]["known_at"] == at(EVENT + 1 + 30 * 86_400)

    profiles = {
        (row["uid"], row["origin"], row["known_at"]): row for row in source.lakehouse.read("user_profiles").collect()
    }
    assert len(profiles) == 10
    assert profiles["1@N01", "user_data", at(EVENT + 6)]["photo_count"] == 6
    assert profiles["1@N01", "user_data", at(EVENT + 1)]["assumed"] is True
    assert len(profiles["4@N01", "user_data", at(EVENT + 4)]["description_vector"]) == 399
    assert profiles["5@N01", "user_data", at(EVENT + 5)]["description"] == "I like snow"
    external = profiles["1@N01", "external", at(KNOWN_LATE.timestamp())]
    assert (external["external_views"], external["external_followings"], external["assumed"]) == (1, 8, True)

    refused = {row["source_row"]: row["reason"] for row in source.lakehouse.read("quarantine").collect()}
    assert refused == {"train:8": "duplicate_pid", "train:9": "bad_time", "train:10": "bad_label"}
    assert not (Path(source.lakehouse.config.root) / "staging").exists()


def test_a_second_run_reads_no_image_and_writes_no_version(
    ingested: Source, files_read: list[int], tokyo: None
) -> None:
    source = ingested
    before = source.versions()
    for path in (source.folder / "images").rglob("*.png"):
        # The same path, size and time with other bytes: were a file read again, its key would change.
        times, size = path.stat(), path.stat().st_size
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    summary = source.ingest()
    assert (summary.outcome, summary.computed, summary.versions_written) == ("nothing_to_do", 0, {})
    assert (summary.wanted, summary.ok, summary.failed) == (12, 9, 3)
    assert source.versions() == before
    assert files_read == []


def test_what_changed_is_read_and_written_and_nothing_else(ingested: Source, files_read: list[int]) -> None:
    source = ingested
    before = source.versions()
    images = source.folder / "images" / "train"
    (images / "8.png").write_bytes(picture("white"))
    (images / "2.png").unlink()
    changed = (make_post(1, Title="A new title"), *POSTS[1:6], make_post(8, path="train/8.png"))
    source.write("train", *changed)
    summary = source.ingest("source.known_at.user_additional=2019-06-01")
    assert files_read == [1]
    posts, labels = source.rows("posts", "pid"), source.rows("labels", "pid")
    assert posts["1"]["title"] == "A new title" and posts["8"]["image_status"] == "ok"
    assert (posts["2"]["image_status"], posts["2"]["image_key"], posts["2"]["image_size"]) == ("missing", None, None)
    assert "7" not in posts and "7" not in labels, "a post that left the source leaves the table"
    assert summary.computed == 3
    assert len(source.rows("images", "image_key")) == 6 and len(source.rows("texts", "text_key")) == 10
    external = [row for row in source.lakehouse.read("user_profiles").collect() if row["origin"] == "external"]
    assert [(row["known_at"], row["assumed"]) for row in external] == [
        (at(datetime(2019, 6, 1, tzinfo=UTC).timestamp()), False)
    ]
    assert source.versions()["quarantine"] == before["quarantine"], "a refusal is noted once"


def test_a_pilot_reads_the_first_rows_and_removes_none(ingested: Source) -> None:
    summary = ingested.ingest("source.limit=2")
    assert (summary.wanted, summary.ok, summary.outcome) == (4, 4, "nothing_to_do")
    assert len(ingested.rows("posts", "pid")) == 9


STAGED = "uid string, event_ts timestamp, path_alias string, " + ", ".join(
    f"{column.name} {column.sql_type}" for column in USER_PROFILES.columns if column.name in PROFILE_FIELDS
)


def staged(spark: SparkSession, *posts: dict[str, Any]) -> DataFrame:
    schema = spark.createDataFrame([], STAGED).schema
    return spark.createDataFrame([tuple(post.get(name) for name in schema.names) for post in posts], schema)


def test_profiles_of_one_second_become_one_row_whatever_their_order(spark: SparkSession) -> None:
    same = {"uid": "a", "event_ts": at(EVENT)}
    posts = [same | {"photo_count": 5, "is_pro": True}, same | {"photo_count": 4, "is_pro": True}, same]
    for ordered in (posts, posts[::-1]):
        (row,) = own_profiles(staged(spark, *ordered)).collect()
        assert (row["uid"], row["known_at"], row["photo_count"]) == ("a", at(EVENT), 4)


def test_an_alias_that_two_users_share_is_nobodys_and_the_latest_of_several_counts(spark: SparkSession) -> None:
    posts = staged(
        spark,
        {"uid": "a", "event_ts": at(EVENT), "path_alias": "shared"},
        {"uid": "b", "event_ts": at(EVENT), "path_alias": "shared"},
        {"uid": "c", "event_ts": at(EVENT), "path_alias": "old"},
        {"uid": "c", "event_ts": at(EVENT + 1), "path_alias": "new"},
    )
    counts = [(alias, *[n] * 8) for n, alias in enumerate(("shared", "old", "new"), 1)]
    external = spark.createDataFrame(counts, ["alias", *EXTERNAL_COUNTS])
    (row,) = external_profiles(posts, external, None).collect()
    assert (row["uid"], row["external_views"]) == ("c", 3)


def test_a_dry_run_says_what_it_found_and_writes_nothing(source: Source) -> None:
    root = Path(source.lakehouse.config.root)
    before = everything_under(root)
    summary = source.ingest(dry_run=True)
    assert (summary.wanted, summary.ok, summary.failed, summary.computed) == (12, 9, 3, 0)
    said = "\n".join(summary.details)
    for words in ("train: 10 rows, 7 posts, 3 quarantined", "list of records", "path_refused 1", "bad_label 1"):
        assert words in said
    assert everything_under(root) == before


def truncate(source: Source) -> None:
    path = source.folder / "test_allmetadata_json" / "test_user_data.json"
    path.write_text(path.read_text()[:-30])


def misalign(source: Source) -> None:
    path = source.folder / "test_allmetadata_json" / "test_text.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(truncate, r"test_user_data\.json:1: .*truncated"), (misalign, r"test_text\.json: record 1 has Pid 12")],
)
def test_a_damaged_source_is_refused_before_anything_is_written(
    source: Source, damage: Callable[[Source], None], words: str
) -> None:
    damage(source)
    root = Path(source.lakehouse.config.root)
    before = everything_under(root)
    with pytest.raises(SourceError, match=words):
        source.ingest()
    assert everything_under(root) == before


def test_too_many_refused_rows_fail_the_run_and_change_no_post(source: Source) -> None:
    with pytest.raises(
        StageError, match=r"3 of 12 source rows are refused .* more than source.max_refused_share = 0.2"
    ):
        source.ingest("source.max_refused_share=0.2")
    assert source.lakehouse.read("posts").count() == 0
    assert source.lakehouse.read("quarantine").count() == 3


def test_bad_lines_of_the_profile_file_are_quarantined_counted_and_limited(ingested: Source) -> None:
    path = ingested.folder / "user_additional.txt"
    good = path.read_text()
    path.write_bytes(good.encode() + b"\nalias2 1 2 3\n\xff 1 2 3 4 5 6 7 8\n")
    with pytest.raises(StageError, match=r"2 of 4 external profiles are refused \(bad_profile 2\), more than"):
        ingested.ingest(dry_run=True)
    said = "\n".join(ingested.ingest("source.max_refused_share=0.5", dry_run=True).details)
    assert "external profiles: 2; quarantined: bad_profile 2" in said
    path.write_bytes(good.encode() + b"\nalias2 1 2 3\n")
    summary = ingested.ingest()
    assert (summary.wanted, summary.ok, summary.failed) == (12, 9, 3) and set(summary.versions_written) == {
        "quarantine"
    }
    assert ingested.rows("quarantine", "source_row")["user_additional.txt:4"]["reason"] == "bad_profile"


def test_rows_that_do_not_add_up_fail_the_run(first_run: tuple[Source, Summary]) -> None:
    lakehouse = first_run[0].lakehouse
    posts = lakehouse.read("posts")
    assert reconcile(lakehouse, posts, ScanResult(posts=Counter(train=9)))["ok"] == 5
    with pytest.raises(
        ReconciliationError, match="10 usable source rows, 9 joined with their images, 9 in table posts"
    ):
        reconcile(lakehouse, posts, ScanResult(posts=Counter(train=10)))
    eight = posts.orderBy("pid").limit(8)
    twice = eight.union(eight.limit(1))
    with pytest.raises(ReconciliationError, match="9 usable source rows, 9 joined with their images, 9 in table posts"):
        reconcile(lakehouse, twice, ScanResult(posts=Counter(train=9)))
    check_stored(lakehouse, ScanResult(posts=Counter(train=8)), mirror=False)
    with pytest.raises(ReconciliationError, match="8 usable source rows, 8 joined with their images, 9 in table posts"):
        check_stored(lakehouse, ScanResult(posts=Counter(train=8)), mirror=True)


def test_counts_are_reconciled_before_a_table_is_brought_to_them(
    ingested: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ingested.versions()
    ingested.write("train", POSTS[0], make_post(2, Title="changed"), *POSTS[2:], *EXTRA)
    made = stage._posts
    monkeypatch.setattr(stage, "_posts", lambda *given: made(*given).limit(8))
    with pytest.raises(ReconciliationError, match="9 usable source rows, 8 joined"):
        ingested.ingest()
    assert ingested.versions() == before
    assert not (Path(ingested.lakehouse.config.root) / "staging").exists()


def test_a_root_given_as_an_address_of_a_folder_is_that_folder(ingested: Source) -> None:
    (ingested.folder / "images" / "train" / "2.png").write_bytes(picture("purple"))
    root = Path(ingested.lakehouse.config.root)
    config = load_config(None, ["source.max_refused_share=0.3", f"source.path={ingested.folder}"], root=root.as_uri())
    summary = ingest(ingested.lakehouse.session, config, run="run-2")
    assert (summary.ok, summary.computed) == (9, 1)
    assert set(summary.versions_written) == {"posts", "images"}
    assert not list((root / "staging").rglob("*.parquet"))
