"""CLIP image and text vectors, through open_clip: built-in names with a tag, hub repositories, local folders."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from smp_features.catalogue import Cosine, Feature, Lookup
from smp_features.config import Dtype, ModelSettings
from smp_features.errors import ModelError
from smp_features.extractors.base import MADE, TITLE, Columns, Extractor, OutputColumn, open_device, quiet_libraries
from smp_features.extractors.clip_names import built_in_config, find_clip
from smp_features.extractors.clip_text import TextTower
from smp_features.extractors.inference import for_inference
from smp_features.extractors.model_digests import digest_file
from smp_features.extractors.model_files import ModelFiles
from smp_features.extractors.model_places import NOWHERE, ModelPlaces
from smp_features.extractors.text import (
    CHARACTERS_PER_TOKEN,
    bound_text,
    empty,
    recognised,
    set_apart,
    special_tokens,
)
from smp_features.images import DECODING, decode_rgb

CONFIG_NAME = "open_clip_config.json"
PREFERRED_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
TYPICAL_TOKENS = 24
"""Length of a title; `max_batch` texts of this length fill a micro-batch, longer ones fill it sooner."""

TOKENIZER_SETTINGS = frozenset({"clean", "language", "strip_sep_token"})
"""The `tokenizer_kwargs` that only change how text is read; open_clip hands the others on to transformers."""

_PREPROCESSING: dict[str, Any] = {
    "size": 224,
    "mode": "RGB",
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""open_clip's preprocessing where a model says nothing, held here since a fingerprint must not take its import: 5 s."""

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


ROLE = "clip"
"""The model whose similarities are the paper's measure; further ones add columns of their own."""

CAPTION = "caption"
"""The extractor whose captions the paper compares with titles."""

_COSINE = "cosine of CLIP embeddings, -1..1; null when either is missing"
_TITLE_VECTOR = "CLIP text embedding of the title, L2-normalised; null if empty"
_CAPTION_VECTOR = "CLIP text embedding of the caption, L2-normalised; or null"


