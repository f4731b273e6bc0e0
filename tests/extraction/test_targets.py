"""Targets say in words what they count."""

from __future__ import annotations

import pytest

from smp_features.extraction.targets import TARGETS


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("caption", 1, "1 caption"),
        ("caption", 2000, "2,000 captions"),
        ("clip_image", 0, "0 image embeddings"),
        ("clip_text", 1, "1 text embedding"),
        ("perplexity", 12, "12 perplexities"),
    ],
)
def test_rows_are_counted_in_words(name, rows, said):
    assert TARGETS[name].counted(rows) == said
