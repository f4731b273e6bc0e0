"""Training pictures and texts for the demo models, drawn from seeds that the demo's posts never use."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from recipes.english import sentence
from smp_features.demo.pictures import PICTURE_SIZE
from smp_features.demo.scenes import COLOUR_NAMES, MAX_BIRDS, OBJECTS, PLACE_NAMES, Scene, draw_scene, render
from smp_features.demo.titles import consistent_title

logger = logging.getLogger(__name__)

TRAINING_STREAM = 77_000_001  # far from the streams of the generator, whatever its seed


def training_rng(seed: int) -> np.random.Generator:
    """Return a generator on the training stream."""
    return np.random.default_rng([TRAINING_STREAM, seed])


def picture_pool(count: int, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[Scene]]:
    """Render scenes as the demo does, through JPEG, and resize them to what a model sees.

    Returns:
        uint8 pixels of shape (count, size, size, 3), and what each picture shows.
    """
    pixels = np.empty((count, size, size, 3), dtype=np.uint8)
    scenes = []
    for row in range(count):
        scene = draw_scene(rng)
        encoded = io.BytesIO()
        render(scene, rng, PICTURE_SIZE).save(encoded, format="JPEG", quality=int(rng.integers(82, 93)))
        pixels[row] = np.asarray(Image.open(encoded).resize((size, size), Image.Resampling.BICUBIC))
        scenes.append(scene)
        if (row + 1) % 4000 == 0:
            logger.info("rendered pictures=%d of=%d", row + 1, count)
    return pixels, scenes


def with_one_change(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene that differs from this one in exactly one attribute."""
    attributes: tuple[tuple[str, Sequence[Any]], ...] = (
        ("shape", OBJECTS),
        ("colour", COLOUR_NAMES),
        ("place", PLACE_NAMES),
        ("birds", range(MAX_BIRDS + 1)),
    )
    name, options = attributes[rng.integers(len(attributes))]
    others = [option for option in options if option != getattr(scene, name)]
    return dataclasses.replace(scene, **{name: others[rng.integers(len(others))]})


def texts(count: int, rng: np.random.Generator, english_share: float) -> Iterator[str]:
    """Yield titles and captions of scenes, mixed with broader English."""
    for _ in range(count):
        kind = rng.random()
        if kind < english_share:
            yield sentence(rng)
        elif kind < english_share + (1 - english_share) * 0.85:
            yield consistent_title(draw_scene(rng), rng)
        else:
            yield draw_scene(rng).caption


def byte_level_bpe(corpus: Iterator[str], vocabulary: int, specials_last: tuple[str, ...]) -> Tokenizer:
    """Train a byte-level BPE whose special tokens have the largest ids, in the order given.

    open_clip pools a text at its largest id, so the end-of-text token must come last of all.
    """
    drafted = Tokenizer(models.BPE())
    drafted.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(specials_last),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    drafted.train_from_iterator(corpus, trainer)
    drafted.decoder = decoders.ByteLevel()
    drafted.add_special_tokens(list(specials_last))
    return drafted


def frame_with(tokenizer: Tokenizer, begin: str, end: str) -> None:
    """Make the tokenizer put ``begin`` before and ``end`` behind every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, tokenizer.token_to_id(begin)), (end, tokenizer.token_to_id(end))],
    )
