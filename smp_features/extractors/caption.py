"""Captions by an image-to-text model of the BLIP, BLIP-2 or InstructBLIP family, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from smp_features.config import Dtype, ModelSettings
from smp_features.errors import ModelError
from smp_features.extractors.base import Columns, Extractor, OutputColumn, open_device, quiet_libraries
from smp_features.extractors.inference import for_inference
from smp_features.extractors.model_digests import QFORMER_TOKENIZER
from smp_features.extractors.model_files import ModelFiles
from smp_features.extractors.transformers_models import check_weights, load_weights, read_config, torch_dtype
from smp_features.images import DECODING, decode_rgb

FAMILIES = {
    "blip": "BlipForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "instructblip": "InstructBlipForConditionalGeneration",
}
"""The transformers class for each `model_type` that can caption."""

_KEPT = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("min_length", "min_new_tokens", "repetition_penalty", "no_repeat_ngram_size"),
)
_KEPT_FOR_BEAMS = ("length_penalty", "early_stopping")
"""Settings of a model's files by which the best caption is told from others."""

# Resizing by torchvision and by Pillow differs in the last bits, so which of the two is named, not left to chance.
IMAGE_BACKEND = "torchvision"


class CaptionSettings(ModelSettings):
    """The captioner: any image-to-text model of the BLIP, BLIP-2 or InstructBLIP family, by transformers.

    Attributes:
        id: A hub name, a local folder, or `zoo:caption` for the bundled demo model.
        revision: The pinned commit of a hub model; a local folder is pinned by the digest of its weights.
        prompt: Text that the caption continues or answers; null for none.
        dtype: Of the weights while computing.
        max_new_tokens: Longest caption, in tokens.
        num_beams: 1 is greedy decoding.
        max_batch: Largest micro-batch, in images.
    """

    id: str
    revision: str | None = None
    prompt: str | None = None
    dtype: Dtype = "float32"
    max_new_tokens: int = Field(default=30, ge=1, le=10_000)
    num_beams: int = Field(default=1, ge=1, le=1_000)
    max_batch: int = Field(default=32, ge=1, le=10**6)


@dataclass(frozen=True)
class CaptionExtractor(Extractor):
    """Image bytes to one caption; an empty string is a caption that came out empty.

    Attributes:
        files: The model.
        prompt: Text that BLIP's caption begins with, or that BLIP-2 and InstructBLIP answer; null for none.
        dtype: Of the weights; BLIP's text decoder stays in float32, where it is faster as well as finer.
        max_new_tokens: Longest caption, prompt aside.
        num_beams: 1 is greedy; sampling is never done.
        max_batch: Images per micro-batch.
    """

    files: ModelFiles
    prompt: str | None = None
    dtype: str = "float32"
    max_new_tokens: int = 30
    num_beams: int = 1
    max_batch: int = 32
    model: str = field(default="caption", kw_only=True)

    kind: ClassVar[str] = "caption"
    reads: ClassVar[Literal["image", "text"]] = "image"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "captions"
    noun: ClassVar[str] = "caption"
    table_comment: ClassVar[str] = "one caption per image and captioner"
    makes_text: ClassVar[str | None] = "caption"
    Settings: ClassVar[type[ModelSettings]] = CaptionSettings

    @classmethod
    def build(cls, model: str, settings: ModelSettings) -> tuple[Extractor, ...]:
        """See `Extractor.build`."""
        given = settings.model_dump(exclude={"kind", "id", "revision"})
        return (cls(ModelFiles.named(model, settings), model=model, **given),)

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        """One string column, `caption`."""
        return (OutputColumn("caption", pa.string(), "the caption; null unless ok"),)

    @property
    def max_cost(self) -> float:
        """Pictures; once prepared, all have the model's one size."""
        return float(self.max_batch)

    def identity(self) -> dict[str, Any]:
        """See `Extractor.identity`; includes the image processor's settings as the model's files give them."""
        processor = self.files.read_json("preprocessor_config.json")
        if processor is None:
            processor = (self.files.read_json("processor_config.json") or {}).get("image_processor")
        return {
            "extractor": self.kind,
            "version": self.version,
            **self.files.identity(),
            "family": read_config(self.files).get("model_type"),
            "dtype": self.dtype,
            "prompt": self.prompt,
            "generation": {
                "max_new_tokens": self.max_new_tokens,
                "num_beams": self.num_beams,
                "do_sample": False,
            },
            "image_processor": processor,
            "image_backend": IMAGE_BACKEND,
            "decoding": dict(DECODING),
        }

    def check(self) -> None:
        """See `Extractor.check`; loads the processor, which is small, and compares the weights with the model."""
        family = self._family()
        self.files.weight_files()
        self.files.verify()
        with quiet_libraries():
            _load_processor(self.files, family)
            check_weights(self.files, FAMILIES[family])

    def load(self, device: str, threads: int | None = None) -> LoadedCaptioner:
        """See `Extractor.load`."""
        import torch

        family = self._family()
        target = open_device(device, threads)
        self.files.verify()
        with quiet_libraries():
            processor = _load_processor(self.files, family)
            model = load_weights(self.files, FAMILIES[family], self.dtype)
            if family == "blip":
                _keep_decoder_in_float32(model)
            model = for_inference(model, target)
            prompt = _prompt_inputs(family, processor, model.config, self.prompt, self.files)
        _keep_what_decides_a_caption(model, self.num_beams)
        inputs = {name: torch.as_tensor(value).to(target) for name, value in prompt.items()}
        return LoadedCaptioner(model, processor, inputs, family, self)

    def _family(self) -> str:
        family = read_config(self.files).get("model_type")
        if family not in FAMILIES:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) is a model of type '{family}', which does not caption.",
                f"Captioners are of type {', '.join(FAMILIES)}.",
            )
        if family == "instructblip" and not self.prompt:
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) follows instructions and was given none.",
                f"Set {self.files.section}.prompt, for example 'Write a short description of the image.'",
            )
        if family == "blip":
            self._check_end_token()
        return str(family)

    def _check_end_token(self) -> None:
        """Refuse several end tokens, of which BLIP's own code takes one."""
        end = (read_config(self.files).get("text_config") or {}).get("eos_token_id")
        if end is not None and not isinstance(end, int):
            raise ModelError(
                f"'{self.files.id}' ({self.files.setting}) has text_config.eos_token_id {end} in config.json, and a "
                "captioner of type blip has one end token.",
                "Set the number of the token that ends a caption in a copy of the model.",
            )


