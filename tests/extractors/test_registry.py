"""The section `models` of the configuration becomes extractors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pytest

from smp_features import plugins
from smp_features.catalogue import Cosine, Lookup
from smp_features.config import read_models
from smp_features.errors import ConfigError, ModelError, UsageError
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor, ModelSettings, OutputColumn
from smp_features.extractors.registry import chosen


def built(**models: dict[str, object]) -> dict[str, Extractor]:
    return build_extractors(read_models(models))


class HueSettings(ModelSettings):
    bins: int = 8


@dataclass(frozen=True)
class Hues(Extractor):
    """A kind as a package of somebody else brings it: what it does not say is the default."""

    bins: int = 8

    kind: ClassVar[str] = "hues"
    reads: ClassVar[Literal["image", "text"]] = "image"
    version: ClassVar[int] = 3
    table: ClassVar[str] = "hues"
    outputs = (
        OutputColumn("mean", pa.float64(), "degrees"),
        OutputColumn("counts", pa.list_(pa.float32()), "shares"),
        OutputColumn("name", pa.string(), "a word"),
    )
    Settings = HueSettings

    def load(self, device, threads=None):
        raise ModelError("there is none")


@pytest.fixture
def installed(monkeypatch):
    """Three kinds that a package of somebody else brings."""
    brought = {"hues": "Hues", "other_hues": "OtherHues", "translation": "Translation"}
    kinds = {kind: f"{__name__}:{name}" for kind, name in brought.items()}
    monkeypatch.setitem(plugins._OWN, plugins.EXTRACTORS, {**plugins._OWN[plugins.EXTRACTORS], **kinds})


def test_every_role_has_a_demo_model_unless_another_is_configured():
    assert {name: (each.model, each.reads) for name, each in built().items()} == {
        "caption": ("caption", "image"),
        "clip_image": ("clip", "image"),
        "clip_text": ("clip", "text"),
        "perplexity": ("language", "text"),
    }
    assert built(clip={"id": "some/folder"})["clip_text"].files.id == "some/folder"


def test_extractors_are_made_without_a_look_at_the_disk_or_a_heavy_import():
    script = """
import sys
from smp_features.config import load_config
from smp_features.extractors import build_extractors
overrides = [f"models.{name}.id=/nowhere/at/all" for name in ("caption", "clip", "language")]
built = build_extractors(load_config(None, [*overrides, "models.more.kind=clip", "models.more.id=ViT-L-14"]).models)
print(*built, *({"torch", "open_clip", "transformers", "pyspark"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["caption", "clip_image", "clip_text", "perplexity", "more_image", "more_text"]


def test_a_second_clip_model_brings_its_vectors_and_its_similarity_as_a_group_of_its_own():
    more = [each for each in built(siglip={"kind": "clip", "id": "zoo:clip"}).values() if each.model == "siglip"]
    assert [(each.name, each.table, each.reads_made_texts) for each in more] == [
        ("siglip_image", "image_embeddings", False),
        ("siglip_text", "text_embeddings", True),
    ]
    features = [feature for each in more for feature in each.features]
    assert [(feature.name, feature.group, feature.kind, feature.made) for feature in features] == [
        ("siglip_image_embedding", "siglip", "vector", Lookup("siglip_image", "image", "embedding")),
        ("siglip_title_embedding", "siglip", "vector", Lookup("siglip_text", "title", "embedding")),
        (
            "siglip_image_title_similarity",
            "siglip",
            "number",
            Cosine("siglip_image_embedding", "siglip_title_embedding"),
        ),
    ]


def test_a_second_captioner_comes_before_those_who_read_its_texts():
    assert list(built(blip2={"kind": "caption", "id": "a/b"})) == [
        "caption",
        "blip2",
        "clip_image",
        "clip_text",
        "perplexity",
    ]


def test_what_a_kind_does_not_say_is_the_default(installed):
    hues = built(colours={"kind": "hues", "bins": 4})["colours"]
    assert (hues.stage, hues.key, hues.contents, hues.max_cost) == ("extract/colours", "image_key", "images", 32.0)
    assert hues.identity() == {"extractor": "hues", "version": 3, "bins": 4}
    assert hues.description() == hues.identity()
    assert [(each.name, each.group, each.kind, each.picture, each.made) for each in hues.features] == [
        ("colours_mean", "colours", "number", True, Lookup("colours", "image", "mean")),
        ("colours_counts", "colours", "vector", True, Lookup("colours", "image", "counts")),
    ]
    assert hues.fingerprint == built(shades={"kind": "hues", "bins": 4})["shades"].fingerprint
    assert hues.fingerprint != built(shades={"kind": "hues", "bins": 5})["shades"].fingerprint
    with pytest.raises(ModelError, match="there is none"):
        hues.check()  # it is loaded, since nothing else is known of it
    with pytest.raises(ConfigError, match=r"Unknown configuration key 'models.colours.bin'. Did you mean 'bins'"):
        built(colours={"kind": "hues", "bin": 4})


@dataclass(frozen=True)
class OtherHues(Hues):
    kind: ClassVar[str] = "other_hues"
    outputs = (OutputColumn("mean", pa.float32(), "degrees"),)


@dataclass(frozen=True)
class Translation(Hues):
    kind: ClassVar[str] = "translation"
    reads: ClassVar[Literal["image", "text"]] = "text"
    table: ClassVar[str] = "translations"
    makes_text: ClassVar[str | None] = "name"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"clip_image": {"kind": "caption", "id": "a"}}, "an extractor 'clip_image', and so does models.clip"),
        ({"language": {"kind": "clip", "id": "a"}}, "kind 'clip', which makes no 'log_perplexity' of texts"),
        ({"caption": {"kind": "hues"}}, "kind 'hues', which makes no 'caption' of images as the role needs"),
        ({"a": {"kind": "hues"}, "b": {"kind": "other_hues"}}, "share the table hues and do not make the same columns"),
        ({"a": {"kind": "translation"}}, "only texts of pictures"),
    ],
)
def test_what_does_not_fit_together_is_refused(installed, models, said):
    with pytest.raises(ConfigError, match=said):
        built(**models)


def test_the_name_of_a_model_stands_for_all_its_extractors():
    extractors = built(siglip={"kind": "clip", "id": "zoo:clip"})
    assert [each.name for each in chosen(extractors)] == list(extractors)
    assert [each.name for each in chosen(extractors, ["perplexity", "clip"])] == [
        "clip_image",
        "clip_text",
        "perplexity",
    ]
    assert [each.name for each in chosen(extractors, ["siglip_text"])] == ["siglip_text"]
    assert [each.name for each in chosen(extractors, ["language"])] == ["perplexity"]
    with pytest.raises(UsageError, match=r"no extractor 'siglp'\. Did you mean 'siglip'"):
        chosen(extractors, ["siglp"])


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("caption", 1, "1 caption"),
        ("caption", 2000, "2,000 captions"),
        ("clip_image", 0, "0 image embeddings"),
        ("clip_text", 1, "1 text embedding"),
        ("perplexity", 12, "12 perplexities"),
    ],
)
def test_rows_are_counted_in_words(name, rows, said):
    assert built()[name].counted(rows) == said
