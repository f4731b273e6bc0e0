"""Titles people might give a scene: fitting, not fitting, typed at random, or named by the camera."""

from __future__ import annotations

import dataclasses

import numpy as np

from smp_features.demo.scenes import COLOUR_NAMES, OBJECTS, Scene

# Titles say what and which colour, never where or how many birds: the picture's planted effect must not be readable.
SHAPE_WORDS = {
    "ball": ("ball", "ball", "round ball", "bouncing ball"),
    "star": ("star", "star", "little star", "five-pointed star"),
    "heart": ("heart", "heart", "big heart", "sweetheart"),
    "house": ("house", "house", "little house", "cottage"),
    "boat": ("boat", "boat", "sailboat", "sailing boat"),
    "fish": ("fish", "fish", "little fish", "big fish"),
    "tree": ("tree", "tree", "old tree", "pine tree"),
    "moon": ("moon", "moon", "crescent moon", "new moon"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "red", "scarlet", "crimson"),
    "orange": ("orange", "orange", "orange", "amber", "bright orange"),
    "yellow": ("yellow", "yellow", "yellow", "golden", "bright yellow"),
    "green": ("green", "green", "green", "emerald", "dark green"),
    "blue": ("blue", "blue", "blue", "navy blue", "deep blue"),
    "purple": ("purple", "purple", "purple", "violet", "deep purple"),
    "pink": ("pink", "pink", "pink", "rosy", "pale pink"),
    "white": ("white", "white", "white", "milky white", "pure white"),
}
MOODS = (
    "lovely", "quiet", "lonely", "happy", "strange", "beautiful", "simple", "proud", "gentle", "funny", "brave",
    "sleepy", "perfect", "shy", "magic", "humble", "wonderful", "forgotten", "famous", "charming",
)  # fmt: skip
OPENINGS = (
    "Look at", "Found", "Watching", "Dreaming of", "Remember", "Meet", "Here is", "Thinking about", "I love",
    "Admiring", "Drawing", "Waiting for", "Who painted", "Chasing", "Say hello to", "Nothing beats",
    "Still in love with", "Discovering",
)  # fmt: skip
ENDINGS = (
    "this morning", "on a Sunday", "after the rain", "in March", "for my sister", "once more", "again",
    "before breakfast", "with friends", "just for fun", "from last summer", "for you", "at last", "all day long",
    "and a good mood", "on my way home", "in the afternoon", "for a change", "without a filter", "in spring",
)  # fmt: skip
PLAIN = (
    "{Thing}",
    "The {thing}",
    "{A} {thing}",
    "My {thing}",
    "{Opening} {a} {thing}",
    "{Opening} the {thing}",
    "{Opening} the {thing} {ending}",
    "{Opening} {a} {mood} {thing}",
    "{A} {mood} {thing} {ending}",
    "{Mood} {thing}",
    "{Mood} {thing} {ending}",
    "The {mood} {thing}",
    "{Thing} {ending}",
    "My {mood} {thing} {ending}",
    "Just {a} {thing}",
    "Such {a} {mood} {thing}!",
    "One {thing}, please",
    "What {a} {mood} {thing}!",
    "Portrait of {a} {thing}",
    "Study of {a} {mood} {thing}",
    "Another {thing} {ending}",
    "This {thing} made my day",
    "{Thing}, number {number}",
    "Do you like my {thing}?",
)
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = "!?*#~+=-_.:;/|^$%&@<>"
CAMERA_PREFIXES = ("IMG_", "DSC", "DSC_", "P10", "DSCN", "MVI_", "PICT")


def consistent_title(scene: Scene, rng: np.random.Generator) -> str:
    """Return a title that names the scene's main object and its colour in varied English."""
    words = SHAPE_WORDS[scene.shape]
    colours = COLOUR_WORDS[scene.colour]
    thing = f"{_pick(colours, rng)} {_pick(words, rng)}"
    mood = _pick(MOODS, rng)
    template = _pick(PLAIN, rng)
    first = mood if "{mood}" in template else thing
    an = "an" if first[0] in "aeiou" else "a"
    title = template.format(
        thing=thing,
        Thing=thing[0].upper() + thing[1:],
        mood=mood,
        Mood=mood.capitalize(),
        Opening=_pick(OPENINGS, rng),
        ending=_pick(ENDINGS, rng),
        a=an,
        A=an.capitalize(),
        number=int(rng.integers(2, 10)),
    )
    style = rng.random()
    if style < 0.15:
        return title.lower()
    return title + "." if style > 0.95 and title[-1].isalpha() else title


def other_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a plausible scene that is not this one: another object, another colour, or both."""
    change = rng.random()
    shape, colour = scene.shape, scene.colour
    if change < 0.8:
        shape = _pick(tuple(name for name in OBJECTS if name != scene.shape), rng)
    if change > 0.3:
        colour = _pick(tuple(name for name in COLOUR_NAMES if name != scene.colour), rng)
    return dataclasses.replace(scene, shape=shape, colour=colour)


def inconsistent_title(scene: Scene, rng: np.random.Generator) -> str:
    """Return a title, in the same English as the fitting ones, of a scene that this picture does not show."""
    return consistent_title(other_scene(scene, rng), rng)


def gibberish_title(rng: np.random.Generator) -> str:
    """Return a title typed at random: keyboard mashing, random letters, runs of symbols, or a mixture."""
    kind = rng.integers(4)
    if kind == 0:
        return " ".join(_mash(rng) for _ in range(rng.integers(1, 4)))
    if kind == 1:
        return " ".join(_letters(rng) for _ in range(rng.integers(2, 5)))
    if kind == 2:
        return "".join(_pick(SYMBOLS, rng) * int(rng.integers(1, 4)) for _ in range(rng.integers(5, 10)))
    return f"{_letters(rng)}{_pick(SYMBOLS, rng)}{int(rng.integers(10, 99999))} {_mash(rng)} {_pick(SYMBOLS, rng) * 3}"


def camera_title(rng: np.random.Generator) -> str:
    """Return the kind of file name a camera gives, as people leave it in the title field."""
    name = f"{_pick(CAMERA_PREFIXES, rng)}{int(rng.integers(1, 9999)):04d}"
    return name + _pick(("", ".JPG", ".jpg"), rng)


def _pick(options: tuple[str, ...] | str, rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _mash(rng: np.random.Generator) -> str:
    row = _pick(KEYBOARD_ROWS, rng)
    return "".join(_pick(row, rng) for _ in range(rng.integers(5, 12)))


def _letters(rng: np.random.Generator) -> str:
    return "".join(_pick(LETTERS, rng) for _ in range(rng.integers(4, 10)))
