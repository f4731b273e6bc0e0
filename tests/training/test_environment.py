"""A registered model predicts in an environment that was built from its own requirements, without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from smp_features.training.registry import Registry

pytestmark = [pytest.mark.spark, pytest.mark.full]

PREDICT = """
import importlib.util, json, sys
import mlflow, numpy, pandas

assert importlib.util.find_spec("smp_features") is None and importlib.util.find_spec("pyspark") is None
frame = pandas.read_parquet("frame.parquet")
numpy.save("predicted.npy", mlflow.pyfunc.load_model("model").predict(frame))
mlflow.models.predict("model", input_path="input.json", output_path="output.json", env_manager="local")
"""


def test_an_environment_of_its_requirements_alone_gives_the_same_predictions(trained, tmp_path):
    lake, _ = trained
    registry = Registry(lake.config)
    version = registry.champion()
    model = Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(tmp_path / "model")))
    features = lake.lakehouse.read("post_features").where("split = 'test'").toPandas().sort_values("pid")
    frame = features[mlflow.models.get_model_info(version.uri).signature.inputs.input_names()]
    expected = registry.predictor(version).predict(frame)
    frame.to_parquet(tmp_path / "frame.parquet")
    split = frame.to_json(orient="split", index=False, double_precision=15)
    (tmp_path / "input.json").write_text(f'{{"dataframe_split": {split}}}')

    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "venv" / "bin" / "python"
    for command in (
        [uv, "venv", "--python", sys.executable, tmp_path / "venv"],
        [uv, "pip", "install", "--python", python, "-r", model / "requirements.txt"],
        [python, "-c", PREDICT],
    ):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [str(part) for part in command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert np.array_equal(np.load(tmp_path / "predicted.npy"), expected) and np.ptp(expected) > 0.5
    answered = mlflow.pyfunc.load_model(str(model)).predict(frame)
    assert np.array_equal(answered, expected)
    served = json.loads((tmp_path / "output.json").read_text())["predictions"]
    assert np.abs(np.array(served) - expected).max() < 1e-9
