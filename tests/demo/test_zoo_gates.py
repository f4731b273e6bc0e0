"""The gates of the demo models: what they must be able to do on scenes and texts of unseen seeds."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from transformers import AutoProcessor, AutoTokenizer, BlipForConditionalGeneration, GPT2LMHeadModel

from smp_features.demo.pictures import image_bytes
from smp_features.demo.population import Posts, draw
from smp_features.demo.scenes import COLOUR_NAMES, MAX_BIRDS, OBJECTS, PLACE_NAMES, Scene, draw_scene
from smp_features.demo.titles import consistent_title, gibberish_title, inconsistent_title
from smp_features.extractors.zoo import ZOO, ZOO_FOLDER, is_zoo_model

SEED = 424_242
PICTURES = 400
# Ordinary English that no training text was made of: other templates, other subjects, mostly other words.
ENGLISH = """
Scientists have measured the temperature of a distant planet
A recipe for lemon biscuits from my great-aunt's notebook
The committee postponed its decision until further evidence arrives
Electric guitars and drums at the rehearsal last Thursday
Nobody expected the referee to cancel the match
Volunteers planted hundreds of bulbs along the canal
Our flight was delayed because of heavy fog
Graffiti artists turned an abandoned factory into a gallery
The professor explained gravity with two oranges and a rope
Cherry blossoms above the temple in Kyoto
She bought second-hand records at a flea market in Brussels
Fishermen repairing their nets before sunrise
Portrait of a violinist during rehearsal
An unexpected visitor knocked while we were having lunch
Skiing down the northern slope with frozen fingers
Tourists queue for hours to see the cathedral
The baker on our corner sells the finest croissants
Vintage motorcycles parked outside a diner
Children chase pigeons across the square
Thunder rolled over the valley all through the evening
The library closes early during the exam period
My cousin collects stamps, coins and matchboxes
A rusty tractor abandoned among the sunflowers
Mist rising from the marsh at dawn
Protesters marched peacefully towards parliament
He tuned the piano twice before the recital
Steam engines attract enthusiasts from all over Europe
Reflections of skyscrapers in a puddle
The nurse smiled and handed me a blanket
Grandfather's workshop still smells of varnish
Street musicians performing near the fountain
Two elderly gentlemen playing chess in the sunshine
Autumn leaves covering the cemetery
The orchestra rehearsed the finale until midnight
Surfers paddling out towards the reef
Fresh vegetables arranged by an artist
This bridge was designed by a famous engineer
Our guide spoke four languages fluently
Kittens asleep inside a laundry basket
Lightning struck the tallest oak on the hill
The mayor announced a new cycling route
A spider's web covered with dew
Homemade noodles with garlic and parsley
Astronauts train under water for months
Lanterns floating down the stream during the ceremony
Most visitors ignore the small chapel beside the hotel
The carpenter measured twice and cut once
Penguins marching across the ice
Dancers stretching backstage
We missed the ferry and slept at the terminal
Rain drummed on the tin roof throughout supper
The documentary follows a shepherd and his flock
Ancient ruins overgrown with ivy
Marathon runners crossing the finish line
Her handwriting was almost impossible to decipher
A waiter balancing seven cups on one arm
Snowdrops pushing through the frozen soil
The puppet theatre delighted adults as much as children
Neighbours argued about the height of the hedge
Fireworks exploded above the stadium
""".strip().splitlines()


@pytest.fixture(scope="module")
def posts() -> Posts:
    return draw(PICTURES, SEED)[1]


@pytest.fixture(scope="module")
def pictures(posts: Posts) -> dict[int, Image.Image]:
    """The demo's own image files by row, as a reader decodes them; broken ones left out."""
    intact = np.flatnonzero(posts.image_fault == 0)
    return {row: Image.open(io.BytesIO(image_bytes(posts, row, SEED) or b"")).convert("RGB") for row in intact}