class LoadedCaptioner:
    """A captioner on its device; see `LoadedModel`."""

    def __init__(
        self, model: Any, processor: Any, prompt: dict[str, Any], family: str, extractor: CaptionExtractor
    ) -> None:
        self._model = model
        self._processor = processor
        self._prompt = prompt
        self._generation = {
            "max_new_tokens": extractor.max_new_tokens,
            "num_beams": extractor.num_beams,
            "do_sample": False,
        }
        self._dtype = torch_dtype(extractor.dtype)
        # BLIP's prompt is the beginning of the caption. The others answer it, and a decoder repeats it first.
        self._echo = 0
        if family != "blip" and not model.config.get_text_config().is_encoder_decoder:
            self._echo = prompt["input_ids"].shape[1]

    def prepare(self, raw: bytes | str) -> tuple[np.ndarray, float]:
        """Decode a picture to the model's pixels, float32 of shape (3, height, width), at the cost of one picture.

        Raises:
            InputRefused: As `images.decode_rgb`.
        """
        if isinstance(raw, str):
            raise TypeError("The captioner reads image bytes.")
        picture = decode_rgb(raw)
        pixels = self._processor.image_processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels.numpy(), 1.0

    def run(self, items: Sequence[np.ndarray]) -> Columns:
        """Caption a micro-batch: `caption`, n strings without special tokens or outer white space."""
        import torch

        device = self._model.device
        pixels = torch.from_numpy(np.stack(items)).to(device).to(self._dtype)  # narrowed on the device
        prompt = {name: value.repeat(len(items), 1) for name, value in self._prompt.items()}
        with torch.inference_mode():
            tokens = self._model.generate(pixel_values=pixels, **prompt, **self._generation)
        texts = self._processor.tokenizer.batch_decode(tokens[:, self._echo :], skip_special_tokens=True)
        return {"caption": [text.strip() for text in texts]}


def _load_processor(files: ModelFiles, family: str) -> Any:
    from transformers import AutoProcessor

    folder = files.require_tokenizer()
    if family == "instructblip":
        files.require_tokenizer(QFORMER_TOKENIZER)  # else the language model's tokens would be given to the Q-Former
    try:
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend=IMAGE_BACKEND
        )
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise ModelError(
            f"'{files.id}' ({files.setting}) has no usable image processor and tokenizer ({type(failure).__name__}).",
            "Its folder must also hold preprocessor_config.json (or processor_config.json) and the tokenizer's files.",
        ) from failure
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(f"'{files.id}' ({files.setting}) has no image processor beside its tokenizer.")
    return processor


def _keep_decoder_in_float32(model: Any) -> None:
    """Run BLIP's decoder in float32 on whatever dtype the vision tower computes in; a no-op for float32 models."""
    import torch

    model.text_decoder.to(torch.float32)

    def widen(module: Any, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.float()
        return output

    model.vision_model.register_forward_hook(widen)


def _prompt_inputs(family: str, processor: Any, config: Any, prompt: str | None, files: ModelFiles) -> dict[str, Any]:
    """Return the token inputs, shape (1, length), that are the same for every picture; none for BLIP unprompted.

    BLIP must get no `input_ids` at all then: it strips the last token, and of a lone BOS nothing would be left.
    """
    import torch
    from PIL import Image

    if family == "blip":
        return dict(processor.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)) if prompt else {}
    if not prompt:
        tokens = [config.image_token_id] * config.num_query_tokens + [config.get_text_config().bos_token_id]
        return {"input_ids": torch.tensor([tokens])}
    if processor.num_query_tokens is None:
        processor.num_query_tokens = config.num_query_tokens  # repositories older than this setting
    inputs = dict(processor(images=Image.new("RGB", (32, 32)), text=prompt, return_tensors="pt"))
    del inputs["pixel_values"]
    places = int((inputs["input_ids"] == config.image_token_id).sum())
    if places != config.num_query_tokens:
        raise ModelError(
            f"The processor of '{files.id}' ({files.setting}) leaves {places} places for {config.num_query_tokens} "
            "image tokens, so the model would not see the picture.",
            "Take a newer revision of the model, whose processor and configuration agree on the image token.",
        )
    return inputs


def _keep_what_decides_a_caption(model: Any, num_beams: int) -> None:
    """Leave of a model's own generation settings those that say which caption is best, its tokens and its lengths.

    What else its files ask for would sample, stop by the clock, return several captions for a picture or something else
    than captions, look for a second model or for code on the hub.
    """
    from transformers import GenerationConfig

    names = _KEPT if num_beams == 1 else (*_KEPT, *_KEPT_FOR_BEAMS)
    for part in (model, getattr(model, "text_decoder", None), getattr(model, "language_model", None)):
        found = getattr(part, "generation_config", None)
        if part is not None and found is not None:
            kept = {name: value for name in names if (value := getattr(found, name, None)) is not None}
            part.generation_config = GenerationConfig(**kept)
