"""Training makes one model per training set and configuration, records it whole, and resumes where it was cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from smp_features.catalogue import Catalogue
from smp_features.config import load_config
from smp_features.errors import StageError
from smp_features.training import snapshot as snapshots
from smp_features.training import train as trains
from smp_features.training.experiment import inputs_of, run_experiment
from smp_features.training.registry import Registry
from smp_features.training.train import train

pytestmark = pytest.mark.spark


def test_the_first_model_becomes_champion(trained):
    lake, summary = trained
    assert summary.outcome == "done" and summary.reconciles
    champion = Registry(lake.config).champion()
    assert champion is not None and champion.number == "1"
    assert "identity, model: SRC" in summary.message and "(n " in summary.message
    assert any(line.startswith("chronological, unseen users") for line in summary.details)


def test_second_training_does_nothing(trained, monkeypatch):
    lake, _ = trained
    before = len(Registry(lake.config).versions())
    monkeypatch.setattr(trains, "_compute", lambda *_: pytest.fail("computed again"))
    again = train(lake.session, lake.config, run="run-2")
    assert again.outcome == "nothing_to_do" and "version 1" in again.message
    assert len(Registry(lake.config).versions()) == before


def test_compaction_does_not_train_again(trained, monkeypatch):
    lake, _ = trained
    lake.lakehouse.optimize("training_set")
    monkeypatch.setattr(trains, "_compute", lambda *_: pytest.fail("computed again"))
    assert train(lake.session, lake.config, run="run-3").outcome == "nothing_to_do"


def test_another_configuration_is_another_model(trained):
    lake, _ = trained
    version = lake.lakehouse.version("training_set")
    other = load_config(None, ["training.seed=8"], root=lake.config.root)
    catalogue = lake.lakehouse.catalogue
    assert trains.training_recipe(lake.config, catalogue) != trains.training_recipe(other, catalogue)
    assert trains.training_recipe(lake.config, catalogue) == trains.training_recipe(lake.config, catalogue)
    assert trains.training_recipe(lake.config, catalogue) != trains.training_recipe(lake.config, Catalogue.of({}))
    assert version == lake.lakehouse.version("training_set")


def test_recorded_scores_are_those_of_the_recorded_predictions(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    champion = registry.champion()
    results, oof = registry.results(champion), registry.predictions(champion)
    labels = {str(row["pid"]): row["popularity"] for row in lake.posts}
    assert (oof["pid"].map(labels) == oof["actual"]).all() and oof["pid"].is_unique
    head = results["headline"]
    assert (head["split"], head["n"]) == ("identity", len(oof))
    assert head["src"]["value"] == pytest.approx(spearmanr(oof["predicted"], oof["actual"]).statistic)
    assert head["mae"]["value"] == pytest.approx((oof["predicted"] - oof["actual"]).abs().mean())
    assert head["src"]["low"] < head["src"]["value"] < head["src"]["high"]
    chronological = oof[oof["chronological"].notna()]
    later = next(e for e in results["scores"] if (e["split"], e["model"]) == ("chronological", "model"))
    assert later["n"] == len(chronological) == pytest.approx(len(oof) * 0.2, abs=2)
    assert later["mae"]["value"] == pytest.approx(
        (chronological["chronological"] - chronological["actual"]).abs().mean()
    )


def test_leaving_out_what_the_label_hangs_on_costs_score(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    results = registry.results(registry.champion())
    without = {each["name"]: each for each in results["leave_out"]}
    assert set(without) == {"picture", "user"}
    assert without["user"]["delta_src"]["high"] < 0 < without["user"]["delta_mae"]["low"]
    assert without["user"]["delta_src"]["excludes_zero"] is True
    oof = registry.predictions(registry.champion())
    expected = spearmanr(oof["without_user"], oof["actual"]).statistic - results["headline"]["src"]["value"]
    assert without["user"]["delta_src"]["value"] == pytest.approx(expected)


def test_gate_users_are_in_no_fold(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    champion = registry.champion()
    oof, gate = registry.predictions(champion), registry.predictions(champion, "gate")
    assert len(gate) and not set(gate["uid"]) & set(oof["uid"])
    assert registry.results(champion)["rows"]["gate"] == len(gate)


def test_the_run_holds_parameters_curves_versions_and_figures(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    champion = registry.champion()
    run = registry.client.get_run(champion.run)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.adapter.form"] == "mixture" and run.data.params["training.folds"] == "3"
    assert run.data.tags["clip_image_extractor"] == "clip_image-1"
    assert int(champion.tags["training_set_version"]) >= 1
    assert {"identity_src", "identity_mae_low", "chronological_unseen_users_mae", "gate_src"} <= set(run.data.metrics)
    assert len(registry.client.get_metric_history(champion.run, "adapter_train_loss")) >= 5
    assert len(registry.client.get_metric_history(champion.run, "fold_src")) == 3
    assert len(registry.client.get_metric_history(champion.run, "adapter_stopping_loss")) >= 5
    found = {item.path for item in registry.client.list_artifacts(champion.run)}
    assert {
        "results.json",
        "oof_predictions.parquet",
        "gate_predictions.parquet",
        "pair_adapters.safetensors",
        "figures",
    } <= found
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["training_set"]


def test_a_search_decides_the_settings_and_each_trial_is_a_run_below_the_models(make_lake):
    lake = make_lake(
        labelled=150, unlabelled=0, seed=5, overrides=("training.leave_out=[]", "training.search.trials=3")
    )
    summary = train(lake.session, lake.config, run="run-1")
    assert any("best of 3 trials" in line and "optimistic" in line for line in summary.details)
    registry = Registry(lake.config)
    champion = registry.champion()
    results, oof = registry.results(champion), registry.predictions(champion)
    best = results["search"]["best"]
    assert best["number"] > 0, "the configured settings must not be the best here, or nothing is seen to be replaced"
    assert best in results["search"]["trials"]
    assert best["value"] == pytest.approx(((oof["predicted"] - oof["actual"]) ** 2).mean())
    configured = results["search"]["trials"][0]["parameters"]
    assert configured["learning_rate"] == 0.1 and configured["pca_components"] == 4
    params = registry.client.get_run(champion.run).data.params
    for name, value in best["parameters"].items():
        assert params[f"training.regressor.{name}"] == str(value)
    below = registry.client.search_runs([registry.experiment], f"tags.mlflow.parentRunId = '{champion.run}'")
    assert {run.info.status for run in below} == {"FINISHED"} and len(below) == 3
    by_name = {run.info.run_name: run.data for run in below}
    for trial in results["search"]["trials"]:
        run = by_name[f"trial {trial['number']}"]
        assert run.metrics == {"identity_mse": trial["value"]} and run.tags["kind"] == "search trial"
        assert run.params == {f"training.regressor.{name}": str(value) for name, value in trial["parameters"].items()}
    mean, components = registry.predictor(champion).regressor.encoders.pca["image_embedding"]
    assert len(components) == min(best["parameters"]["pca_components"], len(mean))


def test_the_searching_library_is_part_of_the_key_where_it_decides_anything():
    off, on = (load_config(None, [f"training.search.trials={trials}"]) for trials in (0, 5))
    assert "optuna" not in trains.training_recipe(off, Catalogue.of({}))["libraries"]
    assert "optuna" in trains.training_recipe(on, Catalogue.of({}))["libraries"]


def test_a_store_that_dies_at_the_end_loses_nothing(make_lake, monkeypatch):
    lake = make_lake(labelled=120, unlabelled=0, seed=4, overrides=("training.leave_out=[]",))

    def dies(*_: object, **__: object) -> None:
        raise OSError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr("mlflow.pyfunc.log_model", dies)
        with pytest.raises(StageError, match=r"connection lost.*run `smp train` again"):
            train(lake.session, lake.config, run="run-1")
    registry = Registry(lake.config)
    assert registry.versions() == []
    monkeypatch.setattr(trains, "_compute", lambda *_: pytest.fail("computed again"))
    resumed = train(lake.session, lake.config, run="run-2")
    assert resumed.outcome == "done" and registry.champion() is not None


def test_a_store_that_is_down_is_said_before_anything_is_computed(lake, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = load_config(None, ["registry.tracking_uri=http://user:secret@127.0.0.1:9"], root=lake.config.root)
    monkeypatch.setattr(trains, "_compute", lambda *_: pytest.fail("computed"))
    with pytest.raises(StageError, match=r"MLflow at http://\*\*\*@127\.0\.0\.1:9 failed") as raised:
        train(lake.session, config, run="run-1")
    assert "secret" not in str(raised.value)


def test_same_seed_gives_the_same_metrics_and_predictions(trained):
    lake, _ = trained
    registry = Registry(lake.config)
    recorded, oof = registry.results(registry.champion()), registry.predictions(registry.champion())
    snapshot = snapshots.load(Path(lake.lakehouse.folder("snapshots", recorded["snapshot"])))
    rows = snapshots.read(snapshot)
    catalogue = lake.lakehouse.catalogue
    inputs = inputs_of(lake.config, catalogue, snapshot)
    again = run_experiment(
        rows, inputs, lake.config, catalogue, lambda names: trains.epochs_of(snapshot, rows, names), {}
    )
    assert again.results["scores"] == recorded["scores"]
    assert again.results["leave_out"] == recorded["leave_out"]
    assert np.array_equal(again.out_of_fold.sort_values("row_id")["predicted"], oof.sort_values("row_id")["predicted"])