def preprocessing(size: int, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return open_clip's preprocessing settings in full, as it merges them itself.

    Args:
        size: Of the model's images, in pixels.
        stated: What the model says.
    """
    known = {name: value for name, value in stated.items() if name in _PREPROCESSING and value is not None}
    return _PREPROCESSING | {"size": size} | known


class ClipSettings(ModelSettings):
    """An image and text encoder, by open_clip.

    Attributes:
        id: An open_clip model name, `hf-hub:…`, a local folder, or `zoo:clip`.
        pretrained: The open_clip tag of the weights when `id` is a model name.
        revision: The pinned commit of a hub model.
        dtype: Of the weights while computing.
        max_batch: Largest micro-batch, in images or texts.
    """

    id: str
    pretrained: str | None = None
    revision: str | None = None
    dtype: Dtype = "float32"
    max_batch: int = Field(default=64, ge=1, le=10**6)


class Clip:
    """The kind `clip`: one model, two extractors, of images and of texts, called `<model>_image` and `<model>_text`."""

    Settings = ClipSettings

    @classmethod
    def build(cls, model: str, settings: ClipSettings) -> tuple[Extractor, ...]:
        """Return both extractors of an entry of the section `models`; see `Extractor.build`."""
        files = ModelFiles.named(model, settings)
        return tuple(
            tower(files, dtype=settings.dtype, max_batch=settings.max_batch, model=model)
            for tower in (ClipImageExtractor, ClipTextExtractor)
        )


@dataclass(frozen=True)
class _ClipExtractor(Extractor):
    """What both towers share.

    Attributes:
        files: The model; for a built-in architecture, the hub repository of its tag.
        architecture: A built-in open_clip name; null when the files bring their own configuration, and until the model
            is pinned.
        dtype: Of the weights; vectors are float32.
        max_batch: Images, or texts of typical length, per micro-batch.
    """

    files: ModelFiles
    architecture: str | None = None
    dtype: str = "float32"
    max_batch: int = 64
    model: str = field(default=ROLE, kw_only=True)

    @property
    def name(self) -> str:
        """The model's name and what of it: `clip_image`, `clip_text`."""
        return f"{self.model}_{self.reads}"

    def pinned(self, places: ModelPlaces = NOWHERE) -> Self:
        """See `Extractor.pinned`; open_clip's names are looked up here."""
        files, architecture = self.files, self.architecture
        if not files.is_pinned:
            files, architecture = find_clip(files.setting, files.id, files.tag, files.revision)
        return replace(self, files=files.pinned(places), architecture=architecture)

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        """One column, `embedding`: float32, L2-normalised."""
        return (OutputColumn("embedding", pa.list_(pa.float32()), "(d,) float32, L2-normalised; null unless ok"),)

    def identity(self) -> dict[str, Any]:
        """See `Extractor.identity`; the activation is in it, since weights run under either."""
        config, preprocess = self._configuration()
        identity = {
            "extractor": self.kind,
            "version": self.version,
            **self.files.identity(),
            "dtype": self.dtype,
            "activation": "quick_gelu" if config.get("quick_gelu", False) else "gelu",
            "normalised": "l2",
            **self._describe_tower(config, preprocess),
        }
        if self.architecture is not None:
            identity.update(architecture=self.architecture, weights=digest_file(self._weights()))
        return identity

    def check(self) -> None:
        """See `Extractor.check`; loads the tokenizer, which is small, and compares the weights with the model."""
        pinned = self.pinned()
        pinned._configuration()
        pinned._weights()
        pinned.files.verify()
        with quiet_libraries():
            pinned._load_tokenizer()
            pinned._build_model("meta")  # has shapes and no values

    @abstractmethod
    def _describe_tower(self, config: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, Any]: ...

    def _configuration(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return open_clip's model configuration and the full preprocessing settings.

        Raises:
            ModelError: It is none, or it would have open_clip take parts or code from elsewhere.
        """
        if self.architecture is not None:
            from open_clip.pretrained import get_pretrained_cfg

            config = built_in_config(self.architecture)
            self._refuse_other_sources(config)
            tag = get_pretrained_cfg(self.architecture, self.files.tag or "")
            return config, preprocessing(config["vision_cfg"]["image_size"], tag)
        content = self.files.require_json(CONFIG_NAME)
        config = content.get("model_cfg") or {}
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) is not an open_clip model: {CONFIG_NAME} lacks model_cfg "
                "with embed_dim, vision_cfg and text_cfg."
            )
        self._refuse_other_sources(config)
        size = config["vision_cfg"].get("image_size", 224)
        return config, preprocessing(size, content.get("preprocess_cfg") or {})

    def _refuse_other_sources(self, config: dict[str, Any]) -> None:
        """Check that the model's own files hold all of it: open_clip would fetch the rest at no commit."""
        text, timm = config["text_cfg"], str(config["vision_cfg"].get("timm_model_name"))
        # The tokenizer of a folder is read from that folder, whatever its name says.
        tokenizer = text.get("hf_tokenizer_name") if self.architecture is not None else None
        source = text.get("hf_model_name") or tokenizer or (timm if ":" in timm else None)
        if source:
            raise ModelError(
                f"'{self.architecture or self.files.id}' ({self.files.setting}) takes a part from '{source}', which "
                "no commit pins.",
                "Give a model whose own files hold its towers and tokenizer: hf-hub:organisation/name at a commit, or "
                "a folder.",
            )
        unknown = sorted(set(text.get("tokenizer_kwargs") or ()) - TOKENIZER_SETTINGS)
        if unknown:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) sets tokenizer_kwargs.{unknown[0]}, which could have code "
                "run or files fetched.",
                f"Allowed are {', '.join(sorted(TOKENIZER_SETTINGS))}; remove it from a copy of the model.",
            )

    def _weights(self) -> Path:
        found = {path.name: path for path in self.files.weight_files()}
        for name in PREFERRED_WEIGHTS:
            if name in found:
                return found[name]
        if len(found) > 1:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) has several weights: {', '.join(found)}.",
                f"Name the one to use {PREFERRED_WEIGHTS[0]}.",
            )
        return next(iter(found.values()))

    def _load_model(self, device: str, threads: int | None) -> tuple[Any, Any]:
        """Return the model in evaluation mode and its device."""
        target = open_device(device, threads)
        self.files.verify()
        with quiet_libraries():
            model = self._build_model("cpu")
        return for_inference(model, target), target

    def _build_model(self, device: Literal["cpu", "meta"]) -> Any:
        """Return the model with its weights, whose names and shapes must all fit; on `meta`, without their values."""
        import open_clip
        import torch

        _, preprocess = self._configuration()
        weights = self._weights()
        try:
            with torch.device("meta") if device == "meta" else contextlib.nullcontext():
                # The weights are chosen here, never by open_clip, which falls back on pickled or random ones.
                model = open_clip.create_model(
                    self.architecture or f"local-dir:{self.files.locate()}",
                    load_weights=False,
                    pretrained_text=False,
                    precision=PRECISIONS[self.dtype],
                    device=device,
                    force_preprocess_cfg=preprocess,
                )
            open_clip.load_checkpoint(model, str(weights), strict=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AssertionError) as failure:
            if "memory" in str(failure).lower():
                raise  # the machine's failure, which another try may survive
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) could not be loaded by open_clip "
                f"({type(failure).__name__}).",
                "Its configuration and weights must belong together; fetch the model again.",
            ) from failure
        return model

    def _load_tokenizer(self) -> Any:
        import open_clip

        config, _ = self._configuration()
        name = self.architecture or f"local-dir:{self.files.locate(weights=False)}"
        if self.architecture is None and config["text_cfg"].get("hf_tokenizer_name"):
            self.files.require_tokenizer()  # else the vocabulary is open_clip's own
        try:
            return _reading_markup_as_text(open_clip.get_tokenizer(name))
        except (OSError, ValueError, KeyError, TypeError) as failure:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) has no usable tokenizer ({type(failure).__name__}).",
                "Its folder must also hold the tokenizer's files, such as tokenizer.json.",
            ) from failure


