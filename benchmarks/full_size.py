"""Models of full size with random weights, saved as folders that the extractors load like any other model.

Speed does not depend on what weights say. The architectures are those of BLIP base, CLIP ViT-B/32 and GPT-2; their
tokenizers are the demo models' (CLIP's is open_clip's own), so a title may have more tokens than with the original
vocabulary, for every contender alike.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from smp_features.extractors.zoo import ZOO

CAPTION_TOKENS = 20
"""Length of every caption: random weights hardly ever emit the end token."""

DONE = ".complete"


def full_size_models(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the `models` section of a configuration with full-size models, building those that are not there yet.

    Args:
        folder: Where the models are kept between runs; about 2 GB.
    """
    for name, build in (("blip-base", _build_blip), ("clip-vit-b-32", _build_clip), ("gpt2", _build_gpt2)):
        target = folder / name
        if not (target / DONE).exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            build(target)
            (target / DONE).touch()
    return {
        "caption": {"id": str(folder / "blip-base"), "max_new_tokens": CAPTION_TOKENS},
        "clip": {"id": str(folder / "clip-vit-b-32"), "pretrained": None},
        "language": {"id": str(folder / "gpt2"), "revision": None},
    }


def _build_blip(folder: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration

    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}  # as the tokenizer has them
    text = {"vocab_size": 30524, "num_attention_heads": 12, "encoder_hidden_size": 768, **special}
    config = BlipConfig(text_config=text, vision_config={"image_size": 384})
    _seed()
    model = BlipForConditionalGeneration(config).eval()
    _sharpen(model, "text_decoder.bert.encoder")
    model.save_pretrained(folder)

    tokenizer = json.loads((ZOO["caption"] / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for number in range(len(vocabulary), 30524):
        vocabulary[f"word{number}"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = json.loads((ZOO["caption"] / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 512}), encoding="utf-8")
    processor = json.loads((ZOO["caption"] / "processor_config.json").read_text(encoding="utf-8"))
    processor["image_processor"]["size"] = {"height": 384, "width": 384}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def _build_clip(folder: Path) -> None:
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from safetensors.torch import save_file

    preprocess = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
    content = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    _seed()
    model = open_clip.create_model("ViT-B-32", pretrained=None, load_weights=False)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def _build_gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = json.loads((ZOO["language"] / "config.json").read_text(encoding="utf-8"))
    _seed()
    config = GPT2Config(bos_token_id=settings["bos_token_id"], eos_token_id=settings["eos_token_id"])
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ZOO["language"] / name, folder / name)


def _seed() -> None:
    import torch

    torch.manual_seed(7)


def _sharpen(model: Any, within: str) -> None:
    """Enlarge weight matrices, so that captions differ between pictures and the best word is no near-tie."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(within) and weight.ndim == 2:
                weight.mul_(4.0)
