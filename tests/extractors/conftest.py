"""Tiny models with random weights, built from configuration classes and saved as folders, and inputs for them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "dog", "of", "photo", "the", "short", "describe", "cat", "on"]
CORPUS = [
    "a photo of the red dog on a hill",
    "sunset over the sea, with boats",
    "my 1st day in Paris!",
    "ÄÖÜ naïve 日本",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Five encoded pictures of different sizes and formats."""
    random = np.random.default_rng(3)
    encoded = []
    for number, (width, height) in enumerate([(64, 48), (31, 90), (1, 1), (200, 20), (33, 33)]):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((width, height)).save(buffer, "PNG" if number % 2 else "JPEG")
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="session")
def titles() -> list[str]:
    """Titles of different lengths: one token, many tokens, emoji, mixed scripts."""
    return ["dog", "the red dog on a hill, a photo", "IMG_2034", "🌅 日本 naïve", "sea " * 40, "x"]


def word_tokenizer(words: list[str]):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )


def byte_tokenizer(end: str):
    """A byte-level BPE tokenizer whose end token has the largest id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([end])
    return tokenizer


def save_with_random_weights(model, folder: Path, seed: int = 0) -> None:
    """Save a transformers model after making its weights large enough that outputs differ between inputs."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (1.0 if "embed" in name else 0.3))
    model.eval().save_pretrained(folder)


def vision() -> dict:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 16,
    }


def image_processor():
    from transformers import BlipImageProcessor

    return BlipImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    folder = tmp_path_factory.mktemp("models") / "tiny-blip"
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "pad_token_id": 0,
    }
    save_with_random_weights(BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision())), folder)
    BlipProcessor(image_processor(), word_tokenizer(WORDS)).save_pretrained(folder)
    return folder


def qformer() -> dict:
    return {
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 32,
    }


def opt() -> dict:
    return {
        "model_type": "opt",
        "vocab_size": len(WORDS) + 1,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def t5() -> dict:
    return {
        "model_type": "t5",
        "vocab_size": len(WORDS) + 1,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 2,
    }


def llama() -> dict:
    return {
        "model_type": "llama",
        "vocab_size": len(WORDS) + 1,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


@pytest.fixture(scope="session")
def blip2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

    folder = tmp_path_factory.mktemp("models") / "tiny-blip2"
    config = Blip2Config(
        vision_config=vision(),
        qformer_config=qformer(),
        text_config=opt(),
        num_query_tokens=4,
        image_token_index=len(WORDS),
    )
    save_with_random_weights(Blip2ForConditionalGeneration(config), folder)
    Blip2Processor(image_processor(), word_tokenizer([*WORDS, "<image>"]), num_query_tokens=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=[t5, opt, llama], ids=["t5", "opt", "llama"])
def instructblip_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor

    folder = tmp_path_factory.mktemp("models") / f"tiny-instructblip-{request.param.__name__}"
    config = InstructBlipConfig(
        vision_config=vision(),
        qformer_config=qformer(),
        text_config=request.param(),
        num_query_tokens=4,
        image_token_index=len(WORDS),
    )
    save_with_random_weights(InstructBlipForConditionalGeneration(config), folder)
    InstructBlipProcessor(
        image_processor(), word_tokenizer([*WORDS, "<image>"]), word_tokenizer(WORDS), num_query_tokens=4
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    tokenizer = byte_tokenizer("<|endoftext|>")
    size = tokenizer.get_vocab_size()
    config = GPT2Config(
        vocab_size=size, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=size - 1, eos_token_id=size - 1
    )
    save_with_random_weights(GPT2LMHeadModel(config), folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_language_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a tiny language model with a tokenizer; `make` is given the vocabulary's settings, less `fewer` tokens."""
    from transformers import PreTrainedTokenizerFast

    def build(make: Callable[[dict], object], fewer: int = 0, added: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp("language")
        tokenizer = byte_tokenizer("<s>")
        tokenizer.add_special_tokens(["</s>"])
        words = {"vocab_size": tokenizer.get_vocab_size() - fewer, "bos_token_id": 0, "eos_token_id": 0}
        save_with_random_weights(make(words), folder)
        saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
        saved.add_tokens(list(added))
        saved.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def make_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a tiny open_clip folder; `text` and `model` settings are laid over the defaults."""

    def build(name: str = "tiny-clip", text: dict | None = None, **model: object) -> Path:
        import open_clip
        import torch
        from safetensors.torch import save_file
        from tokenizers.processors import TemplateProcessing
        from transformers import PreTrainedTokenizerFast

        folder = tmp_path_factory.mktemp("models") / name
        folder.mkdir()
        tokenizer = byte_tokenizer("<pad>")
        tokenizer.add_special_tokens(["<start>", "<end>"])
        start, end = tokenizer.token_to_id("<start>"), tokenizer.token_to_id("<end>")
        tokenizer.post_processor = TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
        )
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<pad>"
        ).save_pretrained(folder)
        text_settings = {
            "context_length": 77,
            "vocab_size": tokenizer.get_vocab_size(),
            "hf_tokenizer_name": name,
            "width": 32,
            "heads": 2,
            "layers": 2,
            "eos_id": end,
            "pad_id": tokenizer.token_to_id("<pad>"),
            **(text or {}),
        }
        settings = {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": text_settings,
            **model,
        }
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": settings, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
        )
        torch.manual_seed(0)
        model_ = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        with torch.no_grad():
            for name_, weight in model_.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(std=1.0 if "embedding" in name_ else 0.3)
        save_file(
            {key: value.contiguous() for key, value in model_.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        return folder

    return build


@pytest.fixture(scope="session")
def clip_folder(make_clip_folder: Callable[..., Path]) -> Path:
    return make_clip_folder()
