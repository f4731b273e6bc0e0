"""Perplexities equal what transformers itself computes from one text at a time, and every text case has its status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smp_features.extractors.model_files import find_model
from smp_features.extractors.perplexity import LoadedLanguageModel, PerplexityExtractor
from smp_features.refusals import InputRefused


def extractor(folder: Path, **settings: object) -> PerplexityExtractor:
    return PerplexityExtractor(find_model("models.language.id", str(folder), None), **settings)


@pytest.fixture(scope="module")
def loaded(gpt2_folder: Path) -> LoadedLanguageModel:
    return extractor(gpt2_folder).load("cpu", threads=1)


def by_transformers_alone(folder: Path, text: str, keep: int = 63) -> tuple[float, int]:
    """The model's own loss on start token + text, alone in its batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"][:keep]]])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1


def test_a_batch_equals_the_library_on_each_text_alone(
    loaded: LoadedLanguageModel, gpt2_folder: Path, titles: list[str]
) -> None:
    columns = loaded.run([loaded.prepare(title)[0] for title in titles])
    expected = [by_transformers_alone(gpt2_folder, title) for title in titles]
    np.testing.assert_allclose(columns["log_perplexity"], [loss for loss, _ in expected], atol=1e-4)
    assert columns["token_count"].tolist() == [count for _, count in expected]
    assert columns["log_perplexity"].dtype == np.float64
    assert columns["token_count"].dtype == np.int32
    assert np.ptp(columns["log_perplexity"]) > 0.1


def test_a_batch_equals_one_by_one(loaded: LoadedLanguageModel, titles: list[str]) -> None:
    items = [loaded.prepare(title)[0] for title in titles]
    together = loaded.run(items)["log_perplexity"]
    alone = [loaded.run([item])["log_perplexity"][0] for item in items]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_one_token_title_has_a_perplexity(loaded: LoadedLanguageModel) -> None:
    columns = loaded.run([loaded.prepare("x")[0]])
    assert columns["token_count"][0] == 1
    assert np.isfinite(columns["log_perplexity"][0])


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000 "])
def test_text_without_content_is_refused_as_empty(loaded: LoadedLanguageModel, text: str) -> None:
    with pytest.raises(InputRefused) as refused:
        loaded.prepare(text)
    assert refused.value.status == "empty"


def test_a_lone_surrogate_counts_as_the_replacement_character(loaded: LoadedLanguageModel) -> None:
    broken, repaired = loaded.prepare("dog \ud83d cat")[0], loaded.prepare("dog \ufffd cat")[0]
    assert np.array_equal(broken.tokens, repaired.tokens)
    pair, emoji = loaded.prepare("\ud83c\udf05")[0], loaded.prepare("🌅")[0]
    assert np.array_equal(pair.tokens, emoji.tokens)


def test_a_long_text_is_cut_at_max_tokens_and_says_so(gpt2_folder: Path) -> None:
    model = extractor(gpt2_folder, max_tokens=8).load("cpu")
    long, short = "dog on the hill " * 9, "dog"
    columns = model.run([model.prepare(long)[0], model.prepare(short)[0]])
    assert columns["truncated"].tolist() == [True, False]
    assert columns["token_count"][0] == 8
    assert columns["log_perplexity"][0] == pytest.approx(by_transformers_alone(gpt2_folder, long, keep=8)[0], abs=1e-4)


def test_a_text_beyond_the_models_window_is_cut_there(loaded: LoadedLanguageModel) -> None:
    columns = loaded.run([loaded.prepare("dog " * 500)[0]])
    assert (columns["token_count"][0], columns["truncated"][0]) == (63, True)


def test_characters_are_capped_before_the_tokenizer(loaded: LoadedLanguageModel, monkeypatch) -> None:
    seen = []
    tokenize = loaded._tokenizer
    monkeypatch.setattr(
        loaded, "_tokenizer", lambda text, **options: seen.append(len(text)) or tokenize(text, **options)
    )
    assert loaded.prepare("x" * 5_000_000)[0].truncated
    assert seen[0] < 10_000


def test_cost_is_the_padded_tokens(loaded: LoadedLanguageModel) -> None:
    item, cost = loaded.prepare("the red dog")
    assert cost == len(item.tokens)
