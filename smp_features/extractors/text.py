"""Text made fit for a tokenizer: repaired, bounded, and refused when there is nothing to read."""

from __future__ import annotations

from smp_features.refusals import InputRefused

CHARACTERS_PER_TOKEN = 32
"""Characters a tokenizer is given per token it may keep; bounds its work on a text of megabytes."""


def bound_text(raw: str, max_tokens: int) -> tuple[str, bool]:
    """Return text that a tokenizer can take, and whether it was cut.

    A lone surrogate, which no UTF-8 can carry, becomes U+FFFD as Spark has it.

    Args:
        raw: The text as extracted.
        max_tokens: Tokens that will be kept of it.

    Raises:
        InputRefused: `empty`, nothing but white space.
    """
    if not raw.strip():
        raise InputRefused("empty", "The text is empty or white space.")
    limit = CHARACTERS_PER_TOKEN * max_tokens
    text = raw[:limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text, len(raw) > limit
