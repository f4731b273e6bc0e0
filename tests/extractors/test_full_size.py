"""Models as large as `conf/base.yaml` names, saved to folders, are loaded as configured and run through a few posts.

BLIP base, CLIP ViT-L/14, CLIP ViT-B/32 and GPT-2 are built at their true sizes from their configuration classes; only
the weights are random, and of the vocabularies only the sizes and special tokens are true. BLIP-2 and InstructBLIP are
cut down: their pictures, patches, query tokens, widths of both encoders and vocabularies are true, but every part has
two layers, and the language model is 256 wide. The true ones have 4 to 8 billion parameters (16 to 32 GB), which no
machine that runs tests holds, so nothing here shows that they fit anywhere.

One model is built, saved, freed, loaded and removed at a time: at most 4 GB of memory and 2 GB of disk.
"""

from __future__ import annotations

import gc
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from smp_features.config import load_config
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Columns, Extractor

pytestmark = [pytest.mark.slow, pytest.mark.full]

BASE = Path(__file__).parents[2] / "conf" / "base.yaml"
TITLES = ["Sunset over the harbour, day 3", "x", "🌅 café à la plage #日本", "boats and gulls " * 100]
INSTRUCTION = "Write a short description of the image."


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone, with the gigabytes in it, as soon as the test is."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)
    gc.collect()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Three pictures as people post them: a scene, a portrait-format gradient, a small PNG with transparency."""
    scene = Image.new("RGB", (640, 427), (90, 150, 220))
    draw = ImageDraw.Draw(scene)
    draw.rectangle((0, 260, 640, 427), fill=(40, 90, 60))
    draw.ellipse((420, 40, 520, 140), fill=(250, 210, 60))
    across = np.linspace(0, 255, 300, dtype=np.uint8)
    tall = Image.fromarray(np.stack([np.tile(across, (500, 1)), np.full((500, 300), 80, np.uint8)], -1).repeat(2, -1))
    badge = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    ImageDraw.Draw(badge).polygon([(24, 2), (46, 46), (2, 46)], fill=(200, 20, 20, 255))
    return [_encoded(scene, "JPEG"), _encoded(tall.convert("RGB"), "JPEG"), _encoded(badge, "PNG")]


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def configured(*models: str) -> dict[str, Extractor]:
    """The extractors of `conf/base.yaml` with some models given as folders, the rest being the demo's."""
    demo = ("caption.id=zoo:caption", "clip.id=zoo:clip", "language.id=zoo:language")
    return build_extractors(load_config(BASE, [f"models.{setting}" for setting in (*demo, *models)]).models)


def computed(extractor: Extractor, inputs: list[Any]) -> Columns:
    """What an extractor computes in one batch, once a second run and every input alone have given the same."""
    extractor.check()
    loaded = extractor.load("cpu")
    items = [loaded.prepare(raw)[0] for raw in inputs]
    together, again, alone = loaded.run(items), loaded.run(items), [loaded.run([item]) for item in items]
    assert list(together) == [column.name for column in extractor.outputs]
    for column in extractor.outputs:
        rows, one_by_one = together[column.name], [single[column.name][0] for single in alone]
        if column.name == "caption":
            assert rows == again["caption"] == one_by_one
        else:
            assert np.isfinite(rows).all()
            np.testing.assert_allclose(again[column.name], rows, atol=1e-5)
            np.testing.assert_allclose(one_by_one, rows, atol=1e-5)
    return together


def test_blip_base_captions_pictures(folder: Path, pictures: list[bytes]) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    torch.manual_seed(1)
    model = BlipForConditionalGeneration(BlipConfig(vision_config={"image_size": 384}))
    assert sum(weight.numel() for weight in model.parameters()) > 220e6
    randomise(model, model.text_decoder)
    model.save_pretrained(folder)
    del model
    # The files that the hub's repository has: no processor_config.json, and [DEC], 30522, is no word.
    bert_tokenizer(30522).save_pretrained(folder)
    BlipImageProcessor(size={"height": 384, "width": 384}).save_pretrained(folder)

    extractor = configured(f"caption.id={folder}", "caption.max_new_tokens=6")["caption"]
    assert extractor.description()["image_processor"]["size"] == {"height": 384, "width": 384}
    captions = computed(extractor, pictures)["caption"]
    assert len(captions) == 3 and all(captions) and len(set(captions)) > 1
    assert all(1 <= len(caption.split()) <= 6 for caption in captions)


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("ViT-L-14-quickgelu", 768, 427), ("ViT-B-32-quickgelu", 512, 151)]
)
def test_clip_embeds_pictures_and_titles(
    folder: Path, pictures: list[bytes], name: str, width: int, millions: int
) -> None:
    import open_clip
    from safetensors.torch import save_file

    preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    content = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    torch.manual_seed(2)
    model = open_clip.create_model(name, pretrained=None, load_weights=False)
    assert sum(weight.numel() for weight in model.parameters()) // 1_000_000 == millions
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    del model

    extractors = configured(f"clip.id={folder}")
    for extractor, inputs in ((extractors["clip_image"], pictures), (extractors["clip_text"], TITLES)):
        assert extractor.description()["activation"] == "quick_gelu"
        vectors = computed(extractor, inputs)["embedding"]
        assert vectors.shape == (len(inputs), width) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
        gc.collect()