@dataclass(frozen=True)
class ClipImageExtractor(_ClipExtractor):
    """Image bytes to the CLIP image vector."""

    kind: ClassVar[str] = "clip_image"
    reads: ClassVar[Literal["image", "text"]] = "image"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "image_embeddings"
    noun: ClassVar[str] = "image embedding"
    table_comment: ClassVar[str] = "one CLIP image embedding per content and extractor"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The image vector: of the role a group of its own, of a further model in the group that has its name."""
        name, group = ("image_embedding", "image") if self.model == ROLE else (f"{self.name}_embedding", self.model)
        comment = "CLIP image embedding, L2-normalised; null without a picture"
        return (Feature(name, group, "vector", comment, picture=True, made=Lookup(self.name, "image", "embedding")),)

    @property
    def max_cost(self) -> float:
        """Pictures; once prepared, all have the model's one size."""
        return float(self.max_batch)

    def load(self, device: str, threads: int | None = None) -> LoadedClipImage:
        """See `Extractor.load`; the text tower is dropped again."""
        model, target = self.pinned()._load_model(device, threads)
        return LoadedClipImage(model.visual, target, self.dtype)

    def _describe_tower(self, config: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, Any]:
        return {"preprocess": preprocess, "decoding": dict(DECODING)}


@dataclass(frozen=True)
class ClipTextExtractor(_ClipExtractor):
    """Text to the CLIP text vector; texts beyond the model's context are cut, as open_clip's tokenizers do."""

    kind: ClassVar[str] = "clip_text"
    reads: ClassVar[Literal["image", "text"]] = "text"
    version: ClassVar[int] = 2
    table: ClassVar[str] = "text_embeddings"
    noun: ClassVar[str] = "text embedding"
    table_comment: ClassVar[str] = "one CLIP text embedding per content and extractor"
    texts: ClassVar[tuple[str, ...]] = (TITLE, MADE)

    @property
    def features(self) -> tuple[Feature, ...]:
        """Vectors of title and caption, and the similarities of picture, caption and title (figure 3).

        A further model adds the title's vector and its similarity with the picture, in the group that has its name.
        """
        title = Lookup(self.name, TITLE, "embedding")
        if self.model != ROLE:
            image, text = f"{self.model}_image_embedding", f"{self.model}_title_embedding"
            similarity, comment = f"{self.model}_image_title_similarity", f"image against title: {_COSINE}"
            return (
                Feature(text, self.model, "vector", _TITLE_VECTOR, made=title),
                Feature(similarity, self.model, "number", comment, picture=True, made=Cosine(image, text)),
            )
        caption = Lookup(self.name, CAPTION, "embedding")
        pairs = {
            ("caption", "title"): f"caption against title: {_COSINE} (the paper's inconsistency measure, figure 3)",
            ("image", "title"): f"image against title: {_COSINE}",
            ("image", "caption"): f"image against caption: {_COSINE}",
        }
        similarities = (
            Feature(
                f"{left}_{right}_similarity",
                "similarity",
                "number",
                comment,
                picture=True,
                made=Cosine(f"{left}_embedding", f"{right}_embedding"),
            )
            for (left, right), comment in pairs.items()
        )
        return (
            Feature("caption_embedding", "caption", "vector", _CAPTION_VECTOR, picture=True, made=caption),
            Feature("title_embedding", "text", "vector", _TITLE_VECTOR, made=title),
            *similarities,
        )

    @property
    def max_cost(self) -> float:
        """Padded tokens, start and end included."""
        return float(self.max_batch * TYPICAL_TOKENS)

    def load(self, device: str, threads: int | None = None) -> LoadedClipText:
        """See `Extractor.load`; the image tower is dropped again."""
        model, target = self.pinned()._load_model(device, threads)
        model.visual = None
        with quiet_libraries():
            tokenizer = self.pinned()._load_tokenizer()
        return LoadedClipText(TextTower(model), tokenizer, target)

    def _describe_tower(self, config: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, Any]:
        text = config["text_cfg"]
        return {
            "context_length": text.get("context_length", 77),
            "tokenizer": text.get("hf_tokenizer_name") or "open_clip",
            "characters_per_token": CHARACTERS_PER_TOKEN,
        }


