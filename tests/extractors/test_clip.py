"""CLIP vectors equal open_clip's own, whatever the batch and however short its context is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from smp_features.errors import ModelError
from smp_features.extractors.clip import ClipImageExtractor, ClipTextExtractor
from smp_features.extractors.clip_names import find_clip
from smp_features.refusals import InputRefused


def image_extractor(folder: Path, **settings: object) -> ClipImageExtractor:
    return ClipImageExtractor(find_clip("models.clip.id", str(folder), None, None)[0], **settings)


def text_extractor(folder: Path, **settings: object) -> ClipTextExtractor:
    return ClipTextExtractor(find_clip("models.clip.id", str(folder), None, None)[0], **settings)


def by_open_clip_alone(folder: Path, texts: list[str]) -> np.ndarray:
    """The library's own text vectors, at the full context, one text at a time."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        rows = [model.eval().encode_text(tokenizer([text]), normalize=True) for text in texts]
    return torch.cat(rows).numpy()


def embed(loaded, inputs) -> np.ndarray:
    return loaded.run([loaded.prepare(raw)[0] for raw in inputs])["embedding"]


def test_image_vectors_equal_open_clips_own(clip_folder: Path, pictures: list[bytes]) -> None:
    found = embed(image_extractor(clip_folder).load("cpu", threads=1), pictures)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    with torch.no_grad():
        pixels = torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])
        expected = model.eval().encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.shape == (5, 24) and found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_an_image_batch_equals_one_by_one(clip_folder: Path, pictures: list[bytes]) -> None:
    loaded = image_extractor(clip_folder).load("cpu")
    alone = np.concatenate([embed(loaded, [data]) for data in pictures])
    np.testing.assert_allclose(embed(loaded, pictures), alone, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ({}, {}),
        ({}, {"custom_text": True}),
        ({"pool_type": "eos"}, {"custom_text": True}),
        ({"proj_bias": True}, {"custom_text": True}),
        ({"no_causal_mask": True}, {"custom_text": True}),
        ({"pool_type": "last"}, {"custom_text": True}),
        ({}, {"quick_gelu": True}),
    ],
    ids=["plain", "custom", "eos-pooled", "biased", "bidirectional", "last-pooled", "quick-gelu"],
)
def test_text_vectors_equal_open_clips_own_at_full_context(
    make_clip_folder: Callable[..., Path], titles: list[str], text: dict, model: dict
) -> None:
    folder = make_clip_folder(text=text, **model)
    found = embed(text_extractor(folder).load("cpu", threads=1), titles)
    np.testing.assert_allclose(found, by_open_clip_alone(folder, titles), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_text_vectors_with_open_clips_own_tokenizer(make_clip_folder: Callable[..., Path], titles: list[str]) -> None:
    folder = make_clip_folder(text={"hf_tokenizer_name": None, "vocab_size": 49408, "layers": 1})
    found = embed(text_extractor(folder).load("cpu"), titles)
    np.testing.assert_allclose(found, by_open_clip_alone(folder, titles), atol=1e-5)


def test_a_text_batch_equals_one_by_one(clip_folder: Path, titles: list[str]) -> None:
    loaded = text_extractor(clip_folder).load("cpu")
    alone = np.concatenate([embed(loaded, [title]) for title in titles])
    np.testing.assert_allclose(embed(loaded, titles), alone, atol=1e-4)


def test_short_titles_cost_their_own_tokens_and_not_the_context(clip_folder: Path) -> None:
    loaded = text_extractor(clip_folder).load("cpu")
    tokens, cost = loaded.prepare("dog")
    assert cost == len(tokens) < 10
    assert loaded.prepare("sea " * 400)[1] == 77


def test_bad_inputs_are_refused_with_their_status(clip_folder: Path) -> None:
    with pytest.raises(InputRefused) as empty:
        text_extractor(clip_folder).load("cpu").prepare(" \n")
    assert empty.value.status == "empty"
    with pytest.raises(InputRefused) as html:
        image_extractor(clip_folder).load("cpu").prepare(b"<html>")
    assert html.value.status == "not_an_image"


def test_lone_surrogates_and_endless_words_are_survived(clip_folder: Path) -> None:
    loaded = text_extractor(clip_folder).load("cpu")
    assert np.isfinite(embed(loaded, ["dog \ud83d cat", "y" * 1_000_000])).all()


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_reduced_precision_still_gives_float32_vectors_close_by(
    clip_folder: Path, pictures: list[bytes], titles: list[str], dtype: str
) -> None:
    for build, inputs in ((image_extractor, pictures), (text_extractor, titles)):
        exact = embed(build(clip_folder).load("cpu"), inputs)
        rough = embed(build(clip_folder, dtype=dtype).load("cpu"), inputs)
        assert rough.dtype == np.float32
        assert (exact * rough).sum(axis=1).min() > 0.98


def test_weights_trained_with_the_other_activation_are_an_error_and_name_the_right_model() -> None:
    with pytest.raises(ModelError, match="ViT-B-32-quickgelu"):
        find_clip("models.clip.id", "ViT-B-32", "openai", None)
    with pytest.raises(ModelError, match="pretrained"):
        find_clip("models.clip.id", "ViT-B-32-quickgelu", None, None)


def test_an_unknown_name_or_tag_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="ViT-L-14-quickgelu"):
        find_clip("models.clip.id", "ViT-L-14-quickgleu", "openai", None)
    with pytest.raises(ModelError, match="openai"):
        find_clip("models.clip.id", "ViT-L-14-quickgelu", "openia", None)


def test_a_tag_is_loaded_from_its_hub_repositorys_safetensors(
    monkeypatch: pytest.MonkeyPatch, make_clip_folder: Callable[..., Path], pictures: list[bytes]
) -> None:
    folder = make_clip_folder(text={"hf_tokenizer_name": None, "vocab_size": 49408, "layers": 1}, quick_gelu=True)
    asked = []

    def fetch(repository: str, revision: str | None, setting: str, weights: str | None) -> Path:
        asked.append((repository, weights))
        return folder

    import json

    tiny = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", fetch)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", tiny)
    files, architecture = find_clip("models.clip.id", "ViT-B-32-quickgelu", "openai", None)
    extractor = ClipImageExtractor(files, architecture)
    extractor.check()
    described = extractor.description()
    assert (described["architecture"], described["tag"], described["activation"]) == (
        "ViT-B-32-quickgelu",
        "openai",
        "quick_gelu",
    )
    assert len(described["weights"]) == 64
    assert described["preprocess"]["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert embed(extractor.load("cpu"), pictures).shape == (5, 24)
    assert ("timm/vit_base_patch32_clip_224.openai", "open_clip*.safetensors") in asked


def test_a_model_whose_weights_do_not_fit_is_an_error(make_clip_folder: Callable[..., Path]) -> None:
    folder = make_clip_folder()
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace('"embed_dim": 24', '"embed_dim": 20'))
    with pytest.raises(ModelError, match="could not be loaded"):
        image_extractor(folder).load("cpu")


def test_loading_says_nothing_on_the_terminal(clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text_extractor(clip_folder).load("cpu")
    assert capfd.readouterr() == ("", "")


def test_preparing_in_threads_gives_what_one_thread_gives(clip_folder: Path, titles: list[str]) -> None:
    loaded = text_extractor(clip_folder).load("cpu")
    expected = [loaded.prepare(title)[0].tolist() for title in titles]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(loaded.prepare, titles * 50))
    assert [tokens.tolist() for tokens, _ in found] == expected * 50
