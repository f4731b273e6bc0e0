"""What is served stands alone: it predicts where Spark, torch and the rest of the package cannot be imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import smp_features
from smp_features.config import AdapterConfig, RegressorConfig, TrainingConfig
from smp_features.model.inputs import Inputs
from smp_features.training.nested import Division, Nest

N, WIDTH = 150, 8
ROOT = Path(smp_features.__file__).parent
INPUTS = Inputs(("event_hour",), {"image_embedding": WIDTH}, {"category": ["a", "b"]}, buckets={"tag_buckets": 9})

PREDICT = """
import importlib.abc, sys

BLOCKED = set(sys.argv[1].split(","))

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] in BLOCKED or parts[0] == "smp_features" and parts[1:2] not in ([], ["model"], ["errors"]):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
import numpy, pandas
from smp_features.model.predictor import Predictor

frame = pandas.read_parquet("frame.parquet")
numpy.save("predicted.npy", Predictor.load("model").predict(frame))
assert not BLOCKED & set(sys.modules)
"""


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, WIDTH)).astype(np.float32)
    return {
        "image_embedding": vectors,
        "has_image_embedding": np.ones(N),
        "event_hour": rng.integers(0, 24, N).astype(float),
        "category": rng.integers(-1, 2, N),
        "tag_buckets": rng.integers(-1, 9, (N, 4)).astype(np.int16),
        "popularity": 6 + vectors[:, 0] + rng.normal(scale=0.1, size=N),
        "fold": np.arange(N) % 3,
        "user": np.arange(N),
        "row_id": np.arange(N),
    }


def frame_of(held: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "event_hour": held["event_hour"],
            "category": [None if code < 0 else "ab"[code] for code in held["category"]],
            "tag_buckets": [[int(word) for word in words if word >= 0] for words in held["tag_buckets"]],
            "image_embedding": [None if row % 9 == 0 else list(v) for row, v in enumerate(held["image_embedding"])],
            "clip_image_extractor": "c1",
        }
    )


@pytest.mark.parametrize(("member", "without"), [("lightgbm", "catboost"), ("catboost", "lightgbm")])
def test_a_saved_model_predicts_where_spark_torch_and_the_other_booster_cannot_be_imported(tmp_path, member, without):
    held = rows()
    boosters = RegressorConfig(
        members=(member,), rounds=20, learning_rate=0.3, catboost_learning_rate=0.3,
        pca_components=3, adapted_components=2, word_components=3,
    )  # fmt: skip
    config = TrainingConfig(adapter=AdapterConfig(min_steps=20), regressor=boosters)
    chunk = {name: held[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    nest = Nest(held, lambda columns: lambda: iter([chunk]), config)
    everyone = Division("all", np.ones(N, bool), np.zeros(N, bool))
    model = nest.predictor(INPUTS, everyone, nest.fit(INPUTS, everyone), {"clip_image_extractor": "c1"})
    frame = frame_of(held)
    expected = model.predict(frame)
    model.save(tmp_path / "model")
    frame.to_parquet(tmp_path / "frame.parquet")
    blocked = f"pyspark,py4j,torch,petastorm,transformers,open_clip,pydantic,mlflow,{without}"
    command = [sys.executable, "-c", PREDICT, blocked]
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.array_equal(np.load(tmp_path / "predicted.npy"), expected) and np.ptp(expected) > 0.1


def test_its_modules_import_nothing_of_the_package_but_each_other_and_the_errors():
    for path in (ROOT / "model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and path.name != "served_model.py":
                assert not (node.module or "").startswith("smp_features"), path
                assert node.level < 2 or node.module == "errors", path
