"""Models of the size that `conf/base.yaml` names have the shapes that our code relies on; on `meta`, without values.

`test_full_size.py` (`make test-slow`) computes with such models.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smp_features.extractors.clip_text import TextTower


def parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("ViT-L-14-quickgelu", 768, 427), ("ViT-B-32-quickgelu", 512, 151)]
)
def test_both_towers_of_clip_give_vectors_of_one_width(name: str, width: int, millions: int) -> None:
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model(name, pretrained=None, load_weights=False, device="meta").eval()
    assert parameters(model) // 1_000_000 == millions
    with torch.inference_mode():
        assert model.visual(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, width)
        titles = [np.array([49406, 320, 49407]), np.array([49406, 320, 1125, 49407])]  # start, words, end
        tower = TextTower(model)
        assert tower.needed_length(np.array([49406, 320, 49407, *[0] * 74])) == 3
        assert tower.encode(titles, "meta").shape == (2, width)


def test_blip_base_sees_577_patches_and_knows_its_vocabulary() -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration

    with torch.device("meta"):
        model = BlipForConditionalGeneration(BlipConfig(vision_config={"image_size": 384})).eval()
    assert parameters(model) > 220e6
    with torch.inference_mode():
        states = model.vision_model(torch.empty(2, 3, 384, 384, device="meta")).last_hidden_state
    assert states.shape == (2, 577, 768)
    assert model.text_decoder.config.vocab_size == 30524


def test_gpt2_has_a_score_for_every_token_and_a_window_of_1024() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config()).eval()
    assert parameters(model) == 124_439_808
    assert model.lm_head.weight.shape == (50257, 768)
    assert model.transformer.wpe.weight.shape == (1024, 768)
    assert model.config.max_position_embeddings == 1024  # the window that `perplexity` cuts texts to
