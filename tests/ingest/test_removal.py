"""A source that is not all there is refused before anything is written, and taken when that is said to be meant."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from small_source import POSTS, TEST_POSTS, Source, everything_under, make_post

from smp_features.config import load_config
from smp_features.errors import SourceError
from smp_features.ingest.removal import Gone
from smp_features.lake.tables import Lakehouse
from smp_features.options import configure


@pytest.mark.parametrize(
    ("stored", "gone", "too_much"),
    [(100, 0, False), (100, 5, False), (100, 6, True), (9, 1, False), (9, 2, True), (1, 1, True), (0, 0, False)],
)
def test_all_of_it_or_more_than_one_and_than_the_share_is_too_much(stored: int, gone: int, too_much: bool) -> None:
    assert Gone("posts", stored, gone).is_too_much(0.05) is too_much


def test_the_option_is_the_setting() -> None:
    assert configure(allow_removal=True).source.allow_removal is True
    assert configure().source.allow_removal is False


@pytest.fixture(scope="module")
def stored(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The folder, ingested; refused runs leave its tables as they are."""
    base = tmp_path_factory.mktemp("stored")
    lakehouse = Lakehouse(spark, load_config(None, [], root=str(base / "lake")))
    source = Source(base / "posts", lakehouse).make()
    source.ingest()
    return source


def unmount(source: Source) -> None:
    shutil.rmtree(source.folder / "images")


def lose_train_pictures(source: Source) -> None:
    shutil.rmtree(source.folder / "images" / "train")


def lose_two_pictures(source: Source) -> None:
    for name in ("1", "1-again"):
        (source.folder / "images" / "train" / f"{name}.png").unlink()


def lose_train(source: Source) -> None:
    shutil.rmtree(source.folder / "train_allmetadata_json")


def lose_test(source: Source) -> None:
    shutil.rmtree(source.folder / "test_allmetadata_json")


def cut(source: Source) -> None:
    source.write("train", *POSTS[:5])


def lose_labels(source: Source) -> None:
    source.write("train", *POSTS[:4])
    source.write("test", *TEST_POSTS, *POSTS[4:])


def empty(**values: Any) -> Callable[[Source], None]:
    def change(source: Source) -> None:
        source.write("train", *(make_post(n, path=post["path"], **values) for n, post in enumerate(POSTS, 1)))
        source.write("test", *(make_post(n, path=f"test/{n}.png", **values) for n in (11, 12)))

    return change


def lose_profiles(source: Source) -> None:
    (source.folder / "user_additional.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unmount, r"none of the 7 pictures that posts of train name was found in .*images"),
        (lose_train_pictures, "none of the 7 pictures that posts of train name was found"),
        (lose_two_pictures, "2 of 4 stored pictures of train are gone"),
        (lose_train, "7 of 7 stored posts of train are gone"),
        (lose_test, "2 of 2 stored posts of test are gone"),
        (cut, "2 of 7 stored posts of train are gone"),
        (lose_labels, "3 of 7 stored labels of train are gone"),
        (empty(Title=""), "8 of 8 stored values of title of posts are gone"),
        (empty(photo_count="None"), r"stored values of photo_count of profiles are gone"),
        (lose_profiles, "1 of 1 stored external profiles are gone"),
    ],
)
def test_a_source_that_is_not_all_there_is_refused_before_anything_is_written(
    stored: Source, tmp_path: Path, damage: Callable[[Source], None], words: str
) -> None:
    root = Path(stored.lakehouse.config.root)
    before = everything_under(root)
    shutil.copytree(stored.folder, tmp_path / "posts")
    damaged = Source(tmp_path / "posts", stored.lakehouse)
    damage(damaged)
    with pytest.raises(SourceError, match=words) as refused:
        damaged.ingest()
    assert "--allow-removal" in str(refused.value)
    assert everything_under(root) == before


@pytest.mark.parametrize(("damage", "words"), [(cut, "2 of 9 stored posts are gone"), (unmount, "none of the 7")])
def test_a_dry_run_tells_it_too(stored: Source, tmp_path: Path, damage: Callable[[Source], None], words: str) -> None:
    shutil.copytree(stored.folder, tmp_path / "posts")
    damaged = Source(tmp_path / "posts", stored.lakehouse)
    damage(damaged)
    with pytest.raises(SourceError, match=words):
        damaged.ingest(dry_run=True)


def test_a_removal_that_is_meant_is_made(stored: Source, tmp_path: Path) -> None:
    shutil.copytree(stored.folder.parent, tmp_path / "copy")
    config = load_config(None, [], root=str(tmp_path / "copy" / "lake"))
    source = Source(tmp_path / "copy" / "posts", Lakehouse(stored.lakehouse.session, config))
    cut(source)
    unmount(source)
    summary = source.ingest("source.allow_removal=true")
    posts = source.rows("posts", "pid")
    assert summary.ok == len(posts) == 7 and "2 no longer in the source and removed" in summary.message
    assert {post["image_key"] for post in posts.values()} == {None}


def test_a_pilot_removes_nothing_and_is_not_taken_for_a_cut_source(stored: Source, tmp_path: Path) -> None:
    before = stored.versions()
    assert stored.ingest("source.limit=2").outcome == "nothing_to_do"
    assert stored.versions() == before
