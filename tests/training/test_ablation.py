"""The ablation's tables: which cells there are, what each sees, and that a cell is what training would have made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from scipy.stats import spearmanr

from smp_features.config import AdapterConfig, Config, RegressorConfig, TrainingConfig
from smp_features.errors import StageError
from smp_features.lake.files import open_store
from smp_features.lake.schema import Schema
from smp_features.model.inputs import Inputs
from smp_features.splits import chronological
from smp_features.training import ablate as ablates
from smp_features.training import ablation as ablations
from smp_features.training.ablate import ablate, find, newest_by_split, table
from smp_features.training.ablation import cells, run_ablation
from smp_features.training.nested import Division, Nest, cross_fit, identity_divisions
from smp_features.training.registry import Registry

CATALOGUE = Schema.of(Config()).catalogue
N, WIDTH, FOLDS = 240, 5, 3
INPUTS = Inputs(
    ("event_hour", "user_photo_count", "caption_title_similarity", "title_log_perplexity"),
    {"image_embedding": WIDTH, "caption_embedding": WIDTH, "title_embedding": WIDTH},
    {"category": ["a", "b"]},
    content=frozenset(CATALOGUE.content_columns),
)
CONFIG = TrainingConfig(
    folds=FOLDS,
    bootstrap=100,
    adapter=AdapterConfig(min_steps=20),
    regressor=RegressorConfig(rounds=60, learning_rate=0.1, early_stopping=10, pca_components=3, adapted_components=2),
)


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {name: rng.normal(size=(N, WIDTH)).astype(np.float32) for name in INPUTS.dims}
    made |= {f"has_{name}": np.ones(N) for name in INPUTS.dims}
    made |= {name: rng.normal(size=N) for name in INPUTS.numbers}
    user = np.arange(N) // 4
    return made | {
        "category": np.arange(N) % 2,
        "popularity": 6 + 2 * made["user_photo_count"] + made["image_embedding"][:, 0] + rng.normal(scale=0.3, size=N),
        "user": user,
        "fold": user % (FOLDS + 1) - 1,
        "row_id": np.arange(N) * 3,
        "event_time": np.arange(N, dtype=float) // 2,
    }


def epochs_of(rows):
    return lambda columns: (
        lambda: iter([{name: rows[name] for c in columns for name in (c, f"has_{c}")} | {"position": np.arange(N)}])
    )


@pytest.fixture(scope="module")
def ablated(rows):
    return run_ablation(rows, INPUTS, CONFIG, CATALOGUE, epochs_of(rows), ["identity", "chronological"])


def test_the_tables_of_groups_have_the_steps_of_the_paper():
    found = cells(INPUTS, CONFIG.adapter, CATALOGUE)
    assert [cell.name for cell in found if cell.table == "left out"] == [
        "all", "without image", "without caption", "without text", "without similarity", "without perplexity",
        "without time", "without category", "without user", "without picture",
    ]  # fmt: skip
    added = [cell for cell in found if cell.table == "added"]
    assert [cell.name for cell in added] == [
        "median", "metadata", "+ similarity", "+ perplexity", "+ image", "+ text", "adapted image instead of raw",
        "adapted text instead of raw", "all",
    ]  # fmt: skip
    assert [cell.against for cell in added] == [None, *(cell.name for cell in added[:-1])]


def test_each_step_changes_what_it_says_and_nothing_else():
    added = {cell.name: cell.inputs for cell in cells(INPUTS, CONFIG.adapter, CATALOGUE) if cell.table == "added"}
    assert added["metadata"].columns == ("event_hour", "user_photo_count", "category")
    assert set(added["+ similarity"].columns) - set(added["metadata"].columns) == {"caption_title_similarity"}
    assert added["+ image"].raw == ("image_embedding",) and added["+ image"].adapted == ()
    assert added["+ text"].raw == tuple(INPUTS.dims) and added["+ text"].adapted == ()
    image, text = added["adapted image instead of raw"], added["adapted text instead of raw"]
    assert (image.raw, image.adapted) == (("caption_embedding", "title_embedding"), ("image_embedding",))
    assert (text.raw, text.adapted) == ((), tuple(INPUTS.dims))
    assert added["all"] == INPUTS and INPUTS.raw == INPUTS.adapted == tuple(INPUTS.dims)


def test_each_row_of_the_adapter_table_differs_in_one_choice():
    found = {cell.name: cell for cell in cells(INPUTS, CONFIG.adapter, CATALOGUE) if cell.table == "adapter"}
    assert list(found) == ["as configured", "form bottleneck", "loss huber", "loss intervals", "without an adapter"]
    assert [cell.against for cell in found.values()] == [None, *["as configured"] * 4]
    for name, change in (("form bottleneck", {"form": "bottleneck"}), ("loss intervals", {"loss": "intervals"})):
        assert found[name].adapter == AdapterConfig(min_steps=20, **change) and found[name].inputs == INPUTS
    assert found["without an adapter"].inputs.raw == tuple(INPUTS.dims)
    assert found["without an adapter"].inputs.adapted == ()
    assert found["without an adapter"].inputs.columns == INPUTS.columns
    other = cells(INPUTS, AdapterConfig(form="bottleneck", loss="intervals"), CATALOGUE)
    assert [cell.name for cell in other if cell.table == "adapter"][1:4] == ["form mixture", "loss mse", "loss huber"]


def test_what_predicts_the_same_is_computed_once(rows, monkeypatch):
    computed = []

    def predict(nest, inputs, divisions, every, target, length):
        adapter = nest._config.adapter if inputs is not None and inputs.adapted else None
        computed.append(None if inputs is None else (inputs, adapter))
        return {name: np.where(rows["fold"] < 0, np.nan, len(computed)) for name in divisions}

    monkeypatch.setattr(ablations, "_predict", predict)
    results, predictions = run_ablation(rows, INPUTS, CONFIG, CATALOGUE, epochs_of(rows), ["identity"])
    assert len(results["splits"]["identity"]) - len(computed) == 3
    assert all(computed.count(each) == 1 for each in computed)
    for one, other in (("added/all", "left out/all"), ("adapter/as configured", "left out/all"),
                       ("adapter/without an adapter", "added/+ text")):  # fmt: skip
        assert predictions[f"identity/{one}"].equals(predictions[f"identity/{other}"])


def test_groups_that_are_not_there_make_no_cell():
    less = Inputs(("event_hour",), {}, {})
    assert [(cell.table, cell.name) for cell in cells(less, CONFIG.adapter, CATALOGUE)] == [
        ("left out", "all"), ("added", "median"), ("added", "metadata"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"popularity": np.full(N, 5.0)}, "All labels of the training set are equal"),
        ({"user": np.arange(N) % 3, "fold": np.arange(N) % 3}, "of 3 users outside the gate; at least 10"),
    ],
)
def test_rows_of_which_nothing_can_be_learned_are_one_line_before_anything_is_fitted(rows, monkeypatch, change, said):
    monkeypatch.setattr(ablations, "cross_fit", lambda *_: pytest.fail("something was fitted"))
    with pytest.raises(StageError, match=said):
        run_ablation(rows | change, INPUTS, CONFIG, CATALOGUE, epochs_of(rows), ["identity"])


def test_scores_and_differences_are_those_of_the_predictions(ablated, rows):
    results, predictions = ablated
    for split, found in results["splits"].items():
        by_name = {(cell["table"], cell["cell"]): cell for cell in found}
        for (of, name), cell in by_name.items():
            column = predictions[f"{split}/{of}/{name}"]
            kept = column.notna()
            assert cell["n"] == kept.sum()
            assert cell["mae"]["value"] == pytest.approx((column - predictions["actual"])[kept].abs().mean())
            if "median" in (name, cell["against"]):  # one constant per division orders nothing
                assert (cell["delta_src"] or {"value": None})["value"] is None
                assert (cell["src"]["value"] is None) == (name == "median")
            elif cell["against"] is not None:
                other = predictions[f"{split}/{of}/{cell['against']}"][kept]
                actual = predictions["actual"][kept]
                change = spearmanr(column[kept], actual).statistic - spearmanr(other, actual).statistic
                assert cell["delta_src"]["value"] == pytest.approx(change)


def test_identity_predicts_all_but_the_gate_and_time_the_latest(ablated, rows):
    _, predictions = ablated
    assert np.array_equal(predictions["identity/added/all"].notna(), rows["fold"] >= 0)
    kept = rows["fold"] >= 0
    expected = np.zeros(N, dtype=bool)
    expected[kept] = chronological(rows["event_time"][kept].tolist(), rows["user"][kept].tolist()).held_out
    assert np.array_equal(predictions["chronological/added/all"].notna(), expected)


def test_all_features_are_the_model_that_training_validates(ablated, rows):
    _, predictions = ablated
    expected, _ = cross_fit(Nest(rows, epochs_of(rows), CONFIG), INPUTS, identity_divisions(rows["fold"]), N)
    for of in ("left out", "added"):
        assert np.array_equal(predictions[f"identity/{of}/all"], expected, equal_nan=True)


def test_another_adapter_is_the_model_that_its_configuration_trains(ablated, rows):
    _, predictions = ablated
    divisions = identity_divisions(rows["fold"])
    for name, change in (("form bottleneck", {"form": "bottleneck"}), ("loss intervals", {"loss": "intervals"})):
        config = CONFIG.model_copy(update={"adapter": AdapterConfig(min_steps=20, **change)})
        expected, _ = cross_fit(Nest(rows, epochs_of(rows), config), INPUTS, divisions, N)
        assert np.array_equal(predictions[f"identity/adapter/{name}"], expected, equal_nan=True)
        assert not np.array_equal(expected, predictions["identity/left out/all"], equal_nan=True)


def test_a_cell_names_its_adapter_only_if_it_has_one(ablated):
    results, _ = ablated
    by_name = {(cell["table"], cell["cell"]): (cell["form"], cell["loss"]) for cell in results["splits"]["identity"]}
    assert by_name["adapter", "loss intervals"] == ("mixture", "intervals")
    assert by_name["adapter", "form bottleneck"] == ("bottleneck", "mse")
    assert by_name["left out", "without user"] == by_name["adapter", "as configured"] == ("mixture", "mse")
    for without in (("adapter", "without an adapter"), ("added", "+ text"), ("added", "median")):
        assert by_name[without] == (None, None)


def test_what_the_label_hangs_on_is_worth_most(ablated):
    results, _ = ablated
    cost = {
        c["cell"]: c["delta_src"]["value"]
        for c in results["splits"]["identity"]
        if c["table"] == "left out" and c["against"]
    }
    assert min(cost, key=cost.get) == "without user"
    assert cost["without picture"] < -0.02


def test_a_booster_sees_only_the_forms_it_is_given(rows):
    division = Division("fold 0", rows["fold"] > 0, rows["fold"] == 0)
    added = {cell.name: cell.inputs for cell in cells(INPUTS, CONFIG.adapter, CATALOGUE) if cell.table == "added"}

    def projections(name):
        return set(Nest(rows, epochs_of(rows), CONFIG).fit(added[name], division).regressor.encoders.pca)

    assert projections("+ image") == {"image_embedding"}
    assert projections("adapted image instead of raw") == {
        "image_embedding_adapted", "caption_embedding", "title_embedding",
    }  # fmt: skip


@pytest.mark.spark
def test_every_cell_is_a_run_and_the_same_table_is_not_made_twice(lake, monkeypatch):
    first = ablate(lake.session, lake.config)
    registry = Registry(lake.config)
    ((split, found),) = first.results["splits"].items()
    assert split == "identity" and len({cell["run"] for cell in found}) == len(found)
    for cell in found:
        run = registry.client.get_run(cell["run"])
        assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == first.run
        assert run.data.metrics["mae"] == cell["mae"]["value"]
        assert (run.data.params["form"], run.data.params["loss"]) == (str(cell["form"]), str(cell["loss"]))
        assert run.data.tags["clip_text_extractor"] == "clip_text-1"
        assert run.data.tags["training_set_version"] == str(first.results["versions"]["training_set"])
    assert len(table(first)) == len(found)
    losses = {cell["cell"]: cell["loss"] for cell in found if cell["table"] == "adapter"}
    assert losses["loss intervals"] == "intervals" and losses["as configured"] == "mse"

    with monkeypatch.context() as broken:
        broken.setattr("smp_features.training.ablate.run_ablation", lambda *_: pytest.fail("computed again"))
        again = ablate(lake.session, lake.config)
    assert (again.run, again.results, again.made_now) == (first.run, first.results, False)
    assert [each.run for each in find(registry, "snapshot", first.results["snapshot"])] == [first.run]

    forced = ablate(lake.session, lake.config, force=True)
    assert forced.run != first.run
    newest = newest_by_split(registry, first.results["snapshot"])
    assert newest == {"identity": (forced.run, forced.results["splits"]["identity"])}

    def plain(results):
        return [{k: v for k, v in cell.items() if k != "run"} for cell in results["splits"]["identity"]]

    assert plain(forced.results) == plain(first.results)


@pytest.mark.parametrize("dies_at", ["create_run", "log_artifact"])
def test_a_store_that_dies_at_the_end_costs_no_table(ablated, mlflow_store, tmp_path, monkeypatch, dies_at):
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    config = Config(root=str(tmp_path))
    registry, files = Registry(config), open_store(config.root)
    cells_of = ablated[0]["splits"]["identity"][:2]
    made = {"splits": {"identity": cells_of}, "versions": {"training_set": 1}, "snapshot": "s"}

    def computed(*arguments) -> None:
        (arguments[-1] / ablates.RESULTS).write_text(json.dumps(made | {"fingerprints": {}, "time_rules": "strict"}))
        (arguments[-1] / ablates.PREDICTIONS).write_bytes(b"a table")

    lakehouse = SimpleNamespace(version=lambda _: 1, catalogue=CATALOGUE, files=files)
    monkeypatch.setattr(ablates, "Lakehouse", lambda *_: lakehouse)
    monkeypatch.setattr(ablates.snapshots, "content_key", lambda *_: "s")
    monkeypatch.setattr(ablates, "_compute", computed)
    with monkeypatch.context() as broken, pytest.raises(StageError, match=r"connection lost.*run `smp ablate` again"):
        broken.setattr(f"mlflow.tracking.MlflowClient.{dies_at}", Mock(side_effect=OSError("connection lost")))
        ablate(None, config)
    monkeypatch.setattr(ablates, "_compute", lambda *_: pytest.fail("computed again"))
    resumed = ablate(None, config)
    assert resumed.made_now
    assert [each["cell"] for each in resumed.results["splits"]["identity"]] == [each["cell"] for each in cells_of]
    kept = registry.client.download_artifacts(resumed.run, ablates.PREDICTIONS)
    assert Path(kept).read_bytes() == b"a table"
    assert ablate(None, config).run == resumed.run
    assert files.list("staging/ablations") == []
    assert registry.client.search_runs([registry.experiment], "attributes.status = 'RUNNING'") == []
