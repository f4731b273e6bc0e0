"""What training tests share: a small made-up lake whose label follows a known rule, and one model trained on it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from smp_features.config import Config, load_config
from smp_features.lake.schema import Schema
from smp_features.lake.tables import Lakehouse, row_hash
from smp_features.runs import Summary
from smp_features.splits import identity_folds
from smp_features.training.train import train

WIDTH = 16
CATALOGUE = Schema.of(Config()).catalogue
VECTORS = CATALOGUE.of_kind("vector")
FINGERPRINTS = {f"{name}_extractor": f"{name}-1" for name in ("caption", "clip_image", "clip_text", "perplexity")}
QUICK = [
    "training.folds=3",
    "training.bootstrap=100",
    "training.adapter.min_steps=30",
    "training.regressor.rounds=60",
    "training.regressor.learning_rate=0.1",
    "training.regressor.early_stopping=10",
    "training.regressor.pca_components=4",
    "training.regressor.adapted_components=2",
    "extraction.slots=1",
]


def made_up_posts(labelled: int, unlabelled: int, seed: int) -> list[dict[str, object]]:
    """Rows of `post_features` with `popularity` (None for the unlabelled); some lack picture, title or profile."""
    rng = np.random.default_rng(seed)
    posts = []
    for number in range(labelled + unlabelled):
        user = int(rng.integers(labelled // 3))
        vectors = {name: rng.normal(size=WIDTH) for name in VECTORS}
        vectors = {name: (v / np.linalg.norm(v)).astype(np.float32) for name, v in vectors.items()}
        no_picture, no_title = number % 11 == 0, number % 13 == 0
        fame = np.random.default_rng(user).normal()
        label = 6 + 1.5 * fame + 4 * vectors["image_embedding"][0] + rng.normal(scale=0.5)
        row: dict[str, object] = {f.name: None for f in CATALOGUE.features}
        row |= {name: [float(x) for x in vector] for name, vector in vectors.items()}
        row |= {"image_embedding": None, "caption_embedding": None} if no_picture else {}
        row |= {"title_embedding": None} if no_title else {}
        row |= {
            "pid": f"p{number}",
            "uid": f"{user}@N",
            "split": "train" if number < labelled else "test",
            "event_ts": datetime(2016, 1, 1, tzinfo=UTC) + timedelta(hours=number),
            "title": "" if no_title else "a title",
            "caption": None if no_picture else "a caption",
            "image_status": "missing" if no_picture else "ok",
            "category": None if number % 17 == 0 else f"category {number % 4}",
            "media_type": "photo",
            "caption_title_similarity": None if no_picture or no_title else float(rng.normal()),
            "title_char_count": 0.0 if no_title else 7.0,
            "tag_buckets": [number % 5, number % 7][: number % 3],
            "event_hour": float(number % 24),
            "user_photo_count": None if number % 7 == 0 else float(fame),
            "time_rules": "strict",
            "features_key": hashlib.sha256(f"{seed} {number}".encode()).hexdigest(),
            "inputs_key": hashlib.sha256(f"inputs {seed} {number}".encode()).hexdigest(),
            "computed_at": datetime(2020, 1, 1, tzinfo=UTC),
            "popularity": float(label) if number < labelled else None,
            **FINGERPRINTS,
        }
        posts.append(row)
    return posts


@dataclass(frozen=True)
class Lake:
    """A lakehouse with posts, and the configuration it was made under."""

    lakehouse: Lakehouse
    config: Config
    posts: list[dict[str, object]]

    @property
    def session(self) -> SparkSession:
        return self.lakehouse.session


def fill(lakehouse: Lakehouse, posts: list[dict[str, object]]) -> None:
    """Write post_features, labels and training_set."""
    session, config = lakehouse.session, lakehouse.config

    def frame(table: str, rows: list[dict[str, object]]) -> object:
        schema = lakehouse.schema(table)
        return session.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)

    labelled = [row for row in posts if row["popularity"] is not None]
    lakehouse.synchronise("post_features", frame("post_features", posts).coalesce(1), "features_key")
    labels = [{**row, "known_at": row["event_ts"]} for row in labelled]
    lakehouse.insert_new("labels", frame("labels", labels))
    folds = identity_folds([str(row["uid"]) for row in labelled], config.training.folds, config.training.seed)
    rows = []
    for number, (row, fold) in enumerate(zip(labelled, folds, strict=True)):
        gate = int(str(row["uid"]).removesuffix("@N")) % 4 == 0
        made = {**row, "row_id": number * 7919 - 5, "fold": -1 if gate else int(fold), "row_hash": ""}
        made |= {"label_known_at": row["event_ts"]}
        for name in VECTORS:
            made |= {name: row[name] or [0.0] * WIDTH, f"has_{name}": 0.0 if row[name] is None else 1.0}
        rows.append(made)
    table = frame("training_set", rows).withColumn("row_hash", row_hash(["features_key", "popularity", "fold"]))
    lakehouse.synchronise("training_set", table.coalesce(1), "row_hash")


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its tables take seconds to create."""
    from mlflow.tracking import MlflowClient

    from smp_features.training import registry

    registry._quiet()
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture(scope="session")
def make_lake(
    spark: SparkSession, empty_tables: Path, mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Lake]:
    """Make a lake of its own in a temporary folder."""

    def make(labelled: int = 300, unlabelled: int = 40, seed: int = 1, overrides: tuple[str, ...] = ()) -> Lake:
        root = tmp_path_factory.mktemp("lake")
        shutil.copytree(empty_tables, root / "tables")
        shutil.copy(mlflow_store, root / "mlflow.db")
        config = load_config(None, [*QUICK, *overrides], root=str(root))
        lakehouse = Lakehouse(spark, config)
        posts = made_up_posts(labelled, unlabelled, seed)
        fill(lakehouse, posts)
        return Lake(lakehouse, config, posts)

    return make


@pytest.fixture(scope="session")
def lake(make_lake: Callable[..., Lake]) -> Lake:
    """The lake that tests only read."""
    return make_lake()


@pytest.fixture(scope="session")
def trained(lake: Lake) -> tuple[Lake, Summary]:
    """The same lake with a first registered model, and the summary of its training."""
    return lake, train(lake.session, lake.config, run="run-1")
