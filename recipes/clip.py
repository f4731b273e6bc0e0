"""Trains the tiny open_clip model that compares scenes, captions and titles."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from recipes.material import (
    byte_level_bpe,
    frame_with,
    picture_pool,
    texts,
    training_rng,
    with_one_change,
)
from smp_features.demo.scenes import COLOUR_NAMES, OBJECTS, PLACE_NAMES, Scene
from smp_features.demo.titles import consistent_title

logger = logging.getLogger(__name__)

SEED = 2
VOCABULARY = 1_024
PAD, BEGIN, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
IMAGE_SIZE, EMBEDDING, CONTEXT = 64, 64, 77
PICTURES = 12_000
TOKENIZER_TEXTS = 30_000
STEPS, BATCH = 1_000, 64
NEAR_MISSES = 2  # captions with one attribute changed, per picture
LEARNING_RATE = 2e-3
HIGHEST_SCALE = 4.6  # ln of 100, as in the original CLIP
MEAN, SPREAD = [0.5, 0.5, 0.5], [0.28, 0.28, 0.28]
VISION = {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 12, "patch_size": None}  # a tiny ResNet
TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 96, "heads": 4, "layers": 2}
TOKENIZER_NAME = "smp-demo-clip"  # any name: from a local folder open_clip reads the folder's own tokenizer
PREPROCESSING = {"mean": MEAN, "std": SPREAD, "interpolation": "bicubic", "resize_mode": "shortest"}


def train(out: Path, steps: int = STEPS) -> None:
    """Train from scratch and save model, configuration and tokenizer to a folder."""
    torch.manual_seed(SEED)
    rng = training_rng(SEED)
    tokenizer = _tokenizer(rng)
    model = CLIP(EMBEDDING, dict(VISION), dict(TEXT))
    pixels, scenes = picture_pool(PICTURES, IMAGE_SIZE, rng)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        rows = rng.permutation(PICTURES)[:BATCH]
        shown = [scenes[row] for row in rows]
        near = [with_one_change(scene, rng) for scene in shown for _ in range(NEAR_MISSES)]
        titles = [consistent_title(scene, rng) for scene in shown]
        captions = [_reworded(scene, rng) for scene in [*shown, *near]]
        ids = torch.tensor(tokenizer([*captions, *titles], padding=True).input_ids)
        images = model.encode_image(_normalise(pixels[rows], rng), normalize=True)
        embedded = _encode_text(model, ids)
        caption, title = embedded[: len(captions)], embedded[len(captions) :]
        scale = model.logit_scale.exp()
        whole, named = _meanings([*shown, *near]), _names(shown)
        loss = (
            _contrast(scale * images @ caption.T, whole[:BATCH], whole)
            + _contrast(scale * caption[:BATCH] @ images.T, whole[:BATCH], whole[:BATCH])
            + 0.3 * _contrast(scale * images @ title.T, named, named)
            + 0.5 * _contrast(scale * caption[:BATCH] @ title.T, named, named)
            + 0.5 * _contrast(scale * title @ caption[:BATCH].T, named, named)
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, HIGHEST_SCALE)
        if step % 50 == 0 or step + 1 == steps:
            logger.info("clip step=%d of=%d loss=%.3f", step + 1, steps, loss.item())
    _save(model, tokenizer, out)


def _tokenizer(rng: np.random.Generator) -> PreTrainedTokenizerFast:
    trained = byte_level_bpe(texts(TOKENIZER_TEXTS, rng, 0.3), VOCABULARY, (PAD, BEGIN, END))
    frame_with(trained, BEGIN, END)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=END, model_max_length=CONTEXT
    )


def _encode_text(model: CLIP, ids: torch.Tensor) -> torch.Tensor:
    """Encode texts padded to their longest instead of the full context; the causal mask makes it the same result."""
    tokens = model.token_embedding(ids) + model.positional_embedding[: ids.shape[1]]
    mask = model.attn_mask[: ids.shape[1], : ids.shape[1]]
    hidden = model.ln_final(model.transformer(tokens, attn_mask=mask))
    pooled = hidden[torch.arange(len(ids)), ids.argmax(dim=-1)]
    return functional.normalize(pooled @ model.text_projection, dim=-1)


def _reworded(scene: Scene, rng: np.random.Generator) -> str:
    choice = rng.random()
    if choice < 0.6:
        return scene.caption
    if choice < 0.8:
        return f"a picture of {scene.caption}"
    return scene.caption.removeprefix("a ").removeprefix("an ")


def _meanings(scenes: list[Scene]) -> torch.Tensor:
    """Return a number per scene, equal where two captions would say the same."""
    return _names(scenes) * 100 + torch.tensor([PLACE_NAMES.index(s.place) * 10 + s.birds for s in scenes])


def _names(scenes: list[Scene]) -> torch.Tensor:
    """Return a number per scene, equal where two titles would say the same."""
    return torch.tensor([OBJECTS.index(s.shape) * 10 + COLOUR_NAMES.index(s.colour) for s in scenes])


def _contrast(logits: torch.Tensor, wanted: torch.Tensor, offered: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of picking one's own column; other columns that mean the same are left out, not counted wrong."""
    own = torch.arange(len(logits))
    same = wanted[:, None] == offered[None, :]
    same[own, own] = False
    return functional.cross_entropy(logits.masked_fill(same, float("-inf")), own)


def _normalise(pixels: NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
    mirrored = pixels[:, :, ::-1] if rng.random() < 0.5 else pixels
    scaled = torch.from_numpy(np.ascontiguousarray(mirrored)).float() / 255
    return ((scaled - torch.tensor(MEAN)) / torch.tensor(SPREAD)).permute(0, 3, 1, 2).contiguous()


def _save(model: CLIP, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.eval().state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors")
    text = TEXT | {"hf_tokenizer_name": TOKENIZER_NAME}
    architecture = {"embed_dim": EMBEDDING, "vision_cfg": VISION, "text_cfg": text}
    config = {"model_cfg": architecture, "preprocess_cfg": PREPROCESSING}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(out)
