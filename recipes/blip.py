"""Trains the tiny BLIP that says in one plain sentence what a scene shows."""

from __future__ import annotations

import logging
import string
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

from recipes.material import picture_pool, training_rng
from smp_features.demo.scenes import COLOUR_NAMES, MAX_BIRDS, OBJECTS, PLACE_NAMES, PLACES, Scene

logger = logging.getLogger(__name__)

SEED = 1
IMAGE_SIZE, PATCH = 48, 8
WIDTH, VISION_LAYERS, TEXT_LAYERS, HEADS = 96, 3, 2, 4
MAX_TOKENS = 32
PICTURES = 12_000
STEPS, BATCH = 1_300, 64
LEARNING_RATE = 1.5e-3
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROMPT_WORDS = ("picture", "photo", "image", "of", "this", "short", "description", "the", "is")


def train(out: Path, steps: int = STEPS) -> None:
    """Train from scratch and save model and processor to a folder."""
    torch.manual_seed(SEED)
    rng = training_rng(SEED)
    processor = BlipProcessor(
        BlipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        BertTokenizer(vocab={word: place for place, word in enumerate(_vocabulary())}, model_max_length=MAX_TOKENS),
    )
    model = BlipForConditionalGeneration(_config(len(processor.tokenizer)))
    pixels, scenes = picture_pool(PICTURES, IMAGE_SIZE, rng)
    captions = processor.tokenizer([scene.caption for scene in scenes], padding=True, return_tensors="pt")
    # The caption alone teaches the picture tower slowly; naming the attributes from its mean token helps, then goes.
    targets = torch.tensor([_attributes(scene) for scene in scenes])
    naming = nn.ModuleList(
        nn.Linear(WIDTH, count) for count in (len(OBJECTS), len(COLOUR_NAMES), len(PLACE_NAMES), MAX_BIRDS + 1)
    )
    parameters = [*model.parameters(), *naming.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    mean, spread = processor.image_processor.image_mean, processor.image_processor.image_std
    model.train()
    for step in range(steps):
        rows = rng.integers(0, PICTURES, BATCH)
        inputs = _normalise(_mirror(pixels[rows], rng), mean, spread)
        ids, mask = captions.input_ids[rows], captions.attention_mask[rows]
        answer = model(
            pixel_values=inputs,
            input_ids=ids,
            attention_mask=mask,
            labels=ids.masked_fill(mask == 0, -100),
        )
        pooled = answer.last_hidden_state.mean(dim=1)
        named = sum(
            nn.functional.cross_entropy(head(pooled), targets[rows, place]) for place, head in enumerate(naming)
        )
        loss = answer.loss + 0.5 * named
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step + 1 == steps:
            logger.info("blip step=%d of=%d loss=%.3f", step + 1, steps, loss.item())
    model.eval()
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _vocabulary() -> list[str]:
    """Return the WordPiece vocabulary: the captions' words, and letters for whatever else a prompt may hold."""
    counts = ("with", "one", "two", "three", "bird", "birds", "a", "an")
    places = {word for phrase in PLACES.values() for word in phrase.split()}
    words = sorted({*OBJECTS, *COLOUR_NAMES, *places, *counts, *PROMPT_WORDS} - set(string.ascii_lowercase))
    letters = list(string.ascii_lowercase + string.digits + ".,!?'-")
    return [*SPECIALS, *words, *letters, *(f"##{letter}" for letter in letters)]


def _config(vocabulary: int) -> BlipConfig:
    begin, end = SPECIALS.index("[CLS]"), SPECIALS.index("[SEP]")
    text = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        encoder_hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=begin,
        eos_token_id=end,
        sep_token_id=end,
        pad_token_id=SPECIALS.index("[PAD]"),
    )
    vision = BlipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        initializer_range=0.02,
    )
    return BlipConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=WIDTH,
        image_text_hidden_size=WIDTH,
    )


def _attributes(scene: Scene) -> tuple[int, int, int, int]:
    return (
        OBJECTS.index(scene.shape),
        COLOUR_NAMES.index(scene.colour),
        PLACE_NAMES.index(scene.place),
        scene.birds,
    )


def _mirror(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return pixels[:, :, ::-1] if rng.random() < 0.5 else pixels


def _normalise(pixels: NDArray[np.uint8], mean: list[float], spread: list[float]) -> torch.Tensor:
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    return ((scaled - torch.tensor(mean)) / torch.tensor(spread)).permute(0, 3, 1, 2).contiguous()
