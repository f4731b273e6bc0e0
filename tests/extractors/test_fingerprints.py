"""A fingerprint changes with everything that decides an output, and with nothing else."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import pytest

from smp_features.config import ModelSettings, read_models
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor


@pytest.fixture(scope="module")
def extractors(blip_folder: Path, clip_folder: Path, gpt2_folder: Path) -> dict[str, Extractor]:
    return build_extractors(configured(blip_folder, clip_folder, gpt2_folder))


def configured(blip: Path, clip: Path, gpt2: Path) -> dict[str, ModelSettings]:
    return read_models({"caption": {"id": str(blip)}, "clip": {"id": str(clip)}, "language": {"id": str(gpt2)}})


def test_the_configuration_becomes_four_extractors(extractors: dict[str, Extractor]) -> None:
    assert list(extractors) == ["caption", "clip_image", "clip_text", "perplexity"]
    assert [extractor.reads for extractor in extractors.values()] == ["image", "image", "text", "text"]
    assert [[column.name for column in extractor.outputs] for extractor in extractors.values()] == [
        ["caption"],
        ["embedding"],
        ["embedding"],
        ["log_perplexity", "token_count", "truncated"],
    ]
    assert len({extractor.fingerprint for extractor in extractors.values()}) == 4
    for extractor in extractors.values():
        extractor.check()


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("caption", "prompt", "a photo of"),
        ("caption", "dtype", "bfloat16"),
        ("caption", "max_new_tokens", 31),
        ("caption", "num_beams", 2),
        ("clip_image", "dtype", "float16"),
        ("clip_text", "dtype", "float16"),
        ("perplexity", "dtype", "float16"),
        ("perplexity", "max_tokens", 255),
    ],
)
def test_every_setting_that_decides_the_output_changes_the_fingerprint(
    extractors: dict[str, Extractor], name: str, setting: str, value: object
) -> None:
    changed = dataclasses.replace(extractors[name], **{setting: value})
    assert changed.fingerprint != extractors[name].fingerprint


@pytest.mark.parametrize("name", ["caption", "clip_image", "clip_text", "perplexity"])
def test_the_batch_size_does_not_change_the_fingerprint(extractors: dict[str, Extractor], name: str) -> None:
    assert dataclasses.replace(extractors[name], max_batch=3).fingerprint == extractors[name].fingerprint


def test_a_new_version_of_our_own_computation_changes_the_fingerprint(
    extractors: dict[str, Extractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for extractor in extractors.values():
        before = extractor.fingerprint
        monkeypatch.setattr(type(extractor), "version", 999)
        assert extractor.fingerprint != before


def test_a_renamed_or_moved_folder_keeps_the_fingerprint_and_its_place_is_not_named(
    extractors: dict[str, Extractor], blip_folder: Path, clip_folder: Path, gpt2_folder: Path, tmp_path: Path
) -> None:
    moved = [
        shutil.copytree(folder, tmp_path / f"my-{folder.name}") for folder in (blip_folder, clip_folder, gpt2_folder)
    ]
    for name, extractor in build_extractors(configured(*moved)).items():
        assert extractor.fingerprint == extractors[name].fingerprint
        description = extractor.description()
        assert description["model"] == f"my-{extractors[name].description()['model']}"
        assert str(tmp_path) not in str(description)
        assert not {"model", "tag"} & extractor.identity().keys()


def test_one_model_under_two_names_has_one_fingerprint(clip_folder: Path) -> None:
    models = read_models({"clip": {"id": str(clip_folder)}, "siglip": {"kind": "clip", "id": str(clip_folder)}})
    built = build_extractors(models)
    assert built["siglip_image"].fingerprint == built["clip_image"].fingerprint
    assert built["siglip_text"].fingerprint == built["clip_text"].fingerprint != built["clip_image"].fingerprint


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_file_changes_the_fingerprint(
    extractors: dict[str, Extractor], blip_folder: Path, clip_folder: Path, gpt2_folder: Path, tmp_path: Path, changed
) -> None:
    other = shutil.copytree(gpt2_folder, tmp_path / gpt2_folder.name)
    content = (other / changed).read_bytes()
    (other / changed).write_bytes(content[:-1] + b" " + content[-1:])
    found = build_extractors(configured(blip_folder, clip_folder, other))["perplexity"]
    assert found.fingerprint != extractors["perplexity"].fingerprint


def test_the_activation_is_in_the_description(extractors: dict[str, Extractor]) -> None:
    assert extractors["clip_image"].description()["activation"] == "gelu"


def test_the_image_processors_settings_are_in_the_description(extractors: dict[str, Extractor]) -> None:
    assert extractors["caption"].description()["image_processor"]["size"] == {"height": 32, "width": 32}
    assert extractors["clip_image"].description()["preprocess"]["mean"] == [0.5] * 3


def test_extractors_survive_pickling_with_their_fingerprint(extractors: dict[str, Extractor]) -> None:
    for extractor in extractors.values():
        copy = pickle.loads(pickle.dumps(extractor))  # noqa: S301, Spark ships them this way
        assert copy == extractor
        assert copy.fingerprint == extractor.fingerprint
