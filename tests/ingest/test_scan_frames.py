"""A source that Spark reads is checked, counted and staged by Spark: the driver sees counts, never posts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyspark.sql import DataFrame, SparkSession

from smp_features import plugins
from smp_features.config import Config, load_config
from smp_features.errors import SourceError, StageError
from smp_features.ingest.stage import ingest
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary
from smp_features.sources.base import Frames, FrameSource, ImageRoot, RowSource, Split

EVENT = 1_425_168_000_000_000
TRAIN, TEST, PICTURES = 1_600, 400, 12


def made_posts() -> list[dict[str, Any]]:
    """2,000 good posts, then six that are not."""
    posts: list[dict[str, Any]] = [
        {
            "pid": str(n),
            "uid": f"user{n % 300}" if n < TRAIN else f"user{n % 600}",
            "split": "train" if n < TRAIN else "test",
            "event_ts": EVENT + n * 1_000_000,
            "popularity": (n % 60) + 0.25 if n < TRAIN else None,
            "title": f"title {n % 50}" if n % 10 else None,
            "category": "Pets" if n % 3 else None,
            "path_alias": f"alias{n % 300}" if n % 600 < 300 else None,
            "image_path": f"{n}.png" if n % 4 == 0 else None,
            "photo_count": n % 300 if n % 7 else None,
            "description_vector": [0.5, float(n % 300)] if n % 5 == 0 else None,
            "source_row": f"row {n:04}",
        }
        for n in range(TRAIN + TEST)
    ]
    wrong: list[dict[str, Any]] = [
        posts[3],
        posts[3] | {"title": "another"},
        posts[3] | {"popularity": 9.0},
        posts[5] | {"pid": None},
        posts[5] | {"pid": "x", "event_ts": 0},
        posts[5] | {"pid": "y", "popularity": 70.0},
    ]
    return posts + [row | {"source_row": f"wrong {n}", "split": "train"} for n, row in enumerate(wrong)]


SCHEMA = (
    "pid string, uid string, split string, event_ts bigint, popularity double, title string, category string, "
    "path_alias string, image_path string, photo_count bigint, description_vector array<float>, source_row string"
)
EXTERNAL = [("alias1", 7), ("alias1", 9), ("alias2", 3), (None, 1)]


class ParquetPosts(FrameSource):
    """A table of posts in Parquet files."""

    def check(self) -> None:
        if not Path(str(self.settings.path)).is_dir():
            raise SourceError(f"{self.place} is not there.")

    def image_root(self, split: Split) -> ImageRoot:
        return ImageRoot(Path(str(self.settings.path)).parent / "pictures")

    def frames(self, session: SparkSession) -> Frames:
        external = session.createDataFrame(EXTERNAL, "alias string, external_views int")
        return Frames(session.read.parquet(str(self.settings.path)), external)


class ListedPosts(RowSource):
    """The same posts, one by one."""

    splits = ("train", "test")  # type: ignore[assignment]

    def check(self) -> None:
        pass

    def image_root(self, split: Split) -> ImageRoot:
        return ImageRoot(Path(str(self.settings.path)).parent / "pictures")

    def rows(self, split: Split) -> Iterator[Any]:
        yield from ({k: v for k, v in row.items() if k != "split"} for row in made_posts() if row["split"] == split)

    def external_profiles(self) -> Iterator[Any]:
        yield from ({"alias": alias, "external_views": views} for alias, views in EXTERNAL if alias)


def find_test_kinds(patched: pytest.MonkeyPatch, parquet: type[FrameSource] | None = None) -> None:
    found = {"parquet": parquet or ParquetPosts, "listed": ListedPosts}
    find = plugins.find
    patched.setattr(plugins, "find", lambda group, kind, setting: found.get(kind) or find(group, kind, setting))


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    find_test_kinds(monkeypatch)


@pytest.fixture(scope="module")
def table(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The posts as Parquet files, in no order, and a few pictures beside them."""
    folder = tmp_path_factory.mktemp("frames")
    rows = [tuple(row[name.split()[0]] for name in SCHEMA.split(", ")) for row in made_posts()]
    spark.createDataFrame(rows, SCHEMA).repartition(5, "title").write.parquet(str(folder / "posts"))
    (folder / "pictures").mkdir()
    for n in range(PICTURES):  # of both halves by turns
        Image.new("RGB", (8, 6), (n % 3, 0, 0)).save(folder / "pictures" / f"{4 * n + n % 2 * TRAIN}.png")
    return folder / "posts"


def configured(table: Path, root: str, kind: str = "parquet", *overrides: str) -> Config:
    return load_config(None, [f"source.kind={kind}", f"source.path={table}", *overrides], root=root)


@dataclass
class Ingested:
    """The frames, ingested once: what was said, and columns and number of all rows that came to the driver."""

    lakehouse: Lakehouse
    config: Config
    summary: Summary
    collected: list[tuple[list[str], int]]


