"""Only a model that sees no later token has perplexities, and only texts that fit it are handed to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from smp_features.errors import ModelError
from smp_features.extractors import causality
from smp_features.extractors.model_files import find_model
from smp_features.extractors.perplexity import LoadedLanguageModel, PerplexityExtractor

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WINDOW = 40


def models() -> dict[str, Callable[[dict], object]]:
    """Tiny models by name, of the vocabulary that is given."""
    import transformers as tf

    wide = SMALL | {"max_position_embeddings": WINDOW}
    return {
        "bert": lambda words: tf.BertLMHeadModel(tf.BertConfig(**words, **wide)),
        "roberta": lambda words: tf.RobertaForCausalLM(tf.RobertaConfig(**words, **wide, pad_token_id=1)),
        "electra": lambda words: tf.ElectraForCausalLM(tf.ElectraConfig(**words, **wide, embedding_size=16)),
        "xlnet": lambda words: tf.XLNetLMHeadModel(
            tf.XLNetConfig(**words, d_model=16, n_layer=2, n_head=2, d_inner=32)
        ),
        "xlm": lambda words: tf.XLMWithLMHeadModel(
            tf.XLMConfig(**words, emb_dim=16, n_layers=2, n_heads=2, max_position_embeddings=WINDOW)
        ),
        "gemma told to see both ways": lambda words: tf.Gemma3ForCausalLM(
            tf.Gemma3TextConfig(
                **words, **wide, num_key_value_heads=1, head_dim=8, sliding_window=8, use_bidirectional_attention=True
            )
        ),
        "bert as a decoder": lambda words: tf.BertLMHeadModel(tf.BertConfig(**words, **wide, is_decoder=True)),
        "roberta as a decoder": lambda words: tf.RobertaForCausalLM(
            tf.RobertaConfig(**words, **wide, pad_token_id=1, is_decoder=True)
        ),
        "mpt": lambda words: tf.MptForCausalLM(
            tf.MptConfig(**words, d_model=16, n_layers=2, n_heads=2, max_seq_len=WINDOW)
        ),
        "experts": lambda words: tf.MixtralForCausalLM(
            tf.MixtralConfig(**words, **wide, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2)
        ),
        "no window": lambda words: tf.BloomForCausalLM(tf.BloomConfig(**words, hidden_size=16, n_layer=2, n_head=2)),
    }


@pytest.fixture
def build(make_language_folder: Callable[..., Path]) -> Callable[..., PerplexityExtractor]:
    """Save a tiny model with a tokenizer, and return its extractor."""

    def make(name: str, fewer: int = 0, added: tuple[str, ...] = (), **settings: object) -> PerplexityExtractor:
        folder = make_language_folder(models()[name], fewer, added)
        return PerplexityExtractor(find_model("models.language.id", str(folder), None), **settings)

    return make


BOTH_WAYS = ["bert", "roberta", "electra", "xlnet", "xlm"]


@pytest.mark.parametrize("name", [*BOTH_WAYS, "gemma told to see both ways"])
def test_a_model_that_sees_later_tokens_is_refused_before_anything_is_written(build, name):
    with pytest.raises(ModelError, match="no perplexity") as raised:
        build(name).check()
    assert "\n" not in str(raised.value) and "models.language.id" in str(raised.value)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_the_loaded_model_itself_shows_it_where_its_configuration_does_not(build, name, monkeypatch):
    monkeypatch.setattr(causality, "check_configuration", lambda *_: None)
    extractor = build(name)
    for use in (extractor.check, lambda: extractor.load("cpu")):
        with pytest.raises(ModelError, match="a later token changes what it predicts for an earlier one"):
            use()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["bert as a decoder", "experts", "no window"])
def test_a_causal_model_is_not_taken_for_another(build, name, dtype):
    extractor = build(name, dtype=dtype)
    extractor.check()
    loaded = extractor.load("cpu")
    assert np.isfinite(loaded.run([loaded.prepare("the red dog")[0]])["log_perplexity"]).all()


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"model_type": "xlm-roberta"}, True),
        ({"model_type": "camembert", "is_decoder": False}, True),
        ({"model_type": "xlm-roberta", "is_decoder": True}, False),
        ({"model_type": "xlm", "causal": True}, False),
        ({"model_type": "gpt2"}, False),
        ({"model_type": "bart"}, False),  # a decoder whatever it is told
    ],
)
def test_what_a_configuration_says_is_enough_to_refuse_it(config, refused):
    files = SimpleNamespace(id="m", setting="models.language.id")
    if refused:
        with pytest.raises(ModelError, match="no decoder"):
            causality.check_configuration(config, files)
    else:
        causality.check_configuration(config, files)


@pytest.mark.parametrize(
    ("name", "tokens"), [("roberta as a decoder", WINDOW - 3), ("bert as a decoder", WINDOW - 1), ("mpt", WINDOW - 1)]
)
def test_a_text_as_long_as_the_window_and_longer_is_cut_to_what_the_model_takes(build, name, tokens):
    extractor = build(name)
    extractor.check()
    loaded = extractor.load("cpu")
    scored = loaded.run([loaded.prepare("x" * length)[0] for length in (tokens - 1, tokens, tokens + 1, 500)])
    assert scored["token_count"].tolist() == [tokens - 1, tokens, tokens, tokens]
    assert scored["truncated"].tolist() == [False, False, True, True]
    assert np.isfinite(scored["log_perplexity"]).all()


def test_a_model_that_fails_on_its_longest_text_is_refused_with_the_setting_to_change(build, monkeypatch):
    monkeypatch.setattr(causality, "window_of", lambda _: None)  # such as one that no configuration names
    with pytest.raises(ModelError, match=r"cannot take a text of 256 tokens.*models\.language\.max_tokens"):
        build("mpt").check()
    build("mpt", max_tokens=WINDOW - 1).check()


def test_a_start_token_without_an_embedding_is_refused(build):
    with pytest.raises(ModelError, match=r"start token has the id \d+, and the model has \d+ embeddings"):
        build("no window", fewer=2).check()


def test_a_vocabulary_without_embeddings_is_refused(build, monkeypatch):
    monkeypatch.setattr("smp_features.extractors.perplexity._start_token", lambda *_: 0)
    with pytest.raises(ModelError, match=r"vocabulary goes up to the id \d+"):
        build("no window", fewer=20).check()


def test_an_added_token_without_an_embedding_is_read_as_the_text_it_is(build):
    extractor = build("no window", added=("<extra>",))
    extractor.check()
    loaded: LoadedLanguageModel = extractor.load("cpu")
    item = loaded.prepare("see <extra> dog")[0]
    assert item.tokens.max() < causality.embeddings_of(loaded.model)
    assert np.isfinite(loaded.run([item])["log_perplexity"]).all()


def test_a_folder_of_weights_is_read_once_to_check_it(build, monkeypatch):
    extractor, seen = build("no window"), []
    import transformers

    load = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: seen.append(Path(a[0])) or load(*a, **k)
    )
    extractor.check()
    assert len(seen) == 1