class LoadedClipImage:
    """The image tower on its device; see `LoadedModel`."""

    def __init__(self, tower: Any, device: Any, dtype: str) -> None:
        from open_clip.model import get_input_dtype
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self._tower = tower
        self._device = device
        self._dtype = get_input_dtype(PRECISIONS[dtype])
        self._transform = image_transform_v2(PreprocessCfg(**tower.preprocess_cfg), is_train=False)

    def prepare(self, raw: bytes | str) -> tuple[np.ndarray, float]:
        """Decode a picture to the model's pixels, float32 of shape (3, height, width), at the cost of one picture.

        Raises:
            InputRefused: As `images.decode_rgb`.
        """
        if isinstance(raw, str):
            raise TypeError("The image tower reads image bytes.")
        return self._transform(decode_rgb(raw)).numpy(), 1.0

    def run(self, items: Sequence[np.ndarray]) -> Columns:
        """Embed a micro-batch: `embedding`, float32 of shape (n, dimensions), rows of length one."""
        import torch

        pixels = torch.from_numpy(np.stack(items)).to(self._device).to(self._dtype)  # narrowed on the device
        with torch.inference_mode():
            return {"embedding": _unit_rows(self._tower(pixels))}


class LoadedClipText:
    """The text tower on its device; see `LoadedModel`."""

    def __init__(self, tower: TextTower, tokenizer: Any, device: Any) -> None:
        self._tower = tower
        self._tokenizer = tokenizer
        self._device = device
        # A fast tokenizer keeps padding and truncation settings in itself, which calls change: one thread at a time.
        self._tokenising = threading.Lock()
        self._blank = tokenizer([""])[0].numpy()

    def prepare(self, raw: bytes | str) -> tuple[np.ndarray, float]:
        """Tokenise a text to int64 ids, as many as decide its vector, at the cost of that many tokens.

        Raises:
            InputRefused: `empty`, nothing but white space and what the tokenizer cleans away.
        """
        if not isinstance(raw, str):
            raise TypeError("The text tower reads text.")
        # White space runs are one space to every CLIP tokenizer; without this they would use up the character limit.
        text, _ = bound_text(" ".join(raw.split()), self._tower.context_length)
        with self._tokenising:
            tokens = self._tokenizer([text])[0].numpy()
        if np.array_equal(tokens, self._blank):
            raise empty()
        tokens = tokens[: self._tower.needed_length(tokens)]
        return tokens, float(len(tokens))

    def run(self, items: Sequence[np.ndarray]) -> Columns:
        """Embed a micro-batch: `embedding`, float32 of shape (n, dimensions), rows of length one."""
        import torch

        with torch.inference_mode():
            return {"embedding": _unit_rows(self._tower.encode(items, self._device))}


def _reading_markup_as_text(tokenizer: Any) -> Any:
    """Change a tokenizer of open_clip so that special tokens spelt out in a text are text; return it."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        markup = {tokenizer.decoder[number]: number for number in tokenizer.all_special_ids}
        known = recognised(markup.items(), tokenizer.encode)
    else:
        inner.split_special_tokens = True
        known = recognised(
            special_tokens(inner).items(),
            lambda text: inner(text, add_special_tokens=False, verbose=False)["input_ids"],
        )
    if known:
        clean = tokenizer.clean_fn
        # Behind the cleaning, which makes "<end>" of "&lt;end&gt;".
        tokenizer.clean_fn = lambda text: set_apart(clean(text), known)
    return tokenizer


def _unit_rows(vectors: Any) -> np.ndarray:
    from torch.nn import functional

    return np.ascontiguousarray(functional.normalize(vectors.float(), dim=-1).cpu().numpy())
