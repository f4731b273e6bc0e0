"""CLIP vectors equal open_clip's own, whatever the batch and however short its context is cut."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from smp_features.errors import ModelError
from smp_features.extractors import model_digests
from smp_features.extractors.clip import ClipImageExtractor, ClipTextExtractor, preprocessing
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


@pytest.fixture(scope="module", params=["transformers", "open_clip"])
def of_either_tokenizer(request: pytest.FixtureRequest, clip_folder: Path, make_clip_folder: Callable[..., Path]):
    """A loaded text tower, with the tokenizer of transformers or with open_clip's own."""
    if request.param == "transformers":
        return text_extractor(clip_folder).load("cpu"), "<end>"
    folder = make_clip_folder("own-tokenizer", {"hf_tokenizer_name": None, "vocab_size": 49408, "eos_id": 49407})
    return text_extractor(folder).load("cpu"), "<end_of_text>"


def test_special_tokens_spelt_out_in_a_title_end_nothing(of_either_tokenizer) -> None:
    loaded, end = of_either_tokenizer
    pairs = [(f"red dog {end} {{}}", "on a hill"), (f"{end} {{}}", "free"), (f"&lt;{end[1:]} {{}}", "dog")]
    for title, behind in pairs:
        whole, without = title.format(behind), title.format("")
        assert np.abs(embed(loaded, [whole]) - embed(loaded, [without])).max() > 1e-3, whole
        assert len(loaded.prepare(whole)[0]) > len(loaded.prepare(without)[0])


@pytest.mark.parametrize("text", ["&nbsp;", "&#32;", "&amp;nbsp;", "\x07", "\x00", "\ufeff"])
def test_a_title_of_which_cleaning_leaves_nothing_is_empty(of_either_tokenizer, text: str) -> None:
    loaded, _ = of_either_tokenizer
    with pytest.raises(InputRefused) as refused:
        loaded.prepare(text)
    assert refused.value.status == "empty"
    assert len(loaded.prepare(f"{text} dog {text}")[0]) == len(loaded.prepare("dog")[0])


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
    asked, commit = [], "0123456789abcdef0123456789abcdef01234567"

    def fetch(repository: str, revision: str | None, setting: str, weights: str | None) -> Path:
        asked.append((repository, revision, weights))
        return folder

    tiny = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", fetch)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", tiny)
    files, architecture = find_clip("models.clip.id", "ViT-B-32-quickgelu", "openai", commit)
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
    assert ("timm/vit_base_patch32_clip_224.openai", commit, "open_clip*.safetensors") in asked
    assert {revision for _, revision, _ in asked} == {commit}


def test_other_weights_under_a_tag_are_another_fingerprint_to_a_pickled_extractor(
    monkeypatch: pytest.MonkeyPatch, make_clip_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clip_folder(text={"hf_tokenizer_name": None, "vocab_size": 49408, "layers": 1}, quick_gelu=True)
    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", lambda *arguments: folder)
    files, architecture = find_clip("models.clip.id", "ViT-B-32-quickgelu", "openai", None)
    for extractor in (ClipImageExtractor(files, architecture), ClipTextExtractor(files, architecture)):
        planned, shipped = extractor.fingerprint, pickle.dumps(extractor)
        assert pickle.loads(shipped).fingerprint == planned  # noqa: S301, Spark ships them this way
        elsewhere = shutil.copytree(folder, tmp_path / extractor.name)
        weights = elsewhere / "open_clip_model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with monkeypatch.context() as worker:
            worker.setattr("smp_features.extractors.model_files.fetch_from_hub", lambda *arguments: elsewhere)  # noqa: B023
            assert pickle.loads(shipped).fingerprint != planned  # noqa: S301


def test_the_digest_of_a_tags_weights_is_computed_once_per_process(
    monkeypatch: pytest.MonkeyPatch, make_clip_folder: Callable[..., Path]
) -> None:
    folder = make_clip_folder(text={"hf_tokenizer_name": None, "vocab_size": 49408, "layers": 1}, quick_gelu=True)
    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", lambda *arguments: folder)
    files, architecture = find_clip("models.clip.id", "ViT-B-32-quickgelu", "openai", None)
    before = model_digests._digest_unchanged.cache_info().misses
    for extractor in (ClipImageExtractor(files, architecture), ClipTextExtractor(files, architecture)):
        assert extractor.fingerprint == extractor.fingerprint
    assert model_digests._digest_unchanged.cache_info().misses == before + 1


def set_in_config(folder: Path, **settings: object) -> None:
    """Change settings of an open_clip folder; `text_cfg` and `vision_cfg` are laid over what is there."""
    config = folder / "open_clip_config.json"
    content = json.loads(config.read_text())
    for name, value in settings.items():
        before = content["model_cfg"].get(name)
        content["model_cfg"][name] = {**before, **value} if isinstance(before, dict) else value
    config.write_text(json.dumps(content))


@pytest.mark.parametrize("build", [image_extractor, text_extractor])
@pytest.mark.parametrize(
    "changed",
    [{"embed_dim": 20}, {"vision_cfg": {"width": 48}}, {"text_cfg": {"width": 48}}, {"text_cfg": {"layers": 3}}],
    ids=["vectors", "image-width", "text-width", "text-layers"],
)
def test_a_model_whose_weights_do_not_fit_is_refused_before_and_when_it_is_loaded(
    build: Callable[..., ClipImageExtractor], changed: dict, clip_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / clip_folder.name)
    set_in_config(folder, **changed)
    for attempt in (build(folder).check, lambda: build(folder).load("cpu")):
        with pytest.raises(ModelError, match="could not be loaded"):
            attempt()


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ({}, {"custom_text": True}),
        ({}, {"custom_text": True, "init_logit_bias": -10}),
        ({}, {"nonscalar_logit_scale": True}),
    ],
    ids=["custom", "biased", "one-dimensional-scale"],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_loads_passes_the_check(
    make_clip_folder: Callable[..., Path], clip_folder: Path, tmp_path: Path, text: dict, model: dict, dtype: str
) -> None:
    built = make_clip_folder(text=text, **model)
    older = shutil.copytree(clip_folder, tmp_path / clip_folder.name)
    set_in_config(older, **model, vision_cfg={"image_size": 48}, text_cfg={"context_length": 40})  # resized on loading
    for folder in (built, older):
        text_extractor(folder, dtype=dtype).check()
        assert text_extractor(folder, dtype=dtype).load("cpu").prepare("dog")


