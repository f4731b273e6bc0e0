"""The champion's results are read from its own run, and a root without a store is left without one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from smp_features.analysis.adaptation_section import adaptation_section
from smp_features.analysis.model_sections import ablation_section
from smp_features.analysis.page import Picture, Table
from smp_features.analysis.results import ablated, adaptation, champion_results, interval, score_row, trained
from smp_features.config import load_config


def _results(src: float) -> dict[str, object]:
    held = {"value": src, "low": src - 0.1, "high": src + 0.1, "level": 0.95, "excludes_zero": True}
    entry = {"split": "identity", "model": "model", "segment": "all", "n": 2, "users": 2}
    entry |= {"src": held, "mae": held, "bias": held}
    return {
        "rows": {"labelled": 2, "users": 2, "gate": 0, "gate_users": 0},
        "label": {"median": 3.0, "low": 1.0, "high": 5.0},
        "headline": entry,
        "scores": [entry],
        "leave_out": [{"name": "picture", "delta_src": held, "delta_mae": held}],
        "importance": [{"feature": "title_embedding_pca_0", "group": "text", "gain": 4.0}],
        "external_used": True,
        "snapshot": "rows of version 1",
    }


@pytest.fixture
def two_versions(tmp_path):
    """A store with two versions of which the first is champion."""
    from smp_features.training.registry import CHAMPION, Registry

    config = load_config(None, [], root=str(tmp_path / "lake"))
    Path(config.root).mkdir()
    registry = Registry(config)
    registry.client.create_registered_model(registry.model)
    for src in (0.5, 0.9):
        run = registry.client.create_run(registry.experiment).info
        work = tmp_path / str(src)
        work.mkdir()
        (work / "results.json").write_text(json.dumps(_results(src)))
        rows = {"row_id": [1, 2], "pid": ["a", "b"], "uid": ["u", "v"], "actual": [1.0, 5.0], "predicted": [src, 4.0]}
        pd.DataFrame(rows).to_parquet(work / "oof_predictions.parquet")
        registry.client.log_artifacts(run.run_id, str(work))
        registry.client.create_model_version(registry.model, run.artifact_uri, run.run_id)
    registry.client.set_registered_model_alias(registry.model, CHAMPION, "1")
    return config


def test_the_champions_results_are_read_not_the_newest(two_versions):
    found = champion_results(two_versions)
    assert found is not None
    assert (found.version, found.head.src.value, found.label_median) == ("1", 0.5, 3.0)
    assert found.oof.to_dict("list") == {
        "pid": ["a", "b"], "uid": ["u", "v"], "predicted": [0.5, 4.0], "actual": [1.0, 5.0],
    }  # fmt: skip
    assert found.leave_out["picture"][0].low == pytest.approx(0.4)
    assert found.importance.to_dict() == {"title_embedding_pca_0": 4.0}
    assert found.group_of == {"title_embedding_pca_0": "text"}
    assert found.external_used
    assert found.ablations == {}
    assert found.adaptation is None  # it was trained before there were such records


def _cell(table: str, name: str, src: float | None, against: str | None = None) -> dict[str, object]:
    def held(value: float | None) -> dict[str, object]:
        ends = (None, None) if value is None else (value - 0.1, value + 0.1)
        return {"value": value, "low": ends[0], "high": ends[1], "level": 0.95, "excludes_zero": False}

    change = None if against is None else held(-0.2)
    return {
        "table": table, "cell": name, "against": against, "n": 5, "users": 2, "src": held(src), "mae": held(1.5),
        "bias": held(0.0), "delta_src": change, "delta_mae": change,
    }  # fmt: skip


def test_an_ablation_is_read_and_shown_with_its_verdicts():
    cells = ablated(
        [_cell("left out", "all", 0.5), _cell("left out", "without user", 0.3, "all"), _cell("added", "median", None)]
    )
    assert cells[0].src_change is None and math.isnan(cells[2].src.value)
    assert cells[1].cells[-1] == "mixed"  # SRC fell, and MAE fell too
    section = ablation_section({"identity": ("run-1", cells)})
    shown = [block for block in section.blocks if isinstance(block, Table)]
    assert [len(block.rows) for block in shown] == [1, 2]
    assert "identity" in shown[0].caption and "run-1" in shown[0].caption
    assert ablation_section({}).missing is not None


def test_choices_of_adapter_are_a_third_table_without_a_figure():
    rows = [
        _cell("left out", "all", 0.5),
        _cell("added", "all", 0.5),
        _cell("adapter", "as configured", 0.5) | {"form": "mixture", "loss": "mse"},
        _cell("adapter", "loss intervals", 0.3, "as configured") | {"form": "mixture", "loss": "intervals"},
    ]
    section = ablation_section({"identity": ("run-1", ablated(rows))})
    *groups, adapters = [block for block in section.blocks if isinstance(block, Table)]
    assert len(groups) == 2 and "form mixture, loss mse" in adapters.caption
    assert [row[0] for row in adapters.rows] == ["as configured", "loss intervals"]
    assert adapters.headers[-1] == "against as configured" and adapters.rows[1][3].value == pytest.approx(-0.2)
    assert sum(isinstance(block, Picture) for block in section.blocks) == 1


def test_the_note_says_which_scores_a_search_has_made_optimistic():
    oof = pd.DataFrame({"pid": ["a"], "uid": ["u"], "predicted": [1.0], "actual": [2.0]})
    trial = {"number": 0, "value": 2.0, "parameters": {"leaves": 7}}
    searched = _results(0.5) | {"search": {"trials": [trial, trial], "best": trial}}
    assert "best of 2 trials" in trained("m", "1", searched, oof).note
    for without in (_results(0.5), _results(0.5) | {"search": None}):
        assert "optimistic" not in trained("m", "1", without, oof).note


def test_a_root_that_was_never_trained_on_has_no_results_and_gets_no_store(tmp_path):
    assert champion_results(load_config(None, [], root=str(tmp_path / "lake"))) is None
    assert not (tmp_path / "lake").exists()
    assert champion_results(load_config(None, [], root="s3://bucket/lake")) is None


def test_what_could_not_be_computed_reads_as_nan():
    nothing = {"value": None, "low": None, "high": None, "level": 0.95, "excludes_zero": False}
    assert math.isnan(interval(nothing).value)
    entry = {"split": "identity", "model": "median", "segment": "all", "n": 3, "src": nothing}
    assert math.isnan(score_row(entry | {"mae": nothing, "bias": nothing}).src.value)


def test_what_adaptation_did_is_read_and_shown_with_its_figure():
    def held(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95, "excludes_zero": False}

    names = ("moved", "shuffled", "difference", "src_raw", "src_adapted", "gain")
    moved = {name: held(number / 10) for number, name in enumerate(names)}
    adapter = {
        "form": "mixture", "loss": "mse", "ratios": {"image_embedding": 0.2}, "count": 2, "kept": [1, 2],
        "train_loss": [1.0, 0.9], "stopping_loss": [1.0, 0.8], "held_out_loss": [None, None],
    }  # fmt: skip
    measured = [{"modality": "image_embedding", "n": 5, "users": 3, **moved}]
    placed = pd.DataFrame({"x": [0.0, 1.0], "y": [1.0, 0.0], "z": [0.0, 2.0], "density": [0.5, 1.0]})
    placed = placed.assign(modality="image", state=["before", "after"])
    found = adaptation({"adapter": adapter}, (measured, placed))
    section = adaptation_section(found)
    distances, worth = (block for block in section.blocks if isinstance(block, Table))
    assert distances.rows[0][:2] == worth.rows[0][:2] == ("image_embedding", 5)
    assert [cell.value for cell in distances.rows[0][2:]] == pytest.approx([0.0, 0.1, 0.2])
    assert [cell.value for cell in worth.rows[0][2:]] == pytest.approx([0.3, 0.4, 0.5])
    assert sum(isinstance(block, Picture) for block in section.blocks) == 2
    assert adaptation({"adapter": None}, ([], placed)) is None
    assert "smp train" in adaptation_section(None).missing
    assert adaptation_section(None, "The snapshot is gone.").missing == "The snapshot is gone."
