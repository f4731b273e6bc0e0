"""Rendered scenes: what they show is visible, and what does not matter varies."""

import dataclasses

import numpy as np
import pytest

from smp_features.demo.scenes import OBJECTS, Scene, article, draw_scene, render

PLAIN = Scene("boat", "red", "beach", 0)


def _pixels(scene: Scene, seed: int) -> np.ndarray:
    return np.asarray(render(scene, np.random.default_rng(seed)), dtype=np.int64)


def _changed(first: Scene, second: Scene, seed: int) -> np.ndarray:
    return np.abs(_pixels(first, seed) - _pixels(second, seed)).max(axis=2) > 40


@pytest.mark.parametrize("shape", OBJECTS)
def test_the_main_object_spans_two_fifths_of_the_width(shape: str) -> None:
    scene = dataclasses.replace(PLAIN, shape=shape)
    for seed in range(25):
        columns = np.flatnonzero(_changed(scene, dataclasses.replace(scene, colour="blue"), seed).any(axis=0))
        # One pixel of outline on each side does not change with the colour.
        assert columns[-1] - columns[0] + 1 + 2 >= 0.4 * 96


def test_at_most_eight_kinds_of_object_exist() -> None:
    assert len(OBJECTS) <= 8


def test_the_same_generator_state_renders_the_same_picture() -> None:
    assert np.array_equal(_pixels(PLAIN, 3), _pixels(PLAIN, 3))
    assert not np.array_equal(_pixels(PLAIN, 3), _pixels(PLAIN, 4))


def test_captions_name_colour_object_place_and_birds() -> None:
    assert PLAIN.caption == "a red boat at the beach"
    assert Scene("moon", "orange", "night", 1).caption == "an orange moon at night with one bird"
    assert Scene("fish", "blue", "city", 3).caption == "a blue fish in the city with three birds"


def test_articles_follow_the_first_letter() -> None:
    assert (article("orange"), article("pink")) == ("an", "a")


def test_attributes_are_drawn_evenly_and_independently() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(4000)]
    birds = np.array([scene.birds for scene in scenes])
    assert np.bincount(birds) / len(birds) == pytest.approx([0.25] * 4, abs=0.03)
    night = np.array([scene.place == "night" for scene in scenes])
    assert night.mean() == pytest.approx(0.2, abs=0.03)
    assert abs(np.corrcoef(birds, night)[0, 1]) < 0.05
