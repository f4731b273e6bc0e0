"""What was planted is found again as far as erring detectors let it through, and not where nothing is to be found."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from benchmarks.known_effects import Planted, detectors, read_planted, recovery, two_heap_split
from smp_features.demo import formula
from smp_features.demo.generate import generate
from smp_features.demo.population import draw
from smp_features.demo.scenes import PLACE_NAMES
from smp_features.demo.vocabulary import CATEGORY_NAMES
from smp_features.errors import UsageError

EFFECTS = {
    "inconsistent": formula.INCONSISTENCY_EFFECT,
    "gibberish": formula.GIBBERISH_EFFECT,
    "place": formula.PLACE_EFFECT,
    "birds": formula.BIRD_EFFECT,
}


@pytest.fixture(scope="module")
def made() -> tuple[pd.DataFrame, Planted]:
    """Drawn posts with measures of the kind that models make, wrong for a part of them."""
    drawn = draw(9_000, seed=5)[1]
    rng = np.random.default_rng(6)
    kind, n = drawn.title_kind, len(drawn)
    truth = pd.DataFrame(
        {
            "inconsistent": kind == formula.INCONSISTENT,
            "gibberish": (kind == formula.GIBBERISH) | (kind == formula.CAMERA),
            "place": drawn.place - 2,
            "birds": drawn.birds,
            "latent": drawn.effects.total(),
        },
        index=drawn.pid.astype(str),
        dtype="float64",
    )
    fits = kind == formula.CONSISTENT
    captions = []
    for row in range(n):
        scene = drawn.scene(row)
        wrong = rng.random() < 0.15
        place = PLACE_NAMES[int(rng.integers(5))] if wrong else scene.place
        captions.append(
            scene.__class__(scene.shape, scene.colour, place, int(rng.integers(4)) if wrong else scene.birds)
        )
    posts = pd.DataFrame(
        {
            "pid": truth.index,
            "uid": drawn.user,
            "popularity": formula.score_of(drawn.views),
            "category": np.array(CATEGORY_NAMES)[drawn.category],
            "event_epoch_days": drawn.event_time / 86400,
            "event_weekday": (drawn.event_time // 86400 + 3) % 7 + 1.0,
            "caption": [scene.caption for scene in captions],
            "caption_title_similarity": np.where(fits, 0.75, 0.35) + rng.normal(0, 0.12, n),
            "title_log_perplexity": np.where(truth["gibberish"] == 1, 9.0, 3.0) + rng.normal(0, 1.6, n),
        }
    )
    posts.loc[kind == formula.EMPTY, ["caption_title_similarity", "title_log_perplexity"]] = np.nan
    posts.loc[drawn.image_fault != 0, ["caption", "caption_title_similarity"]] = [None, np.nan]
    return posts, Planted(EFFECTS, truth)


@pytest.fixture(scope="module")
def table(made) -> pd.DataFrame:
    return recovery(*made, resamples=400).set_index("effect")


def test_every_planted_effect_is_found_as_its_detector_should_see_it(table):
    assert list(table.index) == ["inconsistency", "gibberish", "place", "birds"]
    assert table["covers"].all()
    # Weakened by the detectors' errors: the planted values themselves are out of reach.
    weakened = table["expected"] / table["planted"]
    assert ((weakened > 0.6) & (weakened < 0.99)).all()
    assert not (table["low"] <= table["planted"])["place"] or not (table["planted"] <= table["high"])["place"]


def test_the_detectors_errors_are_measured_against_the_truth(made, table):
    posts, planted = made
    truth = planted.posts.loc[posts["pid"]].reset_index(drop=True)
    shown = detectors(posts)
    both = shown["gibberish"].notna()
    assert table.loc["gibberish", "sensitivity"] == pytest.approx(
        (shown["gibberish"][both & (truth["gibberish"] == 1)]).mean(), abs=0.01
    )
    # 15 % of the captions name a place at random, one in five of them the right one.
    assert table.loc["place", "agreement"] == pytest.approx(0.85 + 0.15 / 5, abs=0.02)
    assert np.isnan(table.loc["place", "sensitivity"])


def test_detectors_use_neither_popularity_nor_truth(made):
    posts, _ = made
    pd.testing.assert_frame_equal(detectors(posts), detectors(posts.drop(columns="popularity")))


def test_posts_with_another_score_recover_nothing(made):
    posts, planted = made
    shuffled = posts.assign(popularity=np.random.default_rng(8).permutation(posts["popularity"]))
    assert not recovery(shuffled, planted, resamples=200)["covers"].any()


def test_a_post_without_picture_or_title_is_not_judged_by_it():
    posts = pd.DataFrame(
        {
            "caption": [None, "a red boat at the beach with two birds", "a boat", "a blue fish in the snow"] * 5,
            "caption_title_similarity": [np.nan, 0.8, 0.1, 0.75] * 5,
            "title_log_perplexity": [2.0, 3.0, 2.5, np.nan] * 5,
        }
    )
    posts.loc[[16, 17, 18], "title_log_perplexity"] = [20.0, 21.0, 22.0]
    shown = detectors(posts)
    assert shown.iloc[0][["inconsistent", "place", "birds"]].isna().all()
    assert shown.iloc[1].tolist() == [0, 0, 1, 2]  # the beach is one step above the middle
    assert shown.iloc[2, [1, 3]].tolist() == [1, 0] and np.isnan(shown.loc[2, "place"])
    assert np.isnan(shown.loc[3, "gibberish"]) and shown.loc[3, "place"] == 0
    assert shown.iloc[18, :2].tolist() == [1, 0]


@pytest.mark.parametrize("share", [0.05, 0.16, 0.5])
def test_the_cut_lies_between_two_heaps_of_unequal_size_and_width(share):
    rng = np.random.default_rng(9)
    upper = rng.random(4000) < share
    values = np.where(upper, rng.normal(9, 1.5, 4000), rng.normal(3, 0.7, 4000))
    assert 4.5 < two_heap_split(values) < 6.5
    assert 1 - ((values > two_heap_split(values)) == upper).mean() < 0.02
    assert two_heap_split(np.append(values, np.full(100, values.min()))) == pytest.approx(
        5.5, abs=1
    )  # a repeated value
    assert np.isnan(two_heap_split([1.0, np.nan, 2.0]))
    assert two_heap_split([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]) == 0.5


def test_what_was_planted_is_read_for_the_posts_in_the_folder(tmp_path):
    generate(60, tmp_path / "posts", seed=3)
    planted = read_planted(tmp_path / "posts")
    assert planted.effects == EFFECTS
    texts = []
    for split in ("train", "test"):
        texts += json.loads((tmp_path / "posts" / f"{split}_allmetadata_json" / f"{split}_text.json").read_text())
    titles = {str(text["Pid"]): text.get("Title", text.get("Tile")) for text in texts}
    assert set(planted.posts.index) == set(titles)
    camera = [
        pid for pid, title in titles.items() if re.fullmatch(r"(IMG_|DSC|P10|MVI_|PICT).*\d{4}(\.jpg)?", title, re.I)
    ]
    words = [pid for pid, title in titles.items() if re.search(r"\b(the|a|an|my|this|one)\b", title, re.I)]
    assert (planted.posts.loc[camera, "gibberish"] == 1).all()
    assert len(words) > 10 and (planted.posts.loc[words, "gibberish"] == 0).all()
    assert set(planted.posts["place"]) == {-2, -1, 0, 1, 2} and planted.posts["inconsistent"].sum() > 0
    described = tmp_path / "posts" / "generated.json"
    described.write_text(described.read_text().replace('"generator_version": 1', '"generator_version": 0'))
    with pytest.raises(UsageError, match="version 0"):
        read_planted(tmp_path / "posts")
