"""Captions of all three families equal what transformers' own API generates for each picture alone."""

from __future__ import annotations

import io
import json
import shutil
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


ASKED_FOR = {
    "several captions": {"num_return_sequences": 3, "num_beams": 3},
    "an object": {"return_dict_in_generate": True, "output_scores": True},
    "the clock": {"max_time": 1e-6},
    "a shorter caption": {"max_length": 3},
    "sampling": {"do_sample": True, "temperature": 5.0, "top_p": 0.9},
    "code of the hub": {"penalty_alpha": 0.6, "top_k": 4},
    "one picture at a time": {"prompt_lookup_num_tokens": 3},
    "a tokenizer": {"stop_strings": ["dog"]},
    "a negative prompt": {"guidance_scale": 1.5},
    "its own number of beams": {"num_beams": 5, "length_penalty": 2.0, "early_stopping": True},
}


@pytest.mark.parametrize(
    ("where", "what", "beams"),
    [
        *((where, what, 1) for where in ("blip's decoder", "blip2's file") for what in ASKED_FOR),
        *(("blip's decoder", what, 3) for what in ("several captions", "the clock", "its own number of beams")),
        ("blip's file", "an object", 1),
    ],
)
def test_what_a_models_files_ask_of_generation_leaves_one_caption_for_each_picture(
    blip_folder: Path, blip2_folder: Path, pictures: list[bytes], tmp_path: Path, where: str, what: str, beams: int
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(blip2_folder if where == "blip2's file" else blip_folder, folder)
    path = folder / ("config.json" if where == "blip's decoder" else "generation_config.json")
    described = json.loads(path.read_text()) if path.exists() else {}
    (described["text_config"] if where == "blip's decoder" else described).update(ASKED_FOR[what])
    path.write_text(json.dumps(described))
    plain = captions(blip2_folder if where == "blip2's file" else blip_folder, pictures, num_beams=beams)
    found = captions(folder, pictures, num_beams=beams)
    assert len(found) == len(pictures) and set(map(type, found)) == {str}
    if beams == 1 or "length_penalty" not in ASKED_FOR[what]:
        assert found == plain


def test_a_blip_with_several_end_tokens_is_refused(blip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(blip_folder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    described = json.loads(path.read_text())
    described["text_config"]["eos_token_id"] = [2, 6]
    path.write_text(json.dumps(described))
    with pytest.raises(ModelError, match=r"eos_token_id \[2, 6\]"):
        extractor(tmp_path / "model").check()


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
