"""Text made fit for a tokenizer: repaired, bounded, its markup read as text, refused when there is nothing to read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from smp_features.refusals import InputRefused

CHARACTERS_PER_TOKEN = 32
"""Characters a tokenizer is given per token it may keep; bounds its work on a text of megabytes."""


def bound_text(raw: str, max_tokens: int) -> tuple[str, bool]:
    """Return text that a tokenizer can take, and whether it was cut.

    A lone surrogate, which no UTF-8 can carry, becomes U+FFFD as Spark has it. Of a text that is too long, the white
    space in front goes first.

    Args:
        raw: The text as extracted.
        max_tokens: Tokens that will be kept of it.

    Raises:
        InputRefused: `empty`, nothing but white space.
    """
    if not raw.strip():
        raise empty()
    limit = CHARACTERS_PER_TOKEN * max_tokens
    whole = raw if len(raw) <= limit else raw.lstrip()
    text = whole[:limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text, len(whole) > limit


def empty() -> InputRefused:
    """Return the refusal of a text of which a tokenizer leaves nothing, as of one that holds nothing."""
    return InputRefused("empty", "The text is empty, or nothing that the model reads.")


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the special tokens of a transformers tokenizer that a text could spell out: markup to id.

    What stands for unknown words is not among them, nor is a token of one character, which texts hold by right.
    """
    named = [token for token in tokenizer.all_special_tokens if isinstance(token, str)]
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in dict.fromkeys([*named, *added])}
    unknown = tokenizer.unk_token_id
    return {token: number for token, number in found.items() if number != unknown and len(token.strip()) > 1}


def recognised(markup: Iterable[tuple[str, int]], ids_of: Callable[[str], Sequence[int]]) -> tuple[str, ...]:
    """Return the markup that a tokenizer takes for its special tokens where it stands in a text.

    Args:
        markup: Special tokens and their ids.
        ids_of: Tokenises a text, adding none of them.
    """
    return tuple(text for text, number in markup if number in ids_of(f"a {text} a"))


def set_apart(text: str, markup: Sequence[str]) -> str:
    """Return a text in which no markup is left: a space stands behind the first character of each.

    Markup is found in any case, and in the compatibility forms that tokenizers fold before they look.

    Example:
        >>> set_apart("sold <END> out", ("<end>",))
        'sold < END> out'
    """
    if not markup:
        return text
    pattern = re.compile("|".join(map(re.escape, sorted(markup, key=len, reverse=True))), re.IGNORECASE)
    if not pattern.search(text):
        folded = unicodedata.normalize("NFKC", text)
        if not pattern.search(folded):
            return text
        text = folded
    return pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
