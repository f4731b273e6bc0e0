"""Perplexities equal what transformers itself computes from one text at a time, and every text case has its status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smp_features.extractors.model_files import find_model
from smp_features.extractors.perplexity import LoadedLanguageModel, PerplexityExtractor, TextTokens
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


def test_white_space_before_a_title_does_not_push_it_out_of_what_is_read(loaded: LoadedLanguageModel) -> None:
    item = loaded.prepare("\n" * 3_000_000 + "the red dog")[0]
    assert np.array_equal(item.tokens, loaded.prepare("the red dog")[0].tokens) and not item.truncated


def unigram(cleaned: str):
    """Words with a sentence-piece mark, special tokens among them, as converted T5 and XLM-R tokenizers have them."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    words = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("\u2581", -3.0), ("red", -2.0), ("\u2581dog", -2.0)]
    words += [(letter, -5.0) for letter in "<>/sredog"]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(cleaned), "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def word_level(cleaned: str):
    """Whole words, split at white space alone, so that markup is a word of the vocabulary."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    words = ["<unk>", "<s>", "</s>", "red", "dog", "<", "s>", "/s>"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(cleaned), "")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def word_piece(cleaned: str):
    """BERT's: control characters are cleaned away, words split at punctuation."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["<unk>", "<s>", "</s>", "red", "dog", "<", ">", "/", "s"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture(params=[unigram, word_level, word_piece])
def tokens(request: pytest.FixtureRequest) -> TextTokens:
    from transformers import PreTrainedTokenizerFast

    tokenizer = request.param("[\ufeff\x07\u200b]|&nbsp;")
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return TextTokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named), embeddings=1000)


@pytest.mark.parametrize("text", ["<s>", "</s>", "red <s> dog", "<s>red</s>", "</S>", "\uff1cs\uff1e dog", "<s></s>"])
def test_markup_of_special_tokens_in_a_title_is_text(tokens: TextTokens, text: str) -> None:
    found = tokens.of(text)
    assert found and not {1, 2} & set(found)
    if "dog" in text:
        assert found[-1] == tokens.of("red dog")[-1], "what stands behind it still counts"


@pytest.mark.parametrize("text", ["\ufeff", "\x07\x07", "\u200b"])
def test_a_title_that_the_tokenizer_cleans_away_is_empty(tokens: TextTokens, text: str) -> None:
    with pytest.raises(InputRefused) as refused:
        tokens.of(text)
    assert refused.value.status == "empty"


def test_a_title_of_unknown_words_is_not_empty(tokens: TextTokens) -> None:
    assert 0 in tokens.of("\u65e5\u672c")


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
    tokenize = loaded._tokens._ids
    monkeypatch.setattr(loaded._tokens, "_ids", lambda text: seen.append(len(text)) or tokenize(text))
    assert loaded.prepare("x" * 5_000_000)[0].truncated
    assert seen[0] < 10_000


def test_cost_is_the_padded_tokens(loaded: LoadedLanguageModel) -> None:
    item, cost = loaded.prepare("the red dog")
    assert cost == len(item.tokens)
