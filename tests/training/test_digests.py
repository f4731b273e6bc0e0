"""Nothing of a registered model is loaded, scored with or promoted unless every file is the one that was registered."""

from __future__ import annotations

import json
import runpy
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from smp_features.config import Config, RegressorConfig, TrainingConfig, load_config
from smp_features.errors import ModelError
from smp_features.model.inputs import Inputs
from smp_features.model.predictor import Predictor
from smp_features.training.digests import DIGESTS_TAG, check_flavour
from smp_features.training.nested import Division, Nest
from smp_features.training.registry import TRAINING_KEY, Registry, promote, rollback

N, WIDTH = 60, 4
INPUTS = Inputs(("event_hour",), {"image_embedding": WIDTH}, {"category": ["a", "b"]})
TAGS = {TRAINING_KEY: "k", "time_rules": "strict"}
RESULTS = {
    "search": None, "scores": [], "folds": [], "leave_out": [], "adapter": None,
    "versions": {"training_set": 1}, "snapshot": "s" * 32,
}  # fmt: skip


def both_boosters() -> Predictor:
    """A model that blends one booster of each library."""
    one, other = fitted("lightgbm"), fitted("catboost")
    members = tuple(replace(each.regressor.members[0], weight=0.5) for each in (one, other))
    return replace(one, regressor=replace(one.regressor, members=members))


def fitted(member: str) -> Predictor:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, WIDTH)).astype(np.float32)
    rows = {
        "image_embedding": vectors,
        "has_image_embedding": np.ones(N),
        "event_hour": rng.integers(0, 24, N).astype(float),
        "category": rng.integers(-1, 2, N),
        "popularity": 6 + vectors[:, 0] + 0.1 * rng.normal(size=N),
        "fold": np.arange(N) % 3,
        "user": np.arange(N),
    }
    regressor = RegressorConfig(rounds=10, members=[member], min_leaf_rows=3, pca_components=2, adapted_components=2)
    chunk = {name: rows[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    nest = Nest(rows, lambda columns: lambda: iter([chunk]), TrainingConfig(regressor=regressor))
    everyone = Division("all", np.ones(N, bool), np.zeros(N, bool))
    return nest.predictor(INPUTS, everyone, nest.fit(INPUTS, everyone), {"clip_image_extractor": "c1"})


def work_folder(work: Path, predictor: Predictor) -> Path:
    """What training hands to the registry, as small as can be."""
    predictor.save(work / "model")
    (work / "figures").mkdir()
    (work / "results.json").write_text(json.dumps(RESULTS))
    frame = pd.DataFrame({"row_id": [1], "user": [1], "actual": [1.0], "predicted": [1.0]})
    for name in ("oof", "gate"):
        frame.to_parquet(work / f"{name}_predictions.parquet")
    posts().to_parquet(work / "input_example.parquet")
    return work


def posts() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "event_hour": [1.0, 2.0],
            "category": ["a", None],
            "image_embedding": [[0.5] * WIDTH, [0.1] * WIDTH],
            "clip_image_extractor": "c1",
        }
    )


@pytest.fixture(scope="module")
def store(mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two registered versions of one tiny model, the second champion."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copy(mlflow_store, root / "mlflow.db")
    registry = Registry(load_config(None, [], root=str(root)))
    work = work_folder(tmp_path_factory.mktemp("work"), both_boosters())
    for key in ("k1", "k2"):
        registry.appoint(registry.publish(work, TAGS | {TRAINING_KEY: key}))
    return root


@pytest.fixture
def config(store: Path, tmp_path: Path) -> Config:
    """A copy of it, to be tampered with."""
    shutil.copytree(store, tmp_path / "root")
    config = load_config(None, [], root=str(tmp_path / "root"))
    Registry(config)  # gives MLflow the new addresses
    return config


def folder_of(config: Config) -> Path:
    registry = Registry(config)
    source = registry.client.get_model_version(registry.model, "2").source
    name = source.rstrip("/").split("/")
    place = name[-2] if name[-1] == "artifacts" else name[-1]
    [found] = Path(config.root).glob(f"mlflow-artifacts/models/{place}/artifacts")
    return found


def test_an_untouched_version_is_loaded_promoted_and_rolled_back_to(config):
    registry = Registry(config)
    predicted = registry.predictor(registry.champion()).predict(posts())
    mlflow.set_tracking_uri(registry.uri)
    assert np.array_equal(mlflow.pyfunc.load_model(registry.champion().uri).predict(posts()), predicted)
    assert "version 1 is champion" in rollback(config)
    assert "in place of version 1" in promote(config, "2")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def widen_limits(path: Path) -> None:
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"low": -100.0, "high": 100.0}))


