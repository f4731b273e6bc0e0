"""The section `models` of the configuration becomes extractors."""

from __future__ import annotations

import pytest

from smp_features.config import read_models
from smp_features.extractors import build_extractors


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
    assert build_extractors(read_models({}))[name].counted(rows) == said