@pytest.fixture(scope="module")
def ingested(spark: SparkSession, table: Path) -> Ingested:
    collected: list[tuple[list[str], int]] = []
    collect = DataFrame.collect

    def counting(frame: DataFrame) -> Any:
        rows = collect(frame)
        collected.append((frame.columns, len(rows)))
        return rows

    def refuse(frame: DataFrame, *_: Any) -> Any:
        raise AssertionError(f"{frame.columns} come to the driver")

    with pytest.MonkeyPatch.context() as patched:
        find_test_kinds(patched)
        patched.setattr(DataFrame, "collect", counting)
        for name in ("toPandas", "toLocalIterator", "take", "tail"):
            patched.setattr(DataFrame, name, refuse)
        config = configured(table, str(table.parent / "lake"))
        summary = ingest(spark, config, run="run-1")
    return Ingested(Lakehouse(spark, config), config, summary, collected)


def contents(lakehouse: Lakehouse, table: str) -> set[str]:
    return {str(row) for row in lakehouse.read(table).drop("row_hash", "run").collect()}


def test_no_post_passes_through_the_driver(ingested: Ingested) -> None:
    summary, collected = ingested.summary, ingested.collected
    assert (summary.wanted, summary.ok, summary.failed, summary.computed) == (2_006, 2_000, 6, 2_000)
    # What came: counts by group, one row each, and what was read from the few pictures.
    assert collected and all("pid" not in columns and rows <= PICTURES for columns, rows in collected)
    assert summary.details == (
        "train: 1,606 rows, 1,600 posts, 6 quarantined",
        "test: 400 rows, 400 posts, 0 quarantined",
        "500 users; 50.0% of the test posts are by users without a train post",
        f"images: missing {2_000 - PICTURES:,}, ok {PICTURES}",
        "external profiles: 2",
        "met on the way: external profiles of an alias met before 1",
        "quarantined: conflicting_pid 2, bad_label 1, bad_time 1, duplicate_pid 1, no_pid 1",
    )
    assert ingested.lakehouse.read("images").count() == 3
    assert not (Path(ingested.config.root) / "staging" / "ingest").exists()


def test_the_same_posts_make_the_same_tables_by_rows_and_by_frames(ingested: Ingested, table: Path) -> None:
    # The rows are ingested into the lake that the frames made: what would differ would be written.
    again = ingest(ingested.lakehouse.session, configured(table, ingested.config.root, "listed"), run="run-2")
    assert (again.wanted, again.ok, again.failed) == (2_006, 2_000, 6)
    assert (again.outcome, again.versions_written) == ("nothing_to_do", {})
    assert again.details == ingested.summary.details


def test_a_dry_run_counts_and_writes_nothing(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    summary = ingest(spark, configured(table, str(tmp_path / "lake")), run="run-1", dry_run=True)
    assert (summary.wanted, summary.ok, summary.failed) == (2_006, 2_000, 6)
    assert f"images: missing {2_000 - PICTURES:,}, present {PICTURES}" in summary.details
    assert not (tmp_path / "lake").exists()


def test_a_pilot_takes_the_first_posts_of_each_split(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    config = configured(table, str(tmp_path / "lake"), "parquet", "source.limit=30")
    summary = ingest(spark, config, run="run-1", dry_run=True)
    assert [line.split(";")[0] for line in summary.details[:2]] == [
        "train: 30 rows, 29 posts, 1 quarantined",
        "test: 30 rows, 30 posts, 0 quarantined",
    ]


def test_too_many_refused_rows_fail_the_run(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    config = configured(table, str(tmp_path / "lake"), "parquet", "source.max_refused_share=0.001")
    with pytest.raises(StageError, match=r"6 of 2,006 source rows are refused"):
        ingest(spark, config, run="run-1", dry_run=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda posts: posts.withColumnRenamed("category", "catgory"), r"'catgory' that is not known. Did you mean"),
        (lambda posts: posts.drop("uid"), r"posts have no column uid"),
        (lambda posts: posts.limit(0), r"holds no posts"),
    ],
)
def test_a_frame_that_is_no_table_of_posts_is_refused(
    spark: SparkSession, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    frames = ParquetPosts.frames
    monkeypatch.setattr(ParquetPosts, "frames", lambda self, session: Frames(change(frames(self, session).posts)))
    with pytest.raises(SourceError, match=words):
        ingest(spark, configured(table, str(tmp_path / "lake")), run="run-1", dry_run=True)


def test_a_source_without_pictures_or_profiles_needs_none(spark: SparkSession, tmp_path: Path, table: Path) -> None:
    class Bare(ParquetPosts):
        def image_root(self, split: Split) -> None:
            return None

        def frames(self, session: SparkSession) -> Frames:
            refused = [("test", "row x", "p", "draft", None)]
            schema = "split string, source_row string, pid string, reason string, detail string"
            posts = super().frames(session).posts.select("pid", "uid", "event_ts", "split", "popularity")
            return Frames(posts.where("split = 'test'"), refused=session.createDataFrame(refused, schema))

    config = configured(table, str(tmp_path / "lake"))
    with pytest.MonkeyPatch.context() as patched:
        find_test_kinds(patched, Bare)
        summary = ingest(spark, config, run="run-1")
    assert (summary.wanted, summary.ok, summary.failed) == (401, 400, 1)
    lakehouse = Lakehouse(spark, config)
    assert lakehouse.read("posts").where("image_status = 'missing' AND title = ''").count() == 400
    assert lakehouse.read("quarantine").where("reason = 'draft' AND source_row = 'row x'").count() == 1