def swap_words(path: Path) -> None:
    described = json.loads(path.read_text())
    described["vocabularies"]["category"].reverse()
    path.write_text(json.dumps(described))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def add_code(path: Path) -> None:
    path.write_text(path.read_text() + "\nraise SystemExit('this code ran')\n")


def put_a_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04N.")


TAMPERED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights": ("artifacts/model/adapters.safetensors", flip_a_bit),
    "a cut booster's text": ("artifacts/model/lightgbm.txt", cut),
    "a booster": ("artifacts/model/catboost.cbm", flip_a_bit),
    "encoders": ("artifacts/model/encoders.safetensors", flip_a_bit),
    "limits": ("artifacts/model/model.json", widen_limits),
    "vocabularies": ("artifacts/model/model.json", swap_words),
    "the manifest": ("artifacts/model/manifest.json", lambda path: path.write_text('{"files": {}}')),
    "what MLflow runs": ("served_model.py", add_code),
    "the code": ("code/smp_served_*/model/regressor.py", add_code),
    "code beside the code": ("code/sitecustomize.py", put_a_pickle),
    "a pickle": ("python_model.pkl", put_a_pickle),
    "how MLflow loads it": ("MLmodel", lambda path: path.write_text(path.read_text().replace("code_model", "model"))),
    "what an environment installs": ("requirements.txt", lambda path: path.write_text("evil==1\n")),
    "a file that is gone": ("artifacts/model/encoders.safetensors", lambda path: path.unlink()),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_version_that_was_tampered_with_is_refused_in_one_line_before_it_is_loaded(config, what, monkeypatch):
    pattern, tamper = TAMPERED[what]
    folder = folder_of(config)
    path = next(iter(folder.glob(pattern)), folder / pattern)
    tamper(path)
    registry = Registry(config)
    for name in ("lightgbm.Booster", "catboost.CatBoostRegressor", "mlflow.pyfunc.load_model"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("something of it was loaded"))
    name = path.relative_to(folder).as_posix()
    for use in (lambda: registry.predictor(registry.champion()), lambda: promote(config, "2")):
        with pytest.raises(ModelError, match="version 2") as raised:
            use()
        assert name in str(raised.value) and "\n" not in str(raised.value) and "smp train" in str(raised.value)
    promote(config, "1")
    with pytest.raises(ModelError, match="version 2"):
        rollback(config)
    assert registry.champion().number == "1"


@pytest.mark.parametrize("what", ["weights", "a cut booster's text", "limits", "vocabularies", "the manifest"])
def test_the_served_model_itself_refuses_data_that_were_changed(config, what):
    pattern, tamper = TAMPERED[what]
    [path] = folder_of(config).glob(pattern)
    tamper(path)
    registry = Registry(config)
    mlflow.set_tracking_uri(registry.uri)
    with pytest.raises(Exception, match=f"{path.name} of the model in .* was changed after it was"):
        mlflow.pyfunc.load_model(registry.champion().uri)


@pytest.mark.parametrize("name", ["errors.py", "model/regressor.py", "model/added.py"])
def test_code_that_was_changed_is_refused_before_it_is_imported(config, monkeypatch, name):
    folder = folder_of(config)
    [package] = (folder / "code").iterdir()
    monkeypatch.syspath_prepend(str(folder / "code"))
    for loaded in [each for each in sys.modules if each.split(".")[0] == package.name]:
        monkeypatch.delitem(sys.modules, loaded)
    path = package / name
    path.write_text((path.read_text() if path.exists() else "") + "\nraise SystemExit('this code ran')\n")
    with pytest.raises(RuntimeError, match=f"{name} of {package.name}, the code of this model, was changed"):
        runpy.run_path(str(folder / "served_model.py"))
    assert package.name not in sys.modules


