"""Titles: fitting ones name the scene, the others do not, and none tells where it is or how many birds fly."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from smp_features.demo.scenes import PLACES, Scene, draw_scene
from smp_features.demo.titles import (
    COLOUR_WORDS,
    SHAPE_WORDS,
    camera_title,
    consistent_title,
    gibberish_title,
    inconsistent_title,
    other_scene,
)

DRAWS = 1500
PLACE_WORDS = {word for phrase in PLACES.values() for word in phrase.split()} - {"in", "the", "a", "at"}


def _drawn(make: Callable[[Scene, np.random.Generator], str]) -> list[tuple[Scene, str]]:
    rng = np.random.default_rng(21)
    return [(scene, make(scene, rng)) for scene in (draw_scene(rng) for _ in range(DRAWS))]


def _names(title: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", title.lower()) for word in words)


def test_fitting_titles_name_the_object_and_its_colour() -> None:
    for scene, title in _drawn(consistent_title):
        assert _names(title, SHAPE_WORDS[scene.shape]), title
        assert _names(title, COLOUR_WORDS[scene.colour]), title


def test_other_titles_name_another_object_or_colour() -> None:
    for scene, title in _drawn(inconsistent_title):
        assert not (_names(title, SHAPE_WORDS[scene.shape]) and _names(title, COLOUR_WORDS[scene.colour])), title


def test_another_scene_differs_in_what_titles_name_and_nothing_else() -> None:
    rng = np.random.default_rng(5)
    changed = set()
    for _ in range(300):
        scene = draw_scene(rng)
        other = other_scene(scene, rng)
        assert (other.place, other.birds) == (scene.place, scene.birds)
        changed.add((other.shape != scene.shape, other.colour != scene.colour))
    assert changed == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("make", [consistent_title, inconsistent_title])
def test_no_title_tells_where_the_scene_is_or_how_many_birds_fly(make: Callable) -> None:
    for _, title in _drawn(make):
        words = set(re.findall(r"[a-z]+", title.lower()))
        assert not words & (PLACE_WORDS | {"bird", "birds", "two", "three"}), title


def test_titles_vary() -> None:
    titles = [title for _, title in _drawn(consistent_title)]
    assert len(set(titles)) > 0.8 * DRAWS
    assert len({title.split()[0].lower() for title in titles}) > 40


def test_gibberish_holds_hardly_any_english() -> None:
    rng = np.random.default_rng(8)
    english = {word for words in (*SHAPE_WORDS.values(), *COLOUR_WORDS.values()) for word in words}
    titles = [gibberish_title(rng) for _ in range(500)]
    assert all(titles)
    assert not any(english & set(title.split()) for title in titles)
    assert sum(any(character.isalpha() for character in title) for title in titles) > 300


def test_camera_titles_look_like_file_names() -> None:
    rng = np.random.default_rng(8)
    assert all(re.fullmatch(r"[A-Z0-9]+_?\d{4}(\.jpg|\.JPG)?", camera_title(rng)) for _ in range(100))
