"""How far vectors moved is told from how far they would move anyway, and is never a row's own label's doing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from smp_features.analysis.laboratory.movement import distances, linear_scores, measure, shuffled
from smp_features.config import AdapterConfig, TrainingConfig
from smp_features.model.inputs import Inputs
from smp_features.training.nested import Division, Nest, identity_divisions

N, WIDTH, FOLDS = 900, 6, 3
INPUTS = Inputs((), {"image_embedding": WIDTH, "title_embedding": WIDTH}, {})
CONFIG = TrainingConfig(
    folds=FOLDS,
    bootstrap=200,
    adapter=AdapterConfig(image_ratio=0.6, text_ratio=0.6, batch=100, min_steps=400, learning_rate=1e-2),
)


def made_up(seed: int) -> dict[str, np.ndarray]:
    """Rows whose label is how far the picture's first component lies from zero, which no linear model can see."""
    rng = np.random.default_rng(seed)
    vectors = {name: rng.normal(size=(N, WIDTH)).astype(np.float32) for name in INPUTS.dims}
    user = np.arange(N) // 2
    return vectors | {
        "has_image_embedding": np.ones(N),
        "has_title_embedding": (np.arange(N) % 5 > 0).astype(float),
        "popularity": 4 + 3 * np.abs(vectors["image_embedding"][:, 0]).astype(float) + rng.normal(scale=0.3, size=N),
        "fold": user % (FOLDS + 1) - 1,  # a quarter is the gate
        "user": user,
    }


def source(rows: dict[str, np.ndarray]):
    chunk = {name: rows[name] for column in INPUTS.dims for name in (column, f"has_{column}")}
    return lambda columns: lambda: iter([chunk | {"position": np.arange(N)}])


def prepared(rows: dict[str, np.ndarray]):
    nest = Nest(rows, source(rows), CONFIG)
    folds = identity_divisions(rows["fold"])
    final = Division("final", rows["fold"] >= 0, rows["fold"] < 0)
    nest.prepare(INPUTS, [*folds, final])
    return nest, folds, final


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return made_up(0)


@pytest.fixture(scope="module")
def trained(rows):
    return prepared(rows)


def measured(rows, trained) -> dict[str, dict]:
    nest, folds, final = trained
    found = measure(rows, INPUTS, partial(nest.adapters, INPUTS), source(rows), CONFIG, folds, final)
    return {each["modality"]: each for each in found}


def test_what_the_label_hangs_on_moves_further_than_by_chance_and_scores_better(rows, trained):
    found = measured(rows, trained)
    image, title = found["image_embedding"], found["title_embedding"]
    assert image["difference"]["low"] > 0
    assert image["difference"]["value"] > 5 * abs(title["difference"]["value"])
    assert image["shuffled"]["value"] > 0.01  # the ratios and the first weights alone move it
    assert image["difference"]["value"] == pytest.approx(image["moved"]["value"] - image["shuffled"]["value"])
    assert image["src_raw"]["value"] < 0.2 < image["src_adapted"]["value"] and image["gain"]["low"] > 0.2
    assert title["gain"]["low"] < 0 < title["gain"]["high"] or abs(title["gain"]["value"]) < 0.05
    assert (image["n"], title["n"]) == ((rows["fold"] >= 0).sum(), ((rows["fold"] >= 0) & (np.arange(N) % 5 > 0)).sum())


def test_labels_that_are_noise_move_nothing_beyond_chance(rows):
    noise = rows | {"popularity": np.random.default_rng(5).permutation(rows["popularity"])}
    for each in measured(noise, prepared(noise)).values():
        assert abs(each["difference"]["value"]) < 0.1 * each["moved"]["value"]


def test_distances_are_those_of_each_folds_own_adapter(rows, trained):
    nest, _, final = trained
    adapters = nest.adapters(INPUTS, final)
    found = distances(rows, INPUTS, adapters, final, rows["fold"])
    for row in np.flatnonzero(rows["fold"] >= 0)[::40]:
        number = rows["fold"][row]  # folds 0, 1, 2: the adapter's place in the order
        one = {name: values[[row]] for name, values in rows.items()}
        after, _ = adapters.forward(number, one)
        for column in INPUTS.dims:
            if not rows[f"has_{column}"][row]:
                assert np.isnan(found[column][row])
                continue
            before = rows[column][row].astype(float) - adapters.weights[f"{column}.mean"][number]
            assert found[column][row] == pytest.approx(cosine(before, after[column][0]), abs=1e-6)
    assert all(np.isnan(values[rows["fold"] < 0]).all() for values in found.values())


def test_labels_are_dealt_out_among_the_rows_trained_on_only(rows):
    train = rows["fold"] >= 0
    found = shuffled(rows["popularity"], train, seed=1)
    assert np.array_equal(np.sort(found[train]), np.sort(rows["popularity"][train]))
    assert np.array_equal(found[~train], rows["popularity"][~train])
    assert (found[train] != rows["popularity"][train]).mean() > 0.9
    assert np.array_equal(found, shuffled(rows["popularity"], train, seed=1))


def test_a_held_out_label_has_no_part_in_its_own_score(rows, trained):
    nest, folds, _ = trained
    before = linear_scores(rows, INPUTS, partial(nest.adapters, INPUTS), folds, rows["popularity"])
    mine = rows["fold"] == 1
    changed = rows | {"popularity": np.where(mine, rows["popularity"] + 50, rows["popularity"])}
    other, folds, _ = prepared(changed)
    after = linear_scores(changed, INPUTS, partial(other.adapters, INPUTS), folds, changed["popularity"])
    for key, values in before.items():
        assert np.array_equal(values[mine], after[key][mine]), key
        others = (rows["fold"] >= 0) & ~mine
        assert not np.array_equal(values[others], after[key][others])


def test_without_vectors_there_is_nothing_to_measure(rows, trained):
    nest, folds, final = trained
    assert measure(rows, Inputs(("event_hour",), {}, {}), nest.adapters, source(rows), CONFIG, folds, final) == []
