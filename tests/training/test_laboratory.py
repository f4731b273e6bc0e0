"""What the report measures of a version's adapters: after training, once, from what training kept."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from smp_features.analysis.adaptation_section import adaptation_section
from smp_features.analysis.laboratory import movement, tsne
from smp_features.analysis.laboratory.measure import measure_champion
from smp_features.analysis.page import Picture, Table
from smp_features.analysis.results import champion_results
from smp_features.config import load_config
from smp_features.training import snapshot as snapshots
from smp_features.training.experiment import inputs_of
from smp_features.training.nested import Nest, divisions_of, final_division, identity_divisions
from smp_features.training.registry import Registry
from smp_features.training.train import epochs_of

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def measured(trained):
    """The lake, its champion, and what the laboratory knew of it before it measured."""
    lake, _ = trained
    registry = Registry(lake.config)
    champion = registry.champion()
    before = registry.laboratory(champion)
    # Another configuration than it was trained with: what is measured is the model as it is.
    config = load_config(None, ["training.seed=99", "training.adapter.min_steps=1"], root=lake.config.root)
    assert measure_champion(lake.lakehouse, config) is None
    return lake, registry, champion, before


def test_nobody_waits_for_it_in_training(measured):
    *_, before = measured
    assert before is None


def test_it_is_what_the_adapters_of_the_training_itself_give(measured):
    lake, registry, champion, _ = measured
    snapshot = snapshots.load(Path(lake.lakehouse.folder("snapshots", champion.tags["snapshot"])))
    rows, config = snapshots.read(snapshot), lake.config.training
    inputs = inputs_of(lake.config, lake.lakehouse.catalogue, snapshot)
    epochs = partial(epochs_of, snapshot, rows)
    nest, folds, final = Nest(rows, epochs, config), identity_divisions(rows["fold"]), final_division(rows["fold"])
    nest.prepare(inputs, [*folds, final, *divisions_of("chronological", rows, config.seed)])
    expected = movement.measure(rows, inputs, partial(nest.adapters, inputs), epochs, config, folds, final)
    placed = tsne.coordinates(rows, nest.adapters(inputs, final), final.train, rows["fold"], config.seed)
    moved, found = registry.laboratory(champion)
    assert [each["modality"] for each in moved] == list(inputs.adapted) == [each["modality"] for each in expected]
    for one, other in zip(moved, expected, strict=True):
        assert (one["n"], one["users"]) == (other["n"], other["users"])
        for name in ("moved", "shuffled", "difference", "src_raw", "src_adapted", "gain"):
            assert one[name]["value"] == pytest.approx(other[name]["value"], abs=1e-9), name
            assert one[name]["low"] == pytest.approx(other[name]["low"], abs=1e-9), name
    pd.testing.assert_frame_equal(found, placed)
    assert moved[0]["moved"]["value"] > 0 and set(found["state"]) == {"before", "after"}
    assert next(e for e in moved if e["modality"] == "title_embedding")["n"] < len(registry.predictions(champion))


def test_it_is_kept_with_the_run(measured):
    _, registry, champion, _ = measured
    kept = registry.client.get_run(champion.run).data.metrics
    assert {"moved_image_embedding", "moved_image_embedding_difference", "moved_image_embedding_gain_low"} <= set(kept)
    assert "adaptation.png" in {
        Path(each.path).name for each in registry.client.list_artifacts(champion.run, "figures")
    }
    moved, _ = registry.laboratory(champion)
    assert kept["moved_image_embedding"] == moved[0]["moved"]["value"]


def test_it_is_measured_once(measured, monkeypatch):
    lake, *_ = measured
    monkeypatch.setattr(movement, "measure", lambda *_: pytest.fail("measured again"))
    assert measure_champion(lake.lakehouse, lake.config) is None


def test_the_report_shows_it(measured):
    lake, *_ = measured
    section = adaptation_section(champion_results(lake.config).adaptation)
    distances, worth = (block for block in section.blocks if isinstance(block, Table))
    assert distances.rows[0][0] == worth.rows[0][0] == "image_embedding"
    assert sum(isinstance(block, Picture) for block in section.blocks) == 2


def test_a_deleted_snapshot_is_exported_again_and_one_that_cannot_be_is_said(measured, monkeypatch):
    lake, _, champion, _ = measured
    folder = Path(lake.lakehouse.folder("snapshots", champion.tags["snapshot"]))
    shutil.rmtree(folder)
    monkeypatch.setattr(Registry, "laboratory", lambda *_: None)
    kept = []
    monkeypatch.setattr(Registry, "keep_laboratory", lambda *found: kept.append(found))
    monkeypatch.setattr(movement, "measure", lambda *_: [])
    with monkeypatch.context() as other:
        other.setattr(snapshots, "content_key", lambda *_: "another")
        said = measure_champion(lake.lakehouse, lake.config)
        assert said is not None and "version 1 was trained on are gone" in said and "smp report" in said
        assert adaptation_section(None, said).missing == said
    assert measure_champion(lake.lakehouse, lake.config) is None
    assert (folder / snapshots.MANIFEST).exists() and len(kept) == 1


def test_a_version_whose_adapters_were_not_kept_says_what_to_run(measured, monkeypatch):
    lake, *_ = measured
    monkeypatch.setattr(Registry, "laboratory", lambda *_: None)
    monkeypatch.setattr(Registry, "pair_adapters", lambda *_: None)
    said = measure_champion(lake.lakehouse, lake.config)
    assert said is not None and "smp train --force" in said