def test_a_tokenizer_that_would_run_code_is_refused_before_it_runs(clip_folder: Path, tmp_path: Path) -> None:
    folder, marker = shutil.copytree(clip_folder, tmp_path / clip_folder.name), tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    tokenizer = folder / "tokenizer_config.json"
    content = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps({**content, "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}))
    set_in_config(folder, text_cfg={"tokenizer_kwargs": {"trust_remote_code": True}})
    for attempt in (text_extractor(folder).check, lambda: text_extractor(folder).load("cpu")):
        with pytest.raises(ModelError, match="trust_remote_code"):
            attempt()
    set_in_config(folder, text_cfg={"tokenizer_kwargs": {"clean": "lower"}})
    with pytest.raises(ModelError, match="never run"):
        text_extractor(folder).check()
    tokenizer.write_text(json.dumps(content))
    text_extractor(folder).check()
    assert not marker.exists()


@pytest.mark.parametrize(
    "part",
    [
        {"text_cfg": {"hf_model_name": "someone/model"}},
        {"vision_cfg": {"timm_model_name": "hf-hub:someone/model"}},
    ],
    ids=["text", "image"],
)
@pytest.mark.parametrize("build", [image_extractor, text_extractor])
def test_a_folder_that_takes_a_tower_from_the_hub_is_refused(
    build: Callable[..., ClipImageExtractor], part: dict, clip_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / clip_folder.name)
    set_in_config(folder, **part)
    for attempt in (build(folder).check, lambda: build(folder).load("cpu")):
        with pytest.raises(ModelError, match=r"someone/model.* no commit pins"):
            attempt()


@pytest.mark.parametrize(
    ("architecture", "tag", "part"),
    [
        ("ViT-B-16-SigLIP", "webli", "timm/ViT-B-16-SigLIP"),
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "xlm-roberta-base"),
    ],
    ids=["tokenizer", "text"],
)
def test_a_built_in_name_that_takes_a_part_from_the_hub_is_refused_before_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, architecture: str, tag: str, part: str
) -> None:
    def fetch(*arguments: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", fetch)
    extractor = ClipTextExtractor(*find_clip("models.clip.id", architecture, tag, None))
    with pytest.raises(ModelError, match=part):
        extractor.check()


def test_loading_says_nothing_on_the_terminal(clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text_extractor(clip_folder).load("cpu")
    assert capfd.readouterr() == ("", "")


def test_preparing_in_threads_gives_what_one_thread_gives(clip_folder: Path, titles: list[str]) -> None:
    loaded = text_extractor(clip_folder).load("cpu")
    expected = [loaded.prepare(title)[0].tolist() for title in titles]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(loaded.prepare, titles * 50))
    assert [tokens.tolist() for tokens, _ in found] == expected * 50


@pytest.mark.parametrize("stated", [{}, {"mean": [0.5] * 3, "interpolation": "bilinear", "other": 1, "std": None}])
def test_preprocessing_is_merged_as_open_clip_merges_it_without_importing_it(stated):
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    assert preprocessing(384, stated) == merge_preprocess_dict(PreprocessCfg(size=384), stated)
