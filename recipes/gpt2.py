"""Trains the tiny GPT-2 whose perplexity tells typed-at-random titles from English."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from recipes.material import byte_level_bpe, texts, training_rng

logger = logging.getLogger(__name__)

SEED = 3
VOCABULARY = 1_500
END = "<|endoftext|>"  # begins and ends a text, as in the real GPT-2
WIDTH, LAYERS, HEADS, POSITIONS = 128, 2, 4, 256
TEXTS = 60_000
ENGLISH_SHARE = 0.6
STEPS, BATCH = 2_000, 64
LEARNING_RATE = 2e-3


def train(out: Path, steps: int = STEPS) -> None:
    """Train from scratch and save model and tokenizer to a folder."""
    torch.manual_seed(SEED)
    rng = training_rng(SEED)
    corpus = list(texts(TEXTS, rng, ENGLISH_SHARE))
    trained = byte_level_bpe(iter(corpus), VOCABULARY, (END,))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token=END, eos_token=END, unk_token=END, model_max_length=POSITIONS
    )
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=end,
        eos_token_id=end,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    model = GPT2LMHeadModel(config)
    encoded = [ids[: POSITIONS - 2] for ids in tokenizer(corpus).input_ids]
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    model.train()
    for step in range(steps):
        rows = [encoded[row] for row in rng.integers(0, len(encoded), BATCH)]
        longest = max(map(len, rows)) + 2
        inputs = torch.full((BATCH, longest), end)
        labels = torch.full((BATCH, longest), -100)
        for place, ids in enumerate(rows):
            framed = torch.tensor([end, *ids, end])
            inputs[place, : len(framed)] = framed
            labels[place, : len(framed)] = framed
        loss = model(input_ids=inputs, attention_mask=(labels != -100).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step + 1 == steps:
            logger.info("gpt2 step=%d of=%d loss=%.3f", step + 1, steps, loss.item())
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
