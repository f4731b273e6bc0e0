"""What a language model must be for its perplexities to be such: it sees no later token, and takes what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from smp_features.errors import ModelError
from smp_features.extractors.model_files import ModelFiles

PROBED_TOKENS = 24
"""Length of the sequence on which a model is seen to be causal."""

TOLERANCE = {"torch.float32": 1e-3, "torch.float64": 1e-3}
HALF_TOLERANCE = 5e-2
"""Standard deviations of the logits by which an earlier one may move, since experts and kernels may sum in another
order. A bidirectional model's move by tenths of one, or several."""

_WINDOWS = ("max_position_embeddings", "max_seq_len", "n_positions", "max_sequence_length")


def check_configuration(config: Mapping[str, Any], files: ModelFiles) -> None:
    """Refuse a configuration of what transformers can load as a causal model and builds as a bidirectional one.

    Args:
        config: Of transformers, `config.json`.
        files: For messages.

    Raises:
        ModelError: It sees the whole text.
    """
    from transformers.models.auto import modeling_auto as auto

    family = config["model_type"]
    # Encoders that can be decoders too; decoders of encoder-decoder models are causal whatever they are told.
    encoder = family in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    encoder = encoder and family not in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    told = config.get("causal") if family in ("xlm", "flaubert") else config.get("is_decoder")
    if family == "xlnet" or (encoder and not told):
        raise _not_causal(files, f"a {family} model that is no decoder")


def _not_causal(files: ModelFiles, what: str) -> ModelError:
    return ModelError(
        f"'{files.id}' ({files.setting}) is {what}: it sees the tokens that it should predict, so what it gives is no "
        "perplexity.",
        "Perplexity needs a model that predicts the next token from those before it, such as gpt2.",
    )


def check_causal(model: Any, window: int | None, files: ModelFiles) -> None:
    """Refuse a loaded model in which a later token changes an earlier logit.

    Args:
        model: As it will compute.
        window: Its longest sequence; None where it has no end.
        files: For messages.

    Raises:
        ModelError: It does.
    """
    import torch

    length = min(PROBED_TOKENS, window or PROBED_TOKENS)
    words = embeddings_of(model)
    tokens = (np.arange(length, dtype=np.int64) * 7919 + 11) % words
    plain = _logits(model, tokens)
    spread = float(plain.std()) or 1.0
    allowed = TOLERANCE.get(str(next(model.parameters()).dtype), HALF_TOLERANCE) * spread
    for place in {length - 1, length // 2}:
        changed = tokens.copy()
        changed[place] = (changed[place] + 1 + words // 2) % words
        moved = torch.nan_to_num((_logits(model, changed) - plain)[:place]).abs().max()
        if float(moved) > allowed:
            raise _not_causal(files, "no causal model, since a later token changes what it predicts for an earlier one")


def check_longest(model: Any, tokens: int, files: ModelFiles) -> None:
    """Refuse a model that cannot take a sequence as long as the longest text it would be given.

    Raises:
        ModelError: It fails on it.
    """
    try:
        _logits(model, np.arange(tokens, dtype=np.int64) % embeddings_of(model))
    except (RuntimeError, IndexError, ValueError) as failure:
        if "memory" in str(failure).lower():
            raise  # the machine's failure, which another try may survive
        raise ModelError(
            f"'{files.id}' ({files.setting}) cannot take a text of {tokens - 1} tokens ({type(failure).__name__}).",
            f"Set {files.section}.max_tokens lower.",
        ) from failure


def check_tokens(model: Any, start: int, vocabulary: Mapping[str, int], files: ModelFiles) -> None:
    """Refuse a tokenizer that gives tokens for which a model has no embedding.

    Args:
        model: Loaded.
        start: The start token's id.
        vocabulary: Tokens that a text can give, and their ids.
        files: For messages.

    Raises:
        ModelError: It does.
    """
    known = embeddings_of(model)
    largest = max(vocabulary.values(), default=0)
    if max(start, largest) >= known:
        what = f"start token has the id {start}" if start >= known else f"vocabulary goes up to the id {largest}"
        raise ModelError(
            f"The tokenizer of '{files.id}' ({files.setting}) is not this model's: its {what}, and the model has "
            f"{known} embeddings.",
            "Tokenizer and weights must belong together; fetch the model again.",
        )


def embeddings_of(model: Any) -> int:
    """Return how many tokens a model has embeddings of."""
    return int(model.get_input_embeddings().weight.shape[0])


def window_of(model: Any) -> int | None:
    """Return how many tokens, start token included, a model takes at most; None where its configuration names no end.

    Tables of positions that begin behind a padding index, as RoBERTa's do, hold fewer than the configuration says.
    """
    import torch

    config = model.config.get_text_config()
    named = [value for name in _WINDOWS if isinstance(value := getattr(config, name, None), int) and value > 0]
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and type(module) is torch.nn.Embedding
            and module.padding_idx is not None
        ):
            named.append(module.num_embeddings - module.padding_idx - 1)
    return min(named, default=None)


def _logits(model: Any, tokens: np.ndarray) -> Any:
    """Return the logits of one sequence, (length, words) float32."""
    import torch

    ids = torch.from_numpy(tokens)[None].to(model.device)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()
