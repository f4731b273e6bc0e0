"""A CLIP text tower that computes only the tokens that decide a text's vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class TextTower:
    """The text half of an open_clip model, on titles about a sixth of the work of the full context of 77 tokens.

    In a causal tower pooled at its end-of-text token, nothing behind that token reaches the vector, so the context can
    end with the longest text of the batch. Other towers (bidirectional, pooled elsewhere) get the full context.

    Args:
        model: An open_clip model in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        # Older model classes carry the text tower's parts themselves, newer ones hold it as one module.
        self._tower = getattr(model, "text", model)
        self.context_length = int(model.context_length)
        self._pooling = getattr(self._tower, "pool_type", getattr(model, "text_pool_type", None))
        self._end = getattr(self._tower, "eos_id", getattr(model, "text_eos_id", None))
        self._can_cut = (
            self._pooling in ("argmax", "eos")
            and getattr(self._tower, "attn_mask", None) is not None
            and getattr(self._tower, "cls_emb", None) is None
            and hasattr(self._tower, "positional_embedding")
        )

    def needed_length(self, tokens: np.ndarray) -> int:
        """Return how many leading tokens decide the vector.

        Args:
            tokens: int64 ids of shape (context_length,), padded.
        """
        if not self._can_cut:
            return len(tokens)
        return self._pooled_position(tokens) + 1

    def _pooled_position(self, tokens: np.ndarray) -> int:
        # As open_clip pools: the first largest id, or the first end-of-text id (position 0 where there is none).
        return int(tokens.argmax() if self._pooling == "argmax" else (tokens == self._end).argmax())

    def encode(self, texts: Sequence[np.ndarray], device: Any) -> Any:
        """Return the text features, shape (n, dimensions), in the tower's dtype, not normalised.

        Args:
            texts: int64 ids, each cut to its `needed_length`.
            device: Where the model is.
        """
        import torch

        if not self._can_cut:
            return self._model.encode_text(torch.from_numpy(np.stack(texts)).to(device))
        length = max(len(tokens) for tokens in texts)
        padded = np.zeros((len(texts), length), dtype=np.int64)  # what stands behind a text cannot be seen by it
        for row, tokens in enumerate(texts):
            padded[row, : len(tokens)] = tokens
        ends = torch.tensor([len(tokens) - 1 for tokens in texts], device=device)

        tower = self._tower
        dtype = tower.transformer.get_cast_dtype()
        states = tower.token_embedding(torch.from_numpy(padded).to(device)).to(dtype)
        states = states + tower.positional_embedding[:length].to(dtype)
        states = tower.transformer(states, attn_mask=tower.attn_mask[:length, :length])
        pooled = tower.ln_final(states)[torch.arange(len(texts), device=device), ends]
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
