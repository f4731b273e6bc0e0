"""The catalogue: features of extractors and of the source, their groups, and what a configuration may ask for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from smp_features.catalogue import BUILT_IN, Catalogue, Cosine, Feature, Lookup
from smp_features.config import Config, load_config
from smp_features.errors import ConfigError
from smp_features.lake.schema import Schema


@dataclass(frozen=True)
class Stand:
    """What a catalogue asks of an extractor."""

    name: str
    reads: str
    features: tuple[Feature, ...] = ()
    makes_text: str | None = None


def _vector(name: str, group: str, extractor: str, of: str) -> Feature:
    return Feature(name, group, "vector", "", made=Lookup(extractor, of, "embedding"))


def _catalogue(*extractors: Stand) -> Catalogue:
    return Catalogue.of({extractor.name: extractor for extractor in extractors})


def test_the_roles_make_the_measures_of_the_paper_in_the_order_of_their_columns():
    catalogue = Schema.of(Config()).catalogue
    assert catalogue.groups == (
        *("image", "caption", "text", "similarity", "perplexity"),
        *("title", "tags", "time", "place", "category", "user", "history", "external"),
    )
    assert catalogue.content_groups == ("image", "caption", "text", "similarity", "perplexity")
    similarities = tuple(f"{pair}_similarity" for pair in ("caption_title", "image_title", "image_caption"))
    assert catalogue.of_kind("vector") == ("image_embedding", "caption_embedding", "title_embedding")
    assert catalogue.columns_of("similarity") == similarities
    assert catalogue.columns_of("picture") == ("image_embedding", "caption_embedding", *similarities)
    assert catalogue.content_columns == tuple(feature.name for feature in catalogue.features[:8])
    assert catalogue.features[8:] == BUILT_IN


def test_a_column_is_of_the_picture_by_what_it_was_made_of():
    maker = Stand("ocr", "image", makes_text="words")
    text = Stand(
        "towers",
        "text",
        (
            _vector("title_vector", "towers", "towers", "title"),
            _vector("ocr_vector", "towers", "towers", "ocr"),
            Feature("likeness", "towers", "number", "", made=Cosine("title_vector", "ocr_vector")),
        ),
    )
    assert _catalogue(maker, text).columns_of("picture") == ("ocr_vector", "likeness")


def test_groups_are_selected_and_left_out_by_name():
    catalogue = Schema.of(Config()).catalogue
    names = [feature.name for feature in catalogue.selected(("place", "image", "similarity"), ("picture",))]
    assert names == ["has_place", "latitude", "longitude", "geo_accuracy"]
    assert catalogue.selected(None) == catalogue.features
    with pytest.raises(ConfigError, match=r"Unknown feature group 'plaec'. Did you mean 'place'?"):
        catalogue.columns_of("plaec")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (_vector("latitude", "new", "b", "image"), "called 'latitude': one of the package itself, one of .* 'b'"),
        (_vector("a_vector", "new", "b", "image"), "called 'a_vector': one of the extractor 'a', one of .* 'b'"),
        (_vector("b_vector", "user", "b", "image"), "'b_vector' of the extractor 'b' would join 'user'"),
        (_vector("b_vector", "picture", "b", "image"), "would join 'picture'"),
        (_vector("b_vector", "new", "c", "image"), "'b_vector' is computed by 'c', and there is no such extractor"),
        (_vector("b_vector", "new", "b", "titel"), "'b_vector' is of 'titel'.* Did you mean 'title'?"),
        (
            Feature("b_cosine", "new", "number", "", made=Cosine("a_vector", "a_vectr")),
            "'b_cosine' compares 'a_vectr', and no vector is called that. Did you mean 'a_vector'?",
        ),
    ],
)
def test_features_that_clash_or_are_made_of_nothing_are_refused(feature, said):
    first = Stand("a", "image", (_vector("a_vector", "a", "a", "image"),))
    with pytest.raises(ConfigError, match=said) as caught:
        _catalogue(first, Stand("b", "image", (feature,)))
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("features.groups=[imge]", "'features.groups': unknown feature group 'imge'. Did you mean 'image'?"),
        ("training.leave_out=[pictures]", "'training.leave_out': unknown feature group 'pictures'. Did you mean 'pict"),
    ],
)
def test_groups_of_the_configuration_that_do_not_exist_are_refused_before_anything_is_written(override, said):
    with pytest.raises(ConfigError) as caught:
        Schema.of(load_config(None, [override]))
    assert said in str(caught.value) and caught.value.exit_status == 2
