"""A source of another package is one line of configuration, has settings of its own, and reaches the tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smp_features.config import Config, load_config
from smp_features.errors import ConfigError, SourceError
from smp_features.ingest.stage import ingest
from smp_features.lake.tables import Lakehouse
from smp_features.preflight import check_before_writing
from smp_features.scoring.evaluation import evaluate, posts_at
from smp_features.sources.base import ImageRoot, open_source
from smp_features.sources.smpd import SmpdSource

EVENT = 1_425_168_000_000_000  # 2015-03-01T00:00:00Z, in microseconds
TRAIN: list[dict[str, Any]] = [
    {"pid": "1", "uid": "a", "event_ts": EVENT, "popularity": 3.5, "title": "snow", "image_path": "1.png"},
    {"pid": 2, "uid": "a", "event_ts": EVENT + 1, "popularity": 4, "category": "Pets", "photo_count": 7},
    {"pid": "3", "uid": "b", "event_ts": EVENT, "popularity": 99},
    {"pid": "4", "uid": "b", "event_ts": 12, "popularity": 1},
    {"pid": "5", "uid": "b", "draft": True},
    {"pid": "1", "uid": "a", "event_ts": EVENT, "popularity": 3.5, "title": "snow", "image_path": "1.png"},
    {"uid": "c", "event_ts": EVENT, "popularity": 1},
]
TEST: list[dict[str, Any]] = [
    {"pid": "6", "uid": "c", "event_ts": EVENT + 2, "image_path": "../1.png"},
    {"pid": "7", "uid": "a", "event_ts": EVENT + 3, "image_path": "7.png", "category": "Pets"},
    {"pid": "8", "uid": "", "event_ts": EVENT},
]

Posts = Callable[..., Path]


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    folder = tmp_path / "posts"
    (folder / "pictures").mkdir(parents=True)
    for split, rows in (("train", TRAIN), ("test", TEST)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (8, 6), "red").save(folder / "pictures" / "1.png")
    return folder


def configured(posts: Path, *overrides: str) -> Config:
    settings = ["source.kind=jsonl", f"source.path={posts}", "source.max_refused_share=1", *overrides]
    return load_config(None, settings, root=str(posts.parent / "lake"))


@pytest.mark.usefixtures("jsonl_package")
def test_a_source_of_another_package_goes_through_ingest_into_the_tables(lakehouse: Lakehouse, posts: Path) -> None:
    config = configured(posts, "source.pictures=pictures", "source.known_at.label_maturity_days=1")
    check_before_writing(config, ["ingest"])
    summary = ingest(lakehouse.session, config, run="run-1")
    assert (summary.wanted, summary.ok, summary.failed, summary.computed) == (10, 4, 6, 4)
    assert summary.details[0] == "train: 7 rows, 2 posts, 5 quarantined"
    found = {row["pid"]: row for row in lakehouse.read("posts").collect()}
    assert {pid: row["image_status"] for pid, row in found.items()} == {
        "1": "ok", "2": "missing", "6": "path_refused", "7": "missing",
    }  # fmt: skip
    assert (found["1"]["title"], found["2"]["title"], found["2"]["category"]) == ("snow", "", "Pets")
    assert found["2"]["event_ts"] == datetime.fromtimestamp(EVENT / 1e6).replace(microsecond=1)
    assert (found["7"]["split"], found["7"]["source_row"]) == ("test", "test:2")
    labels = {row["pid"]: row["popularity"] for row in lakehouse.read("labels").collect()}
    assert labels == {"1": 3.5, "2": 4.0}
    profiles = {
        row["uid"]: row["photo_count"] for row in lakehouse.read("user_profiles").where("photo_count > 0").collect()
    }
    assert profiles == {"a": 7}
    refused = {row["source_row"]: row["reason"] for row in lakehouse.read("quarantine").collect()}
    assert refused == {
        "train:3": "bad_label", "train:4": "bad_time", "train:5": "draft", "train:6": "duplicate_pid",
        "train:7": "no_pid", "test:3": "no_uid",
    }  # fmt: skip
    assert ingest(lakehouse.session, config, run="run-2").outcome == "nothing_to_do"


@pytest.mark.usefixtures("jsonl_package")
def test_a_column_that_no_table_has_is_refused_with_the_nearest(posts: Path) -> None:
    (posts / "test.jsonl").write_text(json.dumps(TEST[0] | {"catgory": "Pets"}))
    with pytest.raises(SourceError, match=r"a column 'catgory' that is not known. Did you mean 'category'"):
        ingest(None, configured(posts), run="run-1", dry_run=True)  # type: ignore[arg-type]


@pytest.mark.usefixtures("jsonl_package")
def test_the_settings_of_a_kind_are_its_own(posts: Path) -> None:
    assert configured(posts, "source.pictures=x").model_dump()["source"]["pictures"] == "x"
    with pytest.raises(ConfigError, match=r"key 'source.picture' in --set. Did you mean 'pictures'"):
        configured(posts, "source.picture=x")
    with pytest.raises(ConfigError, match=r"Unknown configuration key 'source.pictures'"):
        configured(posts, "source.pictures=x", "source.kind=smpd")
    with pytest.raises(ConfigError, match=r"'source.limit'"):
        configured(posts, "source.limit=0")


def test_a_kind_that_is_not_installed_is_refused(posts: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.kind: there is no kind 'jsonl'"):
        configured(posts)
    with pytest.raises(ConfigError, match=r"there is no kind 'smdp'. Did you mean 'smpd'"):
        configured(posts, "source.kind=smdp")


def test_what_is_no_source_is_refused(posts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("smp_features.plugins").plugins._OWN["smp_features.sources"], "dict", "builtins:dict"
    )
    config = load_config().model_copy(update={"source": load_config().source.model_copy(update={"kind": "dict"})})
    with pytest.raises(ConfigError, match=r"'dict' names dict, which is no source"):
        open_source(config, posts)


@pytest.mark.usefixtures("jsonl_package")
def test_a_missing_source_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"jsonl: .*nowhere holds neither train.jsonl nor test.jsonl"):
        check_before_writing(configured(tmp_path / "nowhere"), ["ingest"])


@pytest.mark.usefixtures("jsonl_package")
def test_an_evaluation_knows_the_users_of_any_source(posts: Path, tmp_path: Path) -> None:
    (posts / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TRAIN[:2]))
    (posts / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEST[:2]))
    scores = tmp_path / "scores.json"
    scores.write_text('{"6": 2.0, "7": 3.0}')
    with posts_at(configured(tmp_path), str(posts)) as source:
        rows = evaluate(scores, scores, source).rows
    segments = [(row["segment"], row["which"]) for row in rows if row["segment"] in ("users", "category")]
    assert segments == [("users", "seen"), ("users", "unseen"), ("category", "(none)"), ("category", "Pets")]


def test_a_source_without_anything_optional_has_the_defaults(posts: Path) -> None:
    smpd = open_source(load_config(None, [f"source.path={posts}"]), posts)
    assert isinstance(smpd, SmpdSource) and not smpd.generated
    assert ImageRoot(Path("images")).relative("train/1.png") == "train/1.png"
