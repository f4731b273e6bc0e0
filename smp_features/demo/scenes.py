"""Rendered scenes: one coloured object, a place behind it and a few birds above it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

OBJECTS = ("ball", "star", "heart", "house", "boat", "fish", "tree", "moon")
COLOURS = {
    "red": (214, 32, 38),
    "orange": (244, 138, 22),
    "yellow": (246, 222, 50),
    "green": (34, 150, 62),
    "blue": (36, 82, 208),
    "purple": (128, 42, 168),
    "pink": (248, 142, 190),
    "white": (248, 248, 246),
}
COLOUR_NAMES = tuple(COLOURS)
# Where the scene is, in the order of the demo's planted picture effect (see formula.py), and how a caption says it.
PLACES = {
    "city": "in the city",
    "field": "in a field",
    "snow": "in the snow",
    "beach": "at the beach",
    "night": "at night",
}
PLACE_NAMES = tuple(PLACES)
MAX_BIRDS = 3
BIRD_PHRASES = ("", " with one bird", " with two birds", " with three birds")
MAIN_WIDTH = (0.45, 0.62)  # share of the picture; the narrowest shape, the tree, still spans two fifths of it
OUTLINE = (24, 22, 30)
OVERSAMPLING = 2  # drawn larger and averaged down, since ImageDraw does not smooth edges

Point = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        shape: One of ``OBJECTS``; the main object.
        colour: One of ``COLOUR_NAMES``; the main object's colour.
        place: One of ``PLACE_NAMES``; the background.
        birds: Number of small birds above the object, 0 to ``MAX_BIRDS``.
    """

    shape: str
    colour: str
    place: str
    birds: int

    @property
    def caption(self) -> str:
        """The scene in one plain sentence, e.g. ``a red boat at the beach with two birds``."""
        return f"{article(self.colour)} {self.colour} {self.shape} {PLACES[self.place]}{BIRD_PHRASES[self.birds]}"


