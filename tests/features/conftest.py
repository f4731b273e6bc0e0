"""What feature tests share: a handmade lakehouse of five posts, and recipes without models."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from smp_features.config import load_config
from smp_features.features import post_features, training_set
from smp_features.features.post_features import Recipe, features
from smp_features.lake.tables import Lakehouse

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POSTED = datetime(2015, 3, 4, 12, tzinfo=UTC)
FINGERPRINTS = {"caption": "cap1", "clip_image": "img1", "clip_text": "txt1", "perplexity": "lm1"}
DIMENSION = 4


def key_of(content: str) -> str:
    """SHA-256 of a text, as content keys are made."""
    return hashlib.sha256(content.encode()).hexdigest()


def vector_of(content: str) -> list[float]:
    """A unit vector that stands for a content's embedding."""
    drawn = np.random.default_rng(int(key_of(content)[:8], 16)).normal(size=DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32).tolist()


def _post(pid: str, uid: str, title: str, picture: str | None, day: int, **other: object) -> dict[str, object]:
    at = POSTED + timedelta(days=day)
    return {
        "pid": pid, "split": "train", "uid": uid, "event_ts": at, "known_at": at, "title": title,
        "title_key": key_of(title), "tags": "sea sun", "category": "Travel", "image_key": picture and key_of(picture),
        "image_status": "ok" if picture else "missing", "source_row": f"train:{pid}", "row_hash": "as ingested",
    } | other  # fmt: skip


class Posts:
    """Tables with five posts and all their content extracted; tests change them and write them again."""

    key_of = staticmethod(key_of)
    vector_of = staticmethod(vector_of)

    def __init__(self, lakehouse: Lakehouse) -> None:
        self.lakehouse = lakehouse
        self.rows = {
            row["pid"]: row
            for row in (
                _post("1", "ann", "A red boat", "boat", 0, path_alias="annie", latitude=1.5, longitude=2.5),
                _post("2", "ann", "DSC_0042", "boat", 1),
                _post("3", "bob", "", "tree", 2),
                _post("4", "bob", "No picture here", None, 3),
                _post("5", "cat", "Broken", "broken", 4, split="test", image_status="truncated"),
            )
        }
        self.labels = {pid: float(pid) + 0.5 for pid in ("1", "2", "3", "4")}
        self.captions = {"boat": "a red boat", "tree": "a green tree"}
        self.broken = ["broken"]

    def frame(self, table: str, rows: list[dict[str, object]]):
        schema = self.lakehouse.schema(table)
        listed = [tuple(row.get(name) for name in schema.names) for row in rows]
        return self.lakehouse.session.createDataFrame(listed, schema).coalesce(1)

    def write_posts(self) -> None:
        """Make the table of posts hold these posts."""
        hashed = [row | {"row_hash": key_of(repr(row))} for row in self.rows.values()]
        self.lakehouse.synchronise("posts", self.frame("posts", hashed), "row_hash", delete_missing=True)

    def write_labels(self) -> None:
        """Make the table of labels hold these labels, known 30 days after their posts."""
        rows = [
            {"pid": pid, "popularity": value, "known_at": self.rows[pid]["event_ts"] + timedelta(days=30)}
            for pid, value in self.labels.items()
        ]
        self.lakehouse.synchronise("labels", self.frame("labels", rows), "popularity", delete_missing=True)

    def extract(self, *tables: str, **fingerprints: str) -> None:
        """Insert the content rows that are missing under these fingerprints, in these tables or all."""
        texts = {*(row["title"] for row in self.rows.values()), *self.captions.values()}
        pictures = [*self.captions, *self.broken]
        refused: dict[str, object] = {"status": "truncated", "error": "ends early"}
        captioned = {c: {"caption": text, "text_key": key_of(text)} for c, text in self.captions.items()}
        content: dict[str, tuple[str, str, dict[str, dict[str, object]]]] = {
            "captions": ("image_key", "caption", {picture: captioned.get(picture, refused) for picture in pictures}),
            "image_embeddings": (
                "image_key",
                "clip_image",
                {p: {"embedding": vector_of(p)} if p in self.captions else refused for p in pictures},
            ),
            "text_embeddings": (
                "text_key",
                "clip_text",
                {text: {"embedding": vector_of(text)} if text else {"status": "empty"} for text in texts},
            ),
            "perplexities": (
                "text_key",
                "perplexity",
                {
                    text: {"log_perplexity": len(text) / 4, "token_count": len(text), "truncated": False}
                    if text
                    else {"status": "empty"}
                    for text in texts
                },
            ),
        }
        for table in tables or content:
            key, extractor, values = content[table]
            made_with = (FINGERPRINTS | fingerprints)[extractor]
            rows = [
                {key: key_of(thing), "extractor": made_with, "status": "ok", "computed_at": NOW} | columns
                for thing, columns in values.items()
            ]
            self.lakehouse.insert_new(table, self.frame(table, rows).drop("shard"))

    def profile(self, uid: str, day: float, origin: str = "user_data", **columns: object) -> None:
        """Insert a profile known some days after POSTED."""
        row = {"uid": uid, "known_at": POSTED + timedelta(days=day), "origin": origin, "assumed": False} | columns
        self.lakehouse.insert_new("user_profiles", self.frame("user_profiles", [row | {"row_hash": key_of(repr(row))}]))

    def features(self) -> dict[str, object]:
        """Rows of post_features by pid."""
        return {row.pid: row for row in self.lakehouse.read("post_features").collect()}


def _use(patch: pytest.MonkeyPatch, time_rules: str = "strict", **fingerprints: str) -> None:
    made = Recipe(FINGERPRINTS | fingerprints, time_rules)
    for module in (post_features, training_set):
        patch.setattr(module, "configured_recipe", lambda lakehouse: made)


@pytest.fixture
def recipe(monkeypatch) -> Callable[..., None]:
    """Set what rows are to be made with, without models; at first, what the content was made with."""
    _use(monkeypatch)
    return lambda time_rules="strict", **fingerprints: _use(monkeypatch, time_rules, **fingerprints)


@pytest.fixture(scope="session")
def five_posts(spark, empty_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with five posts, all their content and their features, written once; a test gets a copy."""
    root = tmp_path_factory.mktemp("five")
    shutil.copytree(empty_tables, root / "tables")
    config = load_config(None, [], root=str(root))
    made = Posts(Lakehouse(spark, config))
    made.write_posts()
    made.write_labels()
    made.profile("ann", 0, photo_count=10, is_pro=True)
    made.extract()
    with pytest.MonkeyPatch.context() as patch:
        _use(patch)
        features(spark, config, run="first")
    return root


@pytest.fixture
def posts(spark, config, five_posts: Path, recipe) -> Posts:
    """Five posts with all their content and up-to-date features."""
    shutil.copytree(five_posts, config.root)
    return Posts(Lakehouse(spark, config))