def test_a_digest_record_that_was_changed_is_refused(config):
    [path] = [each for each in Path(config.root).rglob("digests.json") if "k2" in tags_of(config, each)]
    path.write_text(path.read_text().replace('"model"', '"models"'))
    registry = Registry(config)
    with pytest.raises(ModelError, match=r"digests\.json of smp_popularity version 2 was changed"):
        registry.check(registry.champion())


def tags_of(config: Config, path: Path) -> str:
    registry = Registry(config)
    return registry.client.get_run(path.parent.parent.name).data.tags[TRAINING_KEY]


@pytest.mark.parametrize("name", ["results.json", "gate_predictions.parquet"])
def test_a_file_of_the_run_that_was_changed_is_refused(config, name):
    registry = Registry(config)
    version = registry.champion()
    [path] = [each for each in Path(config.root).rglob(name) if each.parent.parent.name == version.run]
    flip_a_bit(path)
    read = registry.results if name == "results.json" else lambda each: registry.predictions(each, "gate")
    with pytest.raises(ModelError, match=f"{name} of the run of smp_popularity version 2 was changed"):
        read(version)


def test_a_version_without_digests_is_refused_and_counts_as_not_trained(config):
    with closing(sqlite3.connect(Path(config.root) / "mlflow.db")) as database, database:
        database.execute("DELETE FROM model_version_tags WHERE key = ? AND version = 2", (DIGESTS_TAG,))
    registry = Registry(config)
    with pytest.raises(ModelError, match=r"version 2 was registered without digests.*Run `smp train`"):
        registry.check(registry.champion())
    assert registry.find(TRAINING_KEY, "k2") is None and registry.find(TRAINING_KEY, "k1") is not None


def test_what_something_else_registered_is_refused_whatever_it_says_of_itself(config, tmp_path):
    class Pickled(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [0.0]

    registry = Registry(config)
    with mlflow.start_run(experiment_id=registry.experiment) as run:
        logged = mlflow.pyfunc.log_model(name="model", python_model=Pickled(), pip_requirements=["mlflow"])
    made = registry.client.create_model_version(registry.model, logged.model_uri, run.info.run_id, tags=TAGS)
    with pytest.raises(ModelError, match="version 3 was registered without digests"):
        promote(config, str(made.version))
    folder = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(tmp_path / "pickled"))
    with pytest.raises(ModelError, match=r"loaded by mlflow\.pyfunc\.model, not a model that `smp train` registered"):
        check_flavour(Path(folder), "version 3")


def test_one_key_published_twice_is_one_version(config, tmp_path, monkeypatch):
    registry = Registry(config)
    work = work_folder(tmp_path / "work", fitted("lightgbm"))
    first = registry.publish(work, TAGS)
    assert registry.publish(work, TAGS) == first, "a rerun"
    # Another driver that looked before the first one registered.
    with monkeypatch.context() as blind:
        blind.setattr(Registry, "find", lambda *_: None)
        assert registry.publish(work, TAGS) == first
    assert len([each for each in registry.versions() if each.tags[TRAINING_KEY] == "k"]) == 1
    assert registry.publish(work, TAGS, anew=True).number > first.number, "as `smp train --force` asks"


def test_a_version_that_was_registered_and_not_yet_tagged_is_found_and_tagged(config):
    with closing(sqlite3.connect(Path(config.root) / "mlflow.db")) as database, database:
        database.execute("DELETE FROM model_version_tags WHERE version = 2")
    registry = Registry(config)
    assert registry.find(TRAINING_KEY, "k2").number == "2"
    version = registry.champion()
    assert version.tags[TRAINING_KEY] == "k2"
    registry.check(version)