def article(word: str) -> str:
    """Return ``an`` before a vowel letter and ``a`` otherwise."""
    return "an" if word[0] in "aeiou" else "a"


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene in which every attribute is uniform and independent of the others."""
    return Scene(
        OBJECTS[rng.integers(len(OBJECTS))],
        COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))],
        PLACE_NAMES[rng.integers(len(PLACE_NAMES))],
        int(rng.integers(MAX_BIRDS + 1)),
    )


def render(scene: Scene, rng: np.random.Generator, size: int = 96) -> Image.Image:
    """Render a scene as an RGB picture of ``size`` by ``size`` pixels.

    Position, width, tilt, shade, light and grain come from ``rng`` and carry no meaning.
    """
    extent = size * OVERSAMPLING
    picture = Image.new("RGB", (extent, extent))
    pen = ImageDraw.Draw(picture)
    _draw_place(pen, scene.place, extent, rng)
    _draw_birds(pen, scene.birds, extent, rng)
    _draw_object(pen, scene, extent, rng)
    pixels = np.asarray(picture.reduce(OVERSAMPLING), dtype=np.float32)
    light = rng.uniform(0.92, 1.08)
    grain = rng.normal(0.0, rng.uniform(2.0, 8.0), size=(size, size, 1))
    return Image.fromarray(np.clip(pixels * light + grain, 0, 255).astype(np.uint8))


def _shade(colour: tuple[int, int, int], rng: np.random.Generator, spread: int = 10) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.asarray(colour) + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def _draw_place(pen: ImageDraw.ImageDraw, place: str, extent: int, rng: np.random.Generator) -> None:
    horizon = int(extent * rng.uniform(0.52, 0.64))
    sky, ground = {
        "beach": ((128, 200, 236), (232, 208, 150)),
        "night": ((18, 22, 58), (34, 36, 48)),
        "field": ((166, 212, 240), (112, 178, 84)),
        "snow": ((206, 214, 226), (238, 242, 248)),
        "city": ((176, 170, 168), (92, 92, 98)),
    }[place]
    pen.rectangle((0, 0, extent, horizon), fill=_shade(sky, rng))
    pen.rectangle((0, horizon, extent, extent), fill=_shade(ground, rng))
    if place == "beach":
        sea = int(extent * rng.uniform(0.10, 0.16))
        pen.rectangle((0, horizon - sea, extent, horizon), fill=_shade((44, 128, 188), rng))
    elif place == "night":
        for x, y in rng.uniform(0, 1, (14, 2)):
            left, top = x * extent, y * horizon
            pen.rectangle((left, top, left + 1, top + 1), fill=(232, 232, 210))
    elif place == "field":
        for x, y in rng.uniform(0, 1, (26, 2)):
            left, top = x * extent, horizon + y * (extent - horizon)
            pen.line((left, top, left + 2, top - extent * 0.04), fill=_shade((66, 128, 50), rng), width=2)
    elif place == "snow":
        for x, y in rng.uniform(0, 1, (30, 2)):
            left, top = x * extent, y * extent
            pen.rectangle((left, top, left + 2, top + 2), fill=(255, 255, 255))
    else:
        left = 0.0
        while left < extent:
            width, top = extent * rng.uniform(0.10, 0.18), extent * rng.uniform(0.22, 0.45)
            pen.rectangle((left, top, left + width, horizon), fill=_shade((104, 96, 100), rng, 18))
            left += width * 1.15


def _draw_birds(pen: ImageDraw.ImageDraw, count: int, extent: int, rng: np.random.Generator) -> None:
    slots = rng.permutation(5)[:count]
    for slot in slots:
        x = extent * (0.12 + 0.19 * slot + rng.uniform(-0.02, 0.02))
        y = extent * rng.uniform(0.07, 0.15)
        half = extent * rng.uniform(0.055, 0.065)
        pen.ellipse(
            (x - half, y - half * 0.75, x + half, y + half * 0.75), fill=(250, 250, 250), outline=OUTLINE, width=2
        )
        pen.polygon([(x - half * 0.5, y), (x, y - half * 1.3), (x + half * 0.5, y)], fill=OUTLINE)


def _draw_object(pen: ImageDraw.ImageDraw, scene: Scene, extent: int, rng: np.random.Generator) -> None:
    width = extent * rng.uniform(*MAIN_WIDTH)
    centre_x = extent * rng.uniform(0.40, 0.60)
    centre_y = extent * rng.uniform(0.56, 0.64)
    tilt = math.radians(rng.uniform(-10, 10))
    mirrored = -1 if rng.random() < 0.5 else 1
    fill = _shade(COLOURS[scene.colour], rng)
    line = max(2, extent // 64)

    def place(points: list[Point]) -> list[Point]:
        turned = []
        for x, y in points:
            x = x * mirrored
            turned.append(
                (
                    centre_x + width * (x * math.cos(tilt) - y * math.sin(tilt)),
                    centre_y + width * (x * math.sin(tilt) + y * math.cos(tilt)),
                )
            )
        return turned

    for points, coloured in SHAPES[scene.shape]:
        pen.polygon(
            place(points), fill=fill if coloured else _shade((110, 74, 46), rng, 6), outline=OUTLINE, width=line
        )


def _arc(centre: Point, radius: Point, start: float, stop: float, steps: int = 28) -> list[Point]:
    angles = np.radians(np.linspace(start, stop, steps))
    return [(centre[0] + radius[0] * math.cos(a), centre[1] + radius[1] * math.sin(a)) for a in angles]


def _star() -> list[Point]:
    radii = [0.54, 0.22] * 5
    return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]


def _heart() -> list[Point]:
    turns = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    return [
        (
            0.5 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 32,
        )
        for t in turns
    ]


# Outlines in units of the object's width, y downwards; True: in the object's colour, False: in brown wood.
SHAPES: dict[str, list[tuple[list[Point], bool]]] = {
    "ball": [(_arc((0, 0), (0.5, 0.5), 0, 360), True)],
    "star": [(_star(), True)],
    "heart": [(_heart(), True)],
    "house": [
        ([(-0.36, -0.06), (0.36, -0.06), (0.36, 0.46), (-0.36, 0.46)], True),
        ([(-0.5, -0.06), (0.0, -0.5), (0.5, -0.06)], True),
        ([(-0.09, 0.16), (0.09, 0.16), (0.09, 0.46), (-0.09, 0.46)], False),
    ],
    "boat": [
        ([(-0.03, -0.55), (0.03, -0.55), (0.03, 0.15), (-0.03, 0.15)], False),
        ([(0.06, -0.5), (0.42, 0.06), (0.06, 0.06)], True),
        ([(-0.5, 0.12), (0.5, 0.12), (0.34, 0.4), (-0.34, 0.4)], True),
    ],
    "fish": [
        ([(0.16, 0.0), (0.5, -0.26), (0.5, 0.26)], True),
        (_arc((-0.12, 0), (0.38, 0.25), 0, 360), True),
        (_arc((-0.34, -0.06), (0.04, 0.04), 0, 360, 10), False),
    ],
    "tree": [
        ([(-0.08, 0.2), (0.08, 0.2), (0.08, 0.5), (-0.08, 0.5)], False),
        ([(-0.5, 0.26), (0.0, -0.24), (0.5, 0.26)], True),
        ([(-0.34, -0.06), (0.0, -0.54), (0.34, -0.06)], True),
    ],
    "moon": [(_arc((0.1, 0), (0.6, 0.6), 50, 310) + _arc((0.41, 0), (0.50, 0.48), 285, 75), True)],
}
