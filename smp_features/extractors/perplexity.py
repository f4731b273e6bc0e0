"""Log-perplexity of a text under a causal language model, through transformers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from smp_features.catalogue import Feature, Lookup
from smp_features.config import Dtype, ModelSettings
from smp_features.errors import ModelError
from smp_features.extractors import causality
from smp_features.extractors.base import TITLE, Columns, Extractor, OutputColumn, open_device, quiet_libraries
from smp_features.extractors.inference import for_inference
from smp_features.extractors.model_files import ModelFiles
from smp_features.extractors.text import CHARACTERS_PER_TOKEN, bound_text, empty, set_apart, special_tokens
from smp_features.extractors.transformers_models import check_weights, load_weights, read_config

TYPICAL_TOKENS = 32
"""Length of a long title; `max_batch` texts of this length fill a micro-batch, longer ones fill it sooner."""

AUTO_CLASS = "AutoModelForCausalLM"

ROLE = "language"
"""The model whose perplexity is the paper's measure; further ones add columns of their own."""

_IGNORED = -100


class TokenisedText(NamedTuple):
    """A text ready to be scored.

    Attributes:
        tokens: int64 ids of shape (length + 1,), the start token first.
        truncated: Whether the text was longer than what is scored.
    """

    tokens: np.ndarray
    truncated: bool


class PerplexitySettings(ModelSettings):
    """The causal language model behind title perplexity, by transformers.

    Attributes:
        id: A hub name, a local folder, or `zoo:language`.
        revision: The pinned commit of a hub model.
        dtype: Of the weights while computing.
        max_tokens: Longer texts are cut, and the row says so.
        max_batch: Largest micro-batch, in texts.
    """

    id: str
    revision: str | None = None
    dtype: Dtype = "float32"
    max_tokens: int = Field(default=256, ge=2, le=10**6)
    max_batch: int = Field(default=64, ge=1, le=10**6)


@dataclass(frozen=True)
class PerplexityExtractor(Extractor):
    """Text to its mean negative log-likelihood per token, in nats; the perplexity is its exponential.

    The start token stands before the text and is not scored, so that one-token titles count.

    Attributes:
        files: The model.
        dtype: Of the weights; losses are summed in float64.
        max_tokens: Longer texts are cut, and so are those beyond the model's window.
        max_batch: Texts of typical length per micro-batch.
    """

    files: ModelFiles
    dtype: str = "float32"
    max_tokens: int = 256
    max_batch: int = 64
    model: str = field(default=ROLE, kw_only=True)

    kind: ClassVar[str] = "perplexity"
    reads: ClassVar[Literal["image", "text"]] = "text"
    version: ClassVar[int] = 2
    table: ClassVar[str] = "perplexities"
    noun: ClassVar[str] = "perplexity"
    table_comment: ClassVar[str] = "one log-perplexity per text and language model"
    constraints: ClassVar[Mapping[str, str] | None] = {
        "perplexity_is_finite": "status <> 'ok' OR (log_perplexity IS NOT NULL AND log_perplexity >= 0 "
        "AND NOT isnan(log_perplexity))"
    }
    Settings: ClassVar[type[ModelSettings]] = PerplexitySettings

    @classmethod
    def build(cls, model: str, settings: ModelSettings) -> tuple[Extractor, ...]:
        """See `Extractor.build`."""
        given = settings.model_dump(exclude={"kind", "id", "revision"})
        return (cls(ModelFiles.named(model, settings), model=model, **given),)

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        """`log_perplexity` (float64), `token_count` (int32) and `truncated` (bool)."""
        return (
            OutputColumn(
                "log_perplexity",
                pa.float64(),
                "mean negative log-likelihood, nats per token, BOS prepended; null unless ok",
            ),
            OutputColumn("token_count", pa.int32(), "tokens scored; null unless ok"),
            OutputColumn("truncated", pa.bool_(), "the text was cut at the configured token limit; null unless ok"),
        )

    @property
    def features(self) -> tuple[Feature, ...]:
        """The perplexity of titles and the tokens it is the mean of: of the role, the paper's measure."""
        prefix, group = ("title", "perplexity") if self.model == ROLE else (self.name, self.model)
        comments = {
            "log_perplexity": "mean negative log-likelihood of the title, nats per token; null if empty (figure 4)",
            "token_count": "tokens of the title scored by the language model; null if empty",
        }
        return tuple(
            Feature(f"{prefix}_{column}", group, "number", comment, made=Lookup(self.name, TITLE, column))
            for column, comment in comments.items()
        )

    @property
    def max_cost(self) -> float:
        """Padded tokens, start token included."""
        return float(self.max_batch * TYPICAL_TOKENS)

    def identity(self) -> dict[str, Any]:
        """See `Extractor.identity`."""
        return {
            "extractor": self.kind,
            "version": self.version,
            **self.files.identity(),
            "family": read_config(self.files).get("model_type"),
            "dtype": self.dtype,
            "max_tokens": self.max_tokens,
            "characters_per_token": CHARACTERS_PER_TOKEN,
            "start_token": "bos, else eos",
        }

    def check(self) -> None:
        """See `Extractor.check`; compares weights, tokenizer and model, and has the model score its longest text once.

        That it is causal is seen on the loaded model, here and wherever it is loaded.
        """
        self._check_architecture()
        self.files.weight_files()
        self.files.verify()
        with quiet_libraries():
            tokenizer = _load_tokenizer(self.files)
            loaded = self._loaded(check_weights(self.files, AUTO_CLASS).eval(), tokenizer)
            causality.check_longest(loaded.model, loaded.max_tokens + 1, self.files)

    def load(self, device: str, threads: int | None = None) -> LoadedLanguageModel:
        """See `Extractor.load`."""
        self._check_architecture()
        target = open_device(device, threads)
        self.files.verify()
        with quiet_libraries():
            tokenizer = _load_tokenizer(self.files)
            model = for_inference(load_weights(self.files, AUTO_CLASS, self.dtype), target)
            return self._loaded(model, tokenizer)

    def _loaded(self, model: Any, tokenizer: Any) -> LoadedLanguageModel:
        start = _start_token(tokenizer, self.files)
        tokens = TextTokens(tokenizer, causality.embeddings_of(model))
        causality.check_tokens(model, start, tokens.vocabulary, self.files)
        window = causality.window_of(model)
        causality.check_causal(model, window, self.files)
        return LoadedLanguageModel(model, tokens, start, min(self.max_tokens, (window or self.max_tokens + 1) - 1))

    def _check_architecture(self) -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        config = read_config(self.files)
        architectures = [str(name) for name in config.get("architectures") or []]
        causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
        if not causal or config["model_type"] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) is a {architectures[0] if architectures else 'model'} of "
                f"type '{config['model_type']}', not a causal language model.",
                "Perplexity needs one that predicts the next token, such as gpt2.",
            )
        causality.check_configuration(config, self.files)


