"""Captions of all three families equal what transformers' own API generates for each picture alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from smp_features.errors import ModelError
from smp_features.extractors.caption import CaptionExtractor
from smp_features.extractors.model_files import find_model
from smp_features.refusals import InputRefused

PROMPT = "describe the photo"


def extractor(folder: Path, **settings: object) -> CaptionExtractor:
    return CaptionExtractor(find_model("models.caption.id", str(folder), None), **{"max_new_tokens": 8, **settings})


def captions(folder: Path, pictures: list[bytes], **settings: object) -> list[str]:
    loaded = extractor(folder, **settings).load("cpu", threads=1)
    return loaded.run([loaded.prepare(data)[0] for data in pictures])["caption"]


def by_transformers_alone(folder: Path, pictures: list[bytes], prompt: str | None, **generation: object) -> list[str]:
    """The library's own call for each picture, special tokens removed."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoProcessor

    model_class = getattr(transformers, AutoConfig.from_pretrained(folder).architectures[0])
    model, processor = model_class.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    found = []
    for data in pictures:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, **generation)
        found.append(processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
    return found


def test_blip_captions_equal_the_librarys(blip_folder: Path, pictures: list[bytes]) -> None:
    found = captions(blip_folder, pictures)
    assert found == by_transformers_alone(blip_folder, pictures, None)
    assert len(set(found)) > 1


def test_blip_continues_its_prompt_and_keeps_it_in_the_caption(blip_folder: Path, pictures: list[bytes]) -> None:
    found = captions(blip_folder, pictures, prompt="a photo of")
    assert found == by_transformers_alone(blip_folder, pictures, "a photo of")
    assert all(caption.startswith("a photo of") for caption in found)
    assert found != captions(blip_folder, pictures)


def test_beams_are_used_when_configured(blip_folder: Path, pictures: list[bytes]) -> None:
    assert captions(blip_folder, pictures, num_beams=3) == by_transformers_alone(
        blip_folder, pictures, None, num_beams=3
    )


def test_blip2_captions_equal_the_librarys(blip2_folder: Path, pictures: list[bytes]) -> None:
    found = captions(blip2_folder, pictures)
    assert found == by_transformers_alone(blip2_folder, pictures, None)
    assert len(set(found)) > 1


def test_blip2_answers_its_prompt_without_repeating_it(blip2_folder: Path, pictures: list[bytes]) -> None:
    found = captions(blip2_folder, pictures, prompt=PROMPT)
    whole = by_transformers_alone(blip2_folder, pictures, PROMPT)
    assert all(caption.startswith(PROMPT) for caption in whole)
    assert found == [caption.removeprefix(PROMPT).strip() for caption in whole]


def test_instructblip_captions_equal_the_librarys(instructblip_folder: Path, pictures: list[bytes]) -> None:
    found = captions(instructblip_folder, pictures, prompt=PROMPT)
    whole = by_transformers_alone(instructblip_folder, pictures, PROMPT)
    assert found == [caption.removeprefix(PROMPT).strip() for caption in whole]


def test_instructblip_without_an_instruction_is_refused(instructblip_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"models\.caption\.prompt"):
        extractor(instructblip_folder).check()


@pytest.mark.parametrize("family", ["blip_folder", "blip2_folder"])
def test_a_batch_equals_one_by_one(family: str, request: pytest.FixtureRequest, pictures: list[bytes]) -> None:
    folder = request.getfixturevalue(family)
    loaded = extractor(folder).load("cpu")
    items = [loaded.prepare(data)[0] for data in pictures]
    assert loaded.run(items)["caption"] == [loaded.run([item])["caption"][0] for item in items]


def test_blip_in_bfloat16_decodes_in_float32(blip_folder: Path, pictures: list[bytes]) -> None:
    import torch

    loaded = extractor(blip_folder, dtype="bfloat16").load("cpu")
    assert {weight.dtype for weight in loaded._model.text_decoder.parameters()} == {torch.float32}
    assert {weight.dtype for weight in loaded._model.vision_model.parameters()} == {torch.bfloat16}
    assert len(loaded.run([loaded.prepare(data)[0] for data in pictures])["caption"]) == len(pictures)


@pytest.mark.parametrize(("data", "status"), [(b"", "empty"), (b"<html>", "not_an_image")])
def test_an_unusable_picture_is_refused_with_its_status(blip_folder: Path, data: bytes, status: str) -> None:
    with pytest.raises(InputRefused) as refused:
        extractor(blip_folder).load("cpu").prepare(data)
    assert refused.value.status == status


def test_the_size_of_a_picture_does_not_change_its_cost(blip_folder: Path, pictures: list[bytes]) -> None:
    loaded = extractor(blip_folder).load("cpu")
    assert {loaded.prepare(data)[1] for data in pictures} == {1.0}


def test_loading_and_running_say_nothing_on_the_terminal(
    blip_folder: Path, pictures: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    captions(blip_folder, pictures[:1])
    assert capfd.readouterr() == ("", "")