def test_gpt2_scores_titles(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    model = GPT2LMHeadModel(GPT2Config())
    assert sum(weight.numel() for weight in model.parameters()) == 124_439_808
    model.save_pretrained(folder)
    del model
    byte_tokenizer(50257, {"<|endoftext|>": 50256}, bos="<|endoftext|>", eos="<|endoftext|>").save_pretrained(folder)

    columns = computed(configured(f"language.id={folder}", "language.revision=null")["perplexity"], TITLES)
    assert columns["token_count"].tolist() == [min(256, len(title.encode())) for title in TITLES]
    assert columns["truncated"].tolist() == [False, False, False, True]
    assert columns["log_perplexity"].dtype == np.float64 and columns["token_count"].dtype == np.int32
    # A model that knows nothing finds all of its tokens about equally likely, a single one by luck more or less so.
    np.testing.assert_allclose(columns["log_perplexity"], np.log(50257), atol=2)
    assert np.ptp(columns["log_perplexity"]) > 1e-3


OPT = {
    "model_type": "opt",
    "vocab_size": 50304,
    "hidden_size": 256,
    "word_embed_proj_dim": 256,
    "ffn_dim": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "eos_token_id": 50118,
}
FLAN_T5 = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 256,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "decoder_start_token_id": 0,
}
VICUNA = {
    "model_type": "llama",
    "vocab_size": 32001,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}
LANGUAGE_MODELS = {
    "opt": (OPT, {"<s>": 0, "<pad>": 1, "</s>": 2, "<image>": 50265}, "</s> $A"),
    "flan-t5": (FLAN_T5, {"<pad>": 0, "</s>": 1, "<image>": 32100}, "$A </s>"),
    "vicuna": (VICUNA, {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 32000}, "<s> $A"),
}
"""Configuration, special tokens and what the tokenizer adds, of the language models behind BLIP-2 and InstructBLIP."""


@pytest.mark.parametrize(
    ("family", "language", "prompt"),
    [
        ("Blip2", "opt", None),
        ("Blip2", "flan-t5", None),
        ("InstructBlip", "vicuna", INSTRUCTION),
        ("InstructBlip", "flan-t5", INSTRUCTION),
    ],
)
def test_blip2_and_instructblip_caption_pictures(
    folder: Path, pictures: list[bytes], family: str, language: str, prompt: str | None
) -> None:
    save_large_captioner(folder, family, language)
    assert len(list(folder.glob("model-*.safetensors"))) > 1  # in shards, as the hub's are
    settings = [f"caption.id={folder}", "caption.max_new_tokens=6", *([f"caption.prompt={prompt}"] if prompt else [])]
    captions = computed(configured(*settings)["caption"], pictures)["caption"]
    assert len(set(captions)) > 1
    # Sums in bfloat16 depend on the batch, and so may the next word of a model of random weights.
    halved = configured(*settings, "caption.dtype=bfloat16")["caption"].load("cpu")
    rough = halved.run([halved.prepare(data)[0] for data in pictures])["caption"]
    for found in (captions, rough):
        assert len(found) == 3 and all(found)
        assert not any(INSTRUCTION in caption or "<image>" in caption for caption in found)


def save_large_captioner(folder: Path, family: str, language: str) -> None:
    """Save a cut-down BLIP-2 or InstructBLIP: two layers everywhere, and a narrow language model."""
    import transformers

    text, special, template = LANGUAGE_MODELS[language]
    config = getattr(transformers, f"{family}Config")(
        vision_config={"num_hidden_layers": 2, "image_size": 224, "patch_size": 14},
        qformer_config={"num_hidden_layers": 2, "vocab_size": 30523},
        text_config=text,
        num_query_tokens=32,
        image_token_index=special["<image>"],
    )
    assert (config.vision_config.hidden_size, config.qformer_config.hidden_size) == (1408, 768)
    torch.manual_seed(4)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    randomise(model, model.language_model)
    model.save_pretrained(folder, max_shard_size="100MB")
    pictures = transformers.BlipImageProcessor(size={"height": 224, "width": 224})
    size = max(special.values()) + 1
    names = {name: token for name, token in (("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>")) if token in special}
    words = byte_tokenizer(size, special, template, **names)
    second = [] if family == "Blip2" else [bert_tokenizer(30523)]
    getattr(transformers, f"{family}Processor")(pictures, words, *second, num_query_tokens=32).save_pretrained(folder)


def randomise(model: Any, language: Any) -> None:
    """Draw weights that carry the picture through to the words, which a fresh model's do not.

    Matrices keep lengths; words have short vectors, or each would be the likeliest to follow itself.
    """
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
        language.get_input_embeddings().weight.normal_(std=0.05)


def bert_tokenizer(size: int) -> Any:
    """A WordPiece tokenizer of BERT's form, of which only letters and the special tokens are BERT's."""
    from transformers import BertTokenizer

    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    letters = [prefix + letter for prefix in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz."]
    return BertTokenizer(vocab=_vocabulary(size, special, letters))


def byte_tokenizer(size: int, special: dict[str, int], template: str | None = None, **names: str) -> Any:
    """A byte-level tokenizer that has every byte as a token of its own and the special tokens at their true ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(size, special, alphabet), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    if template is not None:
        added = [(token, number) for token, number in special.items() if token in template.split()]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=added)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


def _vocabulary(size: int, special: dict[str, int], tokens: list[str]) -> dict[str, int]:
    """Token to id: the special ones at their ids, then the tokens, then made-up words up to the size."""
    free = iter(sorted(set(range(size)) - set(special.values())))
    named = special | {token: next(free) for token in tokens}
    return named | {f"word{number}": number for number in free}