@pytest.fixture(scope="module")
def captions(pictures: dict[int, Image.Image]) -> list[str]:
    processor = AutoProcessor.from_pretrained(ZOO["caption"])
    model = BlipForConditionalGeneration.from_pretrained(ZOO["caption"]).eval()
    said: list[str] = []
    shown = list(pictures.values())
    for start in range(0, len(shown), 100):
        inputs = processor(images=shown[start : start + 100], return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(pixel_values=inputs.pixel_values, max_new_tokens=20, num_beams=1, do_sample=False)
        said += processor.batch_decode(tokens, skip_special_tokens=True)
    return said


class Clip:
    """The demo's open_clip model, loaded as any user of open_clip would."""

    def __init__(self) -> None:
        name = f"local-dir:{ZOO['clip']}"
        self.model, self.preprocess = open_clip.create_model_from_pretrained(name)
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer(name)

    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        with torch.inference_mode():
            return self.model.encode_image(torch.stack([self.preprocess(p) for p in pictures]), normalize=True).numpy()

    def texts(self, texts: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return self.model.encode_text(self.tokenize(texts), normalize=True).numpy()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip()


def _shown(posts: Posts, pictures: dict[int, Image.Image]) -> list[Scene]:
    return [posts.scene(row) for row in pictures]


def test_captions_name_the_main_object_and_its_colour(posts, pictures, captions) -> None:
    named = [
        f" {scene.colour} {scene.shape} " in f" {caption} "
        for scene, caption in zip(_shown(posts, pictures), captions, strict=True)
    ]
    assert np.mean(named) >= 0.90


def test_clip_picks_the_right_caption_among_five_that_differ_in_one_attribute(posts, pictures, clip) -> None:
    rng = np.random.default_rng(SEED)
    scenes = _shown(posts, pictures)
    offered = [scene.caption for shown in scenes for scene in (shown, *_one_change_each(shown, rng))]
    texts = clip.texts(offered).reshape(len(scenes), 5, -1)
    similarity = np.einsum("pd,pcd->pc", clip.images(list(pictures.values())), texts)
    assert np.mean(similarity.argmax(axis=1) == 0) >= 0.80


def _one_change_each(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    options = {"shape": OBJECTS, "colour": COLOUR_NAMES, "place": PLACE_NAMES, "birds": range(MAX_BIRDS + 1)}
    return [
        dataclasses.replace(scene, **{name: rng.choice([o for o in values if o != getattr(scene, name)]).item()})
        for name, values in options.items()
    ]


def test_similarity_of_generated_caption_and_title_separates_fitting_from_other_titles(
    posts,
    pictures,
    captions,
    clip,
) -> None:
    rng = np.random.default_rng(SEED)
    scenes = _shown(posts, pictures)
    said = clip.texts(captions)
    fitting = (said * clip.texts([consistent_title(scene, rng) for scene in scenes])).sum(axis=1)
    other = (said * clip.texts([inconsistent_title(scene, rng) for scene in scenes])).sum(axis=1)
    assert _auc(fitting, other) >= 0.90


@pytest.fixture(scope="module")
def perplexities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    normal = [make(draw_scene(rng), rng) for _ in range(150) for make in (consistent_title, inconsistent_title)]
    gibberish = [gibberish_title(rng) for _ in range(200)]
    tokenizer = AutoTokenizer.from_pretrained(ZOO["language"])
    model = GPT2LMHeadModel.from_pretrained(ZOO["language"]).eval()
    return {
        name: np.array([_log_perplexity(model, tokenizer, text) for text in texts])
        for name, texts in (("normal", normal), ("english", ENGLISH), ("gibberish", gibberish))
    }


def _log_perplexity(model: GPT2LMHeadModel, tokenizer, text: str) -> float:
    """Mean negative log-likelihood per token in nats, BOS in front."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text).input_ids]])
    with torch.inference_mode():
        return model(input_ids=ids, labels=ids).loss.item()


def _auc(higher: np.ndarray, lower: np.ndarray) -> float:
    return roc_auc_score([1] * len(higher) + [0] * len(lower), np.concatenate([higher, lower]))


def test_log_perplexity_separates_gibberish_from_normal_titles(perplexities: dict[str, np.ndarray]) -> None:
    assert _auc(perplexities["gibberish"], perplexities["normal"]) >= 0.95


def test_ordinary_english_lies_clearly_between_titles_and_gibberish(perplexities: dict[str, np.ndarray]) -> None:
    normal, english, gibberish = (np.median(perplexities[name]) for name in ("normal", "english", "gibberish"))
    assert english - normal >= 2.0
    assert gibberish - english >= 2.0
    assert _auc(perplexities["gibberish"], perplexities["english"]) >= 0.95
    assert _auc(perplexities["english"], perplexities["normal"]) >= 0.95


def test_the_demo_models_are_small_and_hold_no_pickle() -> None:
    paths = [path for path in ZOO_FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert sum(path.stat().st_size for path in paths) <= 12 * 1024**2
    weights = {path.relative_to(ZOO_FOLDER).as_posix() for path in paths if path.suffix not in (".json", ".md")}
    assert weights == {
        "blip/model.safetensors",
        "clip/open_clip_model.safetensors",
        "gpt2/model.safetensors",
    }


def test_end_of_text_is_the_largest_id_where_open_clip_pools(clip: Clip) -> None:
    ids = clip.tokenize(["a red boat", ""])
    vocabulary = clip.model.vocab_size
    assert ids.max(dim=1).values.tolist() == [vocabulary - 1] * 2
    assert (ids == vocabulary - 1).sum(dim=1).tolist() == [1, 1]


def test_gpt2_has_a_window_of_at_least_256_tokens_and_one_token_that_begins_and_ends() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ZOO["language"])
    config = GPT2LMHeadModel.from_pretrained(ZOO["language"]).config
    assert config.n_positions >= 256
    assert config.bos_token_id == config.eos_token_id == tokenizer.bos_token_id == tokenizer.eos_token_id
    text = "Caf\u00e9 \u2665 ??"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_demo_models_are_told_from_others(tmp_path: Path) -> None:
    assert all(is_zoo_model(folder) and is_zoo_model(str(folder)) for folder in ZOO.values())
    assert is_zoo_model(f"local-dir:{ZOO['clip']}")
    assert is_zoo_model("zoo:caption")
    assert not is_zoo_model("zoo:unheard")
    assert not is_zoo_model("gpt2")
    assert not is_zoo_model("ViT-L-14-quickgelu")
    assert not is_zoo_model(tmp_path)