class TextTokens:
    """A tokenizer that reads a text as text: markup of special tokens in it is characters like any other.

    Args:
        tokenizer: Of transformers; it is changed.
        embeddings: How many tokens the model has embeddings of; an added token beyond them is markup too.
    """

    def __init__(self, tokenizer: Any, embeddings: int) -> None:
        tokenizer.split_special_tokens = True
        self._tokenizer = tokenizer
        # A fast tokenizer keeps padding and truncation settings in itself, which calls change: one thread at a time.
        self._tokenising = threading.Lock()
        added = {str(token): int(number) for number, token in tokenizer.added_tokens_decoder.items()}
        beyond = {token: number for token, number in added.items() if number >= embeddings}
        markup = special_tokens(tokenizer) | beyond
        self._markup, self._special = tuple(markup), frozenset(markup.values())
        self.vocabulary = {
            token: number for token, number in tokenizer.get_vocab().items() if number not in self._special
        }
        unknown = tokenizer.unk_token_id
        self._blank = [tokens for text in ("", " ") if unknown not in (tokens := self._ids(text))]

    def of(self, text: str) -> list[int]:
        """Return a text's tokens, none of them special.

        Raises:
            InputRefused: `empty`, the tokenizer leaves nothing of it but white space.
        """
        tokens = self._ids(text)
        if not self._special.isdisjoint(tokens):
            # Such as a vocabulary that holds "<s>" as a word of its own.
            tokens = [each for each in self._ids(set_apart(text, self._markup)) if each not in self._special]
        if not tokens or tokens in self._blank:
            raise empty()
        return tokens

    def _ids(self, text: str) -> list[int]:
        with self._tokenising:
            return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


class LoadedLanguageModel:
    """A causal language model on its device; see `LoadedModel`.

    Args:
        model: Of transformers, on its device.
        tokens: Its tokenizer.
        start_token: What stands before each text.
        max_tokens: Tokens that are scored of a text at most; longer texts are cut.
    """

    def __init__(self, model: Any, tokens: TextTokens, start_token: int, max_tokens: int) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self._tokens = tokens
        self._start = start_token

    def prepare(self, raw: bytes | str) -> tuple[TokenisedText, float]:
        """Tokenise a text, at the cost of its tokens.

        Raises:
            InputRefused: `empty`, nothing to score.
        """
        if not isinstance(raw, str):
            raise TypeError("The language model reads text.")
        text, cut = bound_text(raw, self.max_tokens)
        tokens = self._tokens.of(text)
        kept = tokens[: self.max_tokens]
        item = TokenisedText(np.array([self._start, *kept], dtype=np.int64), cut or len(kept) < len(tokens))
        return item, float(len(item.tokens))

    def run(self, items: Sequence[TokenisedText]) -> Columns:
        """Score a micro-batch: `log_perplexity` float64, `token_count` int32, `truncated` bool, each of shape (n,)."""
        import torch
        from torch.nn import functional

        counts = np.array([len(item.tokens) - 1 for item in items], dtype=np.int32)
        # Padding is to the right, where a causal model cannot see it, and carries no loss: any id will do.
        shape = (len(items), int(counts.max()) + 1)
        tokens, mask = np.full(shape, self._start, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(items):
            tokens[row, : len(item.tokens)] = item.tokens
            mask[row, : len(item.tokens)] = 1
        device = self.model.device
        ids, seen = torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
            targets = ids[:, 1:].masked_fill(seen[:, 1:] == 0, _IGNORED)
            losses = functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), ignore_index=_IGNORED, reduction="none"
            ).view_as(targets)
            totals = losses.sum(dim=1, dtype=torch.float64).cpu().numpy()
        truncated = np.array([item.truncated for item in items], dtype=np.bool_)
        return {"log_perplexity": totals / counts, "token_count": counts, "truncated": truncated}


def _load_tokenizer(files: ModelFiles) -> Any:
    from transformers import AutoTokenizer

    folder = files.require_tokenizer()
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise ModelError(
            f"'{files.id}' ({files.setting}) has no usable tokenizer ({type(failure).__name__}).",
            "Its folder must also hold the tokenizer's files, such as tokenizer.json.",
        ) from failure


def _start_token(tokenizer: Any, files: ModelFiles) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        f"The tokenizer of '{files.id}' ({files.setting}) has neither a start nor an end token to put before a text."
    )
