"""Who is champion: the first, then only what beats it by more than noise on the gate; people may overrule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smp_features.config import Config, load_config
from smp_features.errors import UsageError
from smp_features.redaction import redacted
from smp_features.training import registry as registries
from smp_features.training.promotion import judge
from smp_features.training.records import metrics, movement_metrics, parameters
from smp_features.training.registry import Registry, Version, promote, rollback


@pytest.fixture
def config(tmp_path: Path, mlflow_store: Path) -> Config:
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    return load_config(None, [], root=str(tmp_path))


@pytest.fixture
def publish(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Version]:
    """Register a version whose gate predictions miss by so much; no model is behind it, so none is compared."""
    monkeypatch.setattr(Registry, "check", lambda *_: None)
    registry = Registry(config)
    rng = np.random.default_rng(0)
    gate = pd.DataFrame({"row_id": np.arange(300), "user": np.arange(300) // 3, "actual": 6 + 2 * rng.normal(size=300)})

    def make(noise: float, rows: int = 300) -> Version:
        run = registry.client.create_run(registry.experiment)
        path = tmp_path / "gate_predictions.parquet"
        gate.assign(predicted=gate["actual"] + noise * rng.normal(size=300))[:rows].to_parquet(path)
        registry.client.log_artifact(run.info.run_id, str(path))
        registry.client.set_terminated(run.info.run_id)
        registry._create_model()
        digests = tmp_path / "digests.json"
        digests.write_text('{"model": {}, "run": {}}')
        registry.client.log_artifact(run.info.run_id, str(digests))
        tags = {registries.DIGESTS_TAG: registries.digest_of(digests.read_bytes())}
        made = registry.client.create_model_version(registry.model, "file:///nowhere", run.info.run_id, tags=tags)
        return registries._version(made)

    return make


def champion(config: Config) -> str:
    found = Registry(config).champion()
    assert found is not None
    return found.number


def test_there_is_no_champion_at_first(config):
    assert Registry(config).champion() is None and Registry(config).versions() == []


def test_the_first_version_becomes_champion(config, publish):
    assert Registry(config).settle(publish(1.0)).startswith("champion")
    assert champion(config) == "1"


def test_a_clearly_better_version_replaces_it_and_rollback_restores_it(config, publish):
    registry = Registry(config)
    registry.settle(publish(2.0))
    decision = registry.settle(publish(0.5))
    assert decision.startswith("champion: better") and champion(config) == "2"
    assert "version 1 is champion again" in rollback(config) and champion(config) == "1"
    with pytest.raises(UsageError, match="no earlier champion"):
        rollback(config)


def test_a_version_within_noise_stays_a_challenger(config, publish):
    registry = Registry(config)
    registry.settle(publish(1.0))
    decision = registry.settle(publish(1.0))
    assert decision.startswith("challenger: not better") and "version 1 stays champion" in decision
    assert champion(config) == "1"


def test_a_worse_version_stays_a_challenger(config, publish):
    registry = Registry(config)
    registry.settle(publish(0.5))
    assert registry.settle(publish(2.0)).startswith("challenger")
    assert champion(config) == "1"


def test_too_few_gate_users_decide_nothing(config, publish):
    registry = Registry(config)
    registry.settle(publish(2.0))
    assert "only 20 gate users in common" in registry.settle(publish(0.1, rows=60))
    assert champion(config) == "1"


def test_a_champion_without_digests_makes_room_for_the_next_version(config, publish):
    registry = Registry(config)
    registry.settle(publish(0.5))
    registry.client.delete_model_version_tag(registry.model, "1", registries.DIGESTS_TAG)
    assert "version 1 was registered without digests" in registry.settle(publish(2.0))
    assert champion(config) == "2"


def test_a_decision_is_taken_once(config, publish):
    registry = Registry(config)
    registry.settle(publish(2.0))
    registry.settle(publish(0.5))
    promote(config, "1")
    second = next(each for each in registry.versions() if each.number == "2")
    assert registry.settle(second).startswith("champion: better")
    assert champion(config) == "1"


@pytest.mark.parametrize(
    ("src", "mae", "better"),
    [
        ((0.01, 0.05), (-0.2, -0.1), True),
        ((0.01, 0.05), (-0.1, 0.1), True),
        ((-0.01, 0.05), (-0.2, -0.1), True),
        ((-0.01, 0.05), (-0.1, 0.1), False),
        ((0.01, 0.05), (0.1, 0.2), False),
        ((-0.05, -0.01), (-0.2, -0.1), False),
        ((float("nan"), float("nan")), (float("nan"), float("nan")), False),
    ],
)
def test_one_gain_beyond_noise_without_a_loss_is_needed(src, mae, better):
    assert judge(*src, *mae, users=50)[0] is better


def test_people_may_promote_any_version(config, publish):
    registry = Registry(config)
    registry.settle(publish(0.5))
    registry.settle(publish(2.0))
    assert "in place of version 1" in promote(config, "2") and champion(config) == "2"
    with pytest.raises(UsageError, match=r"no version 7\. Registered: 1, 2"):
        promote(config, "7")


def test_an_unfinished_run_does_not_count(config, publish):
    registry = Registry(config)
    version = publish(1.0)
    registry.tag(version, registries.TRAINING_KEY, "k")
    assert registry.find(registries.TRAINING_KEY, "k") is not None
    registry.client.update_run(version.run, status="RUNNING")
    assert registry.find(registries.TRAINING_KEY, "k") is None


def test_the_default_store_is_a_file_under_the_root(config):
    assert registries.tracking_uri(config) == f"sqlite:///{Path(config.root)}/mlflow.db"
    with pytest.raises(UsageError, match="tracking_uri"):
        registries.tracking_uri(load_config(None, [], root="s3://bucket/lake"))


def test_secrets_of_a_tracking_uri_are_not_recorded():
    config = load_config(None, ["registry.tracking_uri=http://user:secret@host"])
    assert "secret" not in json.dumps(parameters(config))
    assert redacted("http://user:secret@host/x") == "http://***@host/x"


def test_what_moved_and_every_loss_curve_become_metrics():
    def held(value: float | None) -> dict[str, object]:
        ends = (None, None) if value is None else (value - 1, value + 1)
        return {"value": value, "low": ends[0], "high": ends[1], "level": 0.95, "excludes_zero": False}

    names = ("moved", "shuffled", "difference", "src_raw", "src_adapted", "gain")
    moved = {name: held(float(number)) for number, name in enumerate(names)} | {"src_raw": held(None)}
    results = {
        "scores": [], "folds": [], "leave_out": [],
        "adapter": {"train_loss": [1.0, 0.9], "stopping_loss": [None, 0.8], "held_out_loss": [1.1, 1.2]},
    }  # fmt: skip
    movement = [{"modality": "title_embedding", "n": 5, "users": 3, **moved}]
    assert {each.key: each.value for each in movement_metrics(movement)} == {
        "moved_title_embedding_n": 5, "moved_title_embedding_users": 3,
        "moved_title_embedding": 0, "moved_title_embedding_low": -1, "moved_title_embedding_high": 1,
        "moved_title_embedding_shuffled": 1, "moved_title_embedding_shuffled_low": 0,
        "moved_title_embedding_shuffled_high": 2,
        "moved_title_embedding_difference": 2, "moved_title_embedding_difference_low": 1,
        "moved_title_embedding_difference_high": 3,
        "moved_title_embedding_src_adapted": 4, "moved_title_embedding_src_adapted_low": 3,
        "moved_title_embedding_src_adapted_high": 5,
        "moved_title_embedding_gain": 5, "moved_title_embedding_gain_low": 4, "moved_title_embedding_gain_high": 6,
    }  # fmt: skip
    found = {(each.key, each.step): each.value for each in metrics(results)}
    assert {step: value for (name, step), value in found.items() if name == "adapter_stopping_loss"} == {1: 0.8}
    assert found["adapter_train_loss", 1] == 0.9 and found["adapter_held_out_loss", 0] == 1.1
    assert metrics(results | {"adapter": None}) == [] == movement_metrics([])
